//! [`World`]: one order in the three services, and all that can happen next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use contracts::{Currency, Line, Money, OrderId, UserId};
use inventory::{Product, Reservation, SetStock};
use millstream::event::Emitted;
use millstream::workbench::Workbench;
use millstream::{Fault, Id, Outage, Timestamp};
use orders::{CancelOrder, Deadline, Order, PlaceOrder, Settings};
use payments::gateway::{Capture, Charged, Gateway, Refunded};
use payments::{ChargeCard, Payment, PaymentState, RefundCharge};

/// How many handled messages are delivered again in one history.
const DUPLICATES: u8 = 2;
const QUANTITY: u32 = 2;
const NAMES: [&str; 3] = ["orders", "inventory", "payments"];
const ORDERS: usize = 0;
const INVENTORY: usize = 1;
const PAYMENTS: usize = 2;

/// The gateway as it is walked: what it has done. Its answers are given to `settle` by the walk itself, or lost.
#[derive(Clone, Debug, Default, Hash)]
struct Desk {
    /// What the first attempt under the charge's key has decided.
    decided: Option<bool>,
    captured: u8,
    refunded: u8,
    /// Whether it forgets the key, and so charges with each attempt: a gateway that the saga is not safe with.
    forgetful: bool,
}

/// Handlers need the type of a gateway, and never ask it.
struct Unasked;

impl Gateway for Unasked {
    async fn charge(&self, _: &OrderId, _: Money, _: Currency, _: &UserId, _: &str) -> Result<Charged, Outage> {
        unreachable!()
    }

    async fn refund(&self, _: &OrderId, _: Money, _: &str) -> Result<Refunded, Outage> {
        unreachable!()
    }

    async fn find(&self, _: &OrderId) -> Result<Vec<Capture>, Outage> {
        unreachable!()
    }
}

/// A message on its way to a service. Two are the same if they say the same: ids are left out, so that the walk ends.
pub(crate) type Messages = BTreeMap<Message, Arc<Emitted>>;
pub(crate) type Message = (usize, Arc<str>);

/// The three services, the gateway, what is on its way between them, and what may still come from outside.
#[derive(Clone)]
pub(crate) struct World {
    /// Shared between worlds until one of them changes it.
    benches: [Arc<Workbench>; 3],
    desk: Desk,
    pub(crate) in_flight: Messages,
    pub(crate) handled: Messages,
    told: BTreeSet<String>,
    duplicates: u8,
    cancel: bool,
    deadline: bool,
}

/// A step, and the world after it; or what is wrong with it.
pub(crate) type Move = (String, Result<World, String>);

fn order_id() -> Id {
    Id::derived(Timestamp::from_millis(1_767_225_600_000), "walk", b"order", 0)
}

fn place() -> PlaceOrder {
    let price = Money::from_minor(450).unwrap();
    let lines = vec![Line { product_id: "chai".parse().unwrap(), quantity: QUANTITY, price }];
    PlaceOrder { user_id: "ALFKI".parse().unwrap(), total: Line::total(&lines).unwrap(), lines }
}

impl World {
    pub(crate) fn new(outside: bool, stock: u64, forgetful: bool) -> Self {
        let services = [orders::service(Settings::default()), inventory::service(), payments::service(Unasked)];
        let mut benches = services.map(|service| Workbench::of(&service));
        let set = SetStock { product_id: "chai".parse().unwrap(), name: None, initial: stock };
        benches[INVENTORY].command(order_id(), &set).unwrap();
        let benches = benches.map(Arc::new);
        Self {
            benches,
            desk: Desk { forgetful, ..Desk::default() },
            in_flight: Messages::new(),
            handled: Messages::new(),
            told: BTreeSet::new(),
            duplicates: DUPLICATES,
            cancel: outside,
            deadline: outside,
        }
    }

