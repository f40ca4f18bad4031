//! Every interleaving of one order's saga over the real handlers: messages in any order, handled ones delivered again without
//! the journal's help, answers of the gateway lost, breadth first, so that a failure comes with its shortest trace.
//!
//! Walked twice: with a deadline and a customer's cancel at any moment (whatever comes to rest is consistent), and without
//! either (nothing in flight means the order has ended).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use contracts::{Currency, Line, Money, OrderId, UserId};
use inventory::{Product, Reservation, SetStock};
use millstream::event::Emitted;
use millstream::workbench::Workbench;
use millstream::{Fault, Id, Outage, Timestamp};
use orders::{CancelOrder, Deadline, Order, PlaceOrder, Settings};
use payments::gateway::{Capture, Charged, Gateway, Refunded};
use payments::{ChargeCard, Payment, RefundCharge, State};

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
type Messages = BTreeMap<Message, Arc<Emitted>>;
type Message = (usize, Arc<str>);

#[derive(Clone)]
struct World {
    /// Shared between worlds until one of them changes it.
    benches: [Arc<Workbench>; 3],
    desk: Desk,
    in_flight: Messages,
    handled: Messages,
    told: BTreeSet<String>,
    duplicates: u8,
    cancel: bool,
    deadline: bool,
}

#[derive(Debug)]
struct Walk {
    states: usize,
    at_rest: usize,
}

type Move = (String, Result<World, String>);

fn order_id() -> Id {
    Id::derived(Timestamp(1_767_225_600_000), "walk", b"order", 0)
}

fn place() -> PlaceOrder {
    let price = Money::from_minor(450).unwrap();
    let lines = vec![Line { product_id: "chai".parse().unwrap(), quantity: QUANTITY, price }];
    PlaceOrder {
        user_id: "ALFKI".parse().unwrap(),
        total: Line::total(&lines).unwrap(),
        lines,
        settings: Settings::default(),
    }
}

impl World {
    fn new(outside: bool, stock: u64, forgetful: bool) -> Self {
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
    fn key(&self) -> u64 {
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
        let emitted = change(&mut world)?;
        world.send(emitted)?;
        world.check()?;
        Ok(world)
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> = vec![];
        let id = order_id();
        let text = id.to_string();
        let mut add = |label: String, world| moves.push((label, world));
        match self.order() {
            None => add("POST".into(), self.after(|world| commanded(world.bench(ORDERS).command(id, &place())))),
            Some(_) if self.cancel => {
                let cancel = CancelOrder { id: id.into() };
                let by = Id::derived(id.time(), "walk", b"cancel", 0);
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

    fn is_at_rest(&self) -> bool {
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
    fn check_at_rest(&self) -> Result<(), String> {
        use inventory::Status::{Rejected, Released, Sold};
        use orders::Status::{Cancelled, Confirmed, Pending, Reserved};
        let (payment, reservation) = (self.payment().map(|payment| payment.state), self.reservation());
        let reservation = reservation.map(|reservation| reservation.status);
        let kept = self.desk.captured - self.desk.refunded;
        let status = self.order().map(|order| order.status);
        let right = match status {
            Some(Confirmed) => {
                matches!(payment, Some(State::Captured { .. })) && reservation == Some(Sold) && kept == 1
            }
            Some(Cancelled) => {
                let unpaid =
                    matches!(payment, None | Some(State::Never | State::Declined { .. } | State::Refunded { .. }));
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
        Err(Fault::Retry(why)) => Err(why),
    }
}

/// Walks all states that can be reached; the error has the shortest way to the first one that is wrong.
fn explore(start: World) -> Result<Walk, String> {
    let mut seen = HashSet::from([start.key()]);
    let mut from: Vec<(usize, String)> = vec![(0, String::new())];
    let mut level = vec![(0, start)];
    let mut at_rest = 0;
    while !level.is_empty() {
        let mut next = vec![];
        for (index, world) in level {
            let trace = |from: &[(usize, String)], last: &str, what: &str| {
                let mut steps = vec![last.to_owned()];
                let mut at = index;
                while at != 0 {
                    steps.push(from[at].1.clone());
                    at = from[at].0;
                }
                steps.reverse();
                format!("{what}\n  after: {}", steps.join(" ; "))
            };
            if world.is_at_rest() {
                at_rest += 1;
                world.check_at_rest().map_err(|what| trace(&from, "at rest", &what))?;
            }
            for (label, after) in world.moves() {
                let after = after.map_err(|what| trace(&from, &label, &what))?;
                if seen.insert(after.key()) {
                    from.push((index, label));
                    next.push((from.len() - 1, after));
                }
            }
        }
        level = next;
    }
    Ok(Walk { states: seen.len(), at_rest })
}

fn check(outside: bool) {
    for (stock, of) in [(5, "enough in stock"), (1, "short of stock")] {
        let walk = explore(World::new(outside, stock, false)).unwrap_or_else(|wrong| panic!("{of}: {wrong}"));
        println!("{of}: {} states, {} at rest", walk.states, walk.at_rest);
        assert!(walk.at_rest > 0, "{of}: {walk:?}");
    }
}

#[test]
fn with_a_deadline_and_a_cancel_at_any_moment_whatever_comes_to_rest_is_consistent() {
    check(true);
}

#[test]
fn without_deadline_and_cancel_nothing_in_flight_means_that_the_order_has_ended() {
    check(false);
}

#[test]
fn the_walk_finds_the_shortest_way_to_a_second_charge_at_a_gateway_that_forgets_its_keys() {
    let wrong = explore(World::new(false, 5, true)).unwrap_err();
    let expected = "the customer was charged twice\n  after: POST ; inventory <- orders.created ; \
                    payments <- inventory.reserved ; claim ; charge, answer lost ; charge, answer lost";
    assert_eq!(wrong, expected);
}