    /// What tells this world from others, as a hash: among some thousands no two of 64 bits are the same by chance.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.benches.iter().for_each(|bench| bench.state().hash(&mut hasher));
        self.in_flight.keys().for_each(|message| message.hash(&mut hasher));
        self.handled.keys().for_each(|message| message.hash(&mut hasher));
        (self.in_flight.len(), &self.desk, &self.told, self.duplicates, self.cancel, self.deadline).hash(&mut hasher);
        hasher.finish()
    }

    fn bench(&mut self, of: usize) -> &mut Workbench {
        Arc::make_mut(&mut self.benches[of])
    }

    fn order(&self) -> Option<Order> {
        self.benches[ORDERS].get(&order_id().to_string())
    }

    fn payment(&self) -> Option<Payment> {
        self.benches[PAYMENTS].get(&order_id().to_string())
    }

    fn reservation(&self) -> Option<Reservation> {
        self.benches[INVENTORY].get(&order_id().to_string())
    }

    /// Sends what was emitted to every service that declares a handler for it.
    fn send(&mut self, emitted: Vec<Emitted>) -> Result<(), String> {
        for message in emitted {
            let (subject, _) = message.subject.rsplit_once('.').ok_or("a subject without a partition")?;
            if !self.told.insert(subject.into()) {
                return Err(format!("{subject} was emitted twice"));
            }
            let said: Arc<str> = format!("{subject} {}", String::from_utf8_lossy(&message.payload)).into();
            let message = Arc::new(message);
            for to in (0..self.benches.len()).filter(|to| self.benches[*to].handles(&message)) {
                self.in_flight.insert((to, said.clone()), message.clone());
            }
        }
        Ok(())
    }

    /// The world after `change`, with what it emitted on its way; or what is wrong with it.
    fn after(&self, change: impl FnOnce(&mut Self) -> Result<Vec<Emitted>, String>) -> Result<Self, String> {
        let mut world = self.clone();
        // A handler that panics, or stages what it must not, is a wrong step like any other.
        let emitted = catch_unwind(AssertUnwindSafe(|| change(&mut world)))
            .unwrap_or_else(|_| Err("a handler panicked; its message stands above".into()))?;
        world.send(emitted)?;
        world.check()?;
        Ok(world)
    }

    pub(crate) fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> = vec![];
        let id = order_id();
        let text = id.to_string();
        let mut add = |label: String, world| moves.push((label, world));
        match self.order() {
            None => add(
                "POST".into(),
                self.after(|world| commanded(world.bench(ORDERS).command_to(&Settings::default(), id, &place()))),
            ),
            Some(_) if self.cancel => {
                let cancel = CancelOrder { id: id.into() };
                let by = Id::derived(id.time().unwrap(), "walk", b"cancel", 0);
                let after = self.after(|world| {
                    world.cancel = false;
                    commanded(world.bench(ORDERS).command(by, &cancel))
                });
                add("cancel".into(), after);
            }
            Some(_) => {}
        }
        if self.deadline && self.benches[ORDERS].wake_of::<Order>(&text).is_some() {
            let after = self.after(|world| {
                world.deadline = false;
                Ok(world.bench(ORDERS).fire(&Deadline, &text))
            });
            add("deadline".into(), after);
        }
        let again = self.handled.keys().filter(|_| self.duplicates > 0).map(|message| (message, true));
        for (message, again) in self.in_flight.keys().map(|message| (message, false)).chain(again) {
            let subject = message.1.split(' ').next().unwrap_or_default();
            let label = format!("{} <- {subject}{}", NAMES[message.0], if again { " (again)" } else { "" });
            add(label, self.after(|world| world.deliver(message, again)));
        }
        for (label, world) in self.effects(&text) {
            add(label.into(), world);
        }
        moves
    }

    fn deliver(&mut self, message: &Message, again: bool) -> Result<Vec<Emitted>, String> {
        let emitted = if again {
            self.duplicates -= 1;
            self.handled[message].clone()
        } else {
            let emitted = self.in_flight.remove(message).ok_or("a message that is not in flight")?;
            self.handled.insert(message.clone(), emitted.clone());
            emitted
        };
        let result = self.bench(message.0).deliver(&emitted).ok_or("a message that nobody handles")?;
        result.map_err(|fault| format!("{} failed on {}: {fault:?}", NAMES[message.0], message.1))
    }

    /// What may become of an open wake of payments: it is claimed; once claimed, the gateway does its part and the answer
    /// arrives, or is lost.
    fn effects(&self, id: &str) -> Vec<(&'static str, Result<Self, String>)> {
        let charge = ChargeCard(Arc::new(Unasked));
        let refund = RefundCharge(Arc::new(Unasked));
        let Some(wake) = self.benches[PAYMENTS].wake_of::<Payment>(id) else { return vec![] };
        let charges = wake.kind == "charge";
        if wake.attempt == 0 {
            let claim = |world: &mut Self| {
                let bench = world.bench(PAYMENTS);
                let claimed = bench.claim::<ChargeCard<Unasked>>(id) || bench.claim::<RefundCharge<Unasked>>(id);
                if claimed { Ok(vec![]) } else { Err("a wake that cannot be claimed".into()) }
            };
            return vec![("claim", self.after(claim))];
        }
        if !charges {
            let done = Desk { refunded: self.desk.captured, ..self.desk.clone() };
            let lost = self.after(|world| {
                world.desk = done.clone();
                Ok(vec![])
            });
            let answered = self.after(|world| {
                world.desk = done.clone();
                Ok(world.bench(PAYMENTS).settle(&refund, id, ()))
            });
            return vec![("refund, answer lost", lost), ("refund", answered)];
        }
        let mut moves = vec![];
        for desk in self.desk.charge() {
            let lost = self.after(|world| {
                world.desk = desk.clone();
                Ok(vec![])
            });
            moves.push(("charge, answer lost", lost));
            let (label, outcome) = match desk.decided {
                Some(true) => ("charge captured", Charged::Captured { charge_id: "ch".into() }),
                _ => ("charge declined", Charged::Declined { reason: "no funds".into() }),
            };
            let answered = self.after(|world| {
                world.desk = desk.clone();
                Ok(world.bench(PAYMENTS).settle(&charge, id, outcome))
            });
            moves.push((label, answered));
        }
        moves
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        let wake = self.benches[PAYMENTS].wake_of::<Payment>(&order_id().to_string());
        self.order().is_some() && self.in_flight.is_empty() && wake.is_none()
    }

    /// What holds at every moment.
    fn check(&self) -> Result<(), String> {
        let violations = self.benches[ORDERS].counted(&orders::INVARIANT_VIOLATIONS, &[])
            + self.benches[INVENTORY].counted(&inventory::INVARIANT_VIOLATIONS, &[]);
        if violations > 0.0 {
            return Err("a service has counted a violation of an invariant".into());
        }
        if self.desk.captured > 1 {
            return Err("the customer was charged twice".into());
        }
        let product = self.benches[INVENTORY].get::<Product>("chai").ok_or("the product is gone")?;
        let held = match self.reservation().map(|reservation| reservation.status) {
            Some(inventory::Status::Reserved) => (QUANTITY.into(), 0),
            Some(inventory::Status::Sold) => (0, QUANTITY.into()),
            _ => (0, 0),
        };
        if (product.reserved, product.sold) != held || product.reserved + product.sold > product.initial {
            return Err(format!("the stock is not what the reservation holds, {held:?}: {product:?}"));
        }
        Ok(())
    }

    /// What holds when nothing is on its way any more.
    pub(crate) fn check_at_rest(&self) -> Result<(), String> {
        use inventory::Status::{Rejected, Released, Sold};
        use orders::Status::{Cancelled, Confirmed, Pending, Reserved};
        let (payment, reservation) = (self.payment().map(|payment| payment.state), self.reservation());
        let reservation = reservation.map(|reservation| reservation.status);
        let kept = self.desk.captured - self.desk.refunded;
        let status = self.order().map(|order| order.status);
        let right = match status {
            Some(Confirmed) => {
                matches!(payment, Some(PaymentState::Captured { .. })) && reservation == Some(Sold) && kept == 1
            }
            Some(Cancelled) => {
                let unpaid = matches!(
                    payment,
                    None | Some(PaymentState::Never | PaymentState::Declined { .. } | PaymentState::Refunded { .. })
                );
                unpaid && matches!(reservation, None | Some(Rejected | Released)) && kept == 0
            }
            // The deadline is still to come.
            Some(Pending | Reserved) => self.deadline,
            None => false,
        };
        if right {
            return Ok(());
        }
        let payment = payment.map_or("no payment", |state| state.name());
        Err(format!("at rest with order {status:?}, {payment}, reservation {reservation:?}, {:?}", self.desk))
    }
}

impl Desk {
    /// What it may have done after being asked to charge.
    fn charge(&self) -> Vec<Self> {
        let decide = |yes| Self { decided: Some(yes), captured: self.captured + u8::from(yes), ..self.clone() };
        match self.decided {
            Some(true) if self.forgetful => vec![decide(true)],
            Some(_) => vec![self.clone()],
            None => vec![decide(true), decide(false)],
        }
    }
}

/// A refused command changes nothing and is no fault of the saga.
fn commanded<R>(result: Result<(R, Vec<Emitted>), Fault>) -> Result<Vec<Emitted>, String> {
    match result {
        Ok((_, emitted)) => Ok(emitted),
        Err(Fault::Reject(_)) => Ok(vec![]),
        Err(fault) => Err(format!("{fault:?}")),
    }
}
