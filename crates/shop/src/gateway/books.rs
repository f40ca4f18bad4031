//! The gateway's books: captures, refunds and remembered idempotency keys, and what a request means for them.
//!
//! Everything here happens under one lock and without waiting, so two requests with one key cannot both capture.

use std::collections::{HashMap, VecDeque};

use axum::http::StatusCode;
use contracts::Money;
use millstream::Timestamp;
use serde::{Deserialize, Serialize};

use super::faults::chance;
use super::ledger::{Entry, Ledger};
use super::{Faults, Settings};

/// What `POST /charges` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChargeRequest {
    pub(super) order_id: String,
    pub(super) amount: Money,
    pub(super) currency: String,
    pub(super) customer: String,
}

/// What `POST /refunds` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefundRequest {
    pub(super) order_id: String,
    pub(super) amount: Money,
}

/// A capture.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Charge {
    pub(super) charge_id: String,
    pub(super) order_id: String,
    pub(super) amount: Money,
    pub(super) currency: String,
    pub(super) customer: String,
    pub(super) refunded: bool,
    pub(super) at: Timestamp,
}

/// A refund of one whole capture.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refund {
    pub(super) refund_id: String,
    pub(super) charge_id: String,
    pub(super) order_id: String,
    pub(super) amount: Money,
    pub(super) at: Timestamp,
}

/// A definite answer: it is remembered under its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(super) enum Answer {
    Captured { charge_id: String, order_id: String, amount: Money, currency: String, status: &'static str },
    Declined { status: &'static str, reason: String },
    Refunded { refund_id: String, order_id: String, amount: Money },
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answer(Answer),
    /// It was done, and the answer is lost.
    Lost,
    /// Nothing was done, and no answer comes.
    Hang,
    /// Refused or failed with this status; nothing was done.
    Refused(StatusCode, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Charge(ChargeRequest),
    Refund(RefundRequest),
}

/// A key belongs to a route: the same one may stand for a charge and for a refund.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Charge(String),
    Refund(String),
}

struct Remembered {
    at: Timestamp,
    asked: Asked,
    answer: Answer,
}

/// See the module.
pub(super) struct Books {
    settings: Settings,
    ledger: Option<Ledger>,
    charges: Vec<Charge>,
    of_order: HashMap<String, Vec<usize>>,
    refunds: Vec<Refund>,
    declines: u64,
    keys: HashMap<Key, Remembered>,
    /// The keys by age, so that forgetting one needs no search.
    aging: VecDeque<(Timestamp, Key)>,
    /// How often a request about an order came in while a share of them fails.
    attempts: HashMap<String, u32>,
    /// How often an order's amount made its charge stumble.
    stumbles: HashMap<String, u32>,
}

impl Books {
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let (ledger, entries) = match &settings.ledger {
            Some(path) => Ledger::open(path).map(|(ledger, entries)| (Some(ledger), entries))?,
            None => (None, vec![]),
        };
        let mut books = Self {
            settings: settings.clone(),
            ledger,
            charges: vec![],
            of_order: HashMap::new(),
            refunds: vec![],
            declines: 0,
            keys: HashMap::new(),
            aging: VecDeque::new(),
            attempts: HashMap::new(),
            stumbles: HashMap::new(),
        };
        for entry in entries {
            books.apply(entry);
        }
        Ok(books)
    }

    pub(super) fn charge(&mut self, now: Timestamp, key: String, request: ChargeRequest, faults: &Faults) -> Verdict {
        self.forget(now);
        if self.fails(&request.order_id, faults) {
            return error("the gateway failed before the charge");
        }
        if let Some(verdict) = self.repeat(&Key::Charge(key.clone()), &Asked::Charge(request.clone())) {
            return verdict;
        }
        let order = request.order_id.clone();
        let declined = match cents(request.amount) {
            13 => Some("card declined (amount ends in .13)"),
            17 if self.stumble(&order) <= self.settings.fail_first => {
                return error("the gateway failed before the charge (amount ends in .17)");
            }
            19 if self.stumble(&order) == 1 => return Verdict::Hang,
            _ if chance(self.settings.seed, "decline", &order, 0) < faults.decline => Some("card declined"),
            _ => None,
        };
        if let Some(reason) = declined {
            return self.record(Entry::Declined { at: now, key, request, reason: reason.into() });
        }
        let first = !self.of_order.contains_key(&order);
        let lost = first && (cents(request.amount) == 23 || self.loses("capture", &order, faults));
        let verdict = self.record(Entry::Captured { at: now, key, request });
        if lost && matches!(verdict, Verdict::Answer(_)) { Verdict::Lost } else { verdict }
    }

    pub(super) fn refund(&mut self, now: Timestamp, key: String, request: RefundRequest, faults: &Faults) -> Verdict {
        self.forget(now);
        if self.fails(&request.order_id, faults) {
            return error("the gateway failed before the refund");
        }
        if let Some(verdict) = self.repeat(&Key::Refund(key.clone()), &Asked::Refund(request.clone())) {
            return verdict;
        }
        let order = request.order_id.clone();
        if self.refundable(&request).is_none() {
            let open: Vec<_> = self.of(&order).filter(|charge| !charge.refunded).map(|charge| charge.amount).collect();
            let detail = match open.as_slice() {
                [] => format!("order {order} has no unrefunded capture"),
                [amount, ..] => format!("order {order} has a capture of {amount}: only full refunds are supported"),
            };
            return Verdict::Refused(StatusCode::CONFLICT, detail);
        }
        let lost = self.loses("refund", &order, faults);
        let verdict = self.record(Entry::Refunded { at: now, key, request });
        if lost && matches!(verdict, Verdict::Answer(_)) { Verdict::Lost } else { verdict }
    }

    pub(super) fn charges(&self) -> &[Charge] {
        &self.charges
    }

    pub(super) fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    pub(super) fn declines(&self) -> u64 {
        self.declines
    }

    pub(super) fn of(&self, order: &str) -> impl Iterator<Item = &Charge> {
        self.of_order.get(order).into_iter().flatten().map(|at| &self.charges[*at])
    }

    /// Orders with more than one capture, and how many captures each has.
    pub(super) fn captured_twice(&self) -> Vec<(&str, usize)> {
        let counts = self.of_order.iter().map(|(order, charges)| (order.as_str(), charges.len()));
        let mut twice: Vec<_> = counts.filter(|(_, count)| *count > 1).collect();
        twice.sort_unstable();
        twice
    }

    fn refundable(&self, request: &RefundRequest) -> Option<usize> {
        let charges = self.of_order.get(&request.order_id)?;
        let fits = |charge: &Charge| !charge.refunded && charge.amount == request.amount;
        charges.iter().copied().find(|at| fits(&self.charges[*at]))
    }

    fn repeat(&self, key: &Key, asked: &Asked) -> Option<Verdict> {
        let known = self.keys.get(key)?;
        Some(if known.asked == *asked {
            Verdict::Answer(known.answer.clone())
        } else {
            let detail = "this Idempotency-Key was used for a different request: use a new key for a new request";
            Verdict::Refused(StatusCode::UNPROCESSABLE_ENTITY, detail.into())
        })
    }

    fn forget(&mut self, now: Timestamp) {
        let keep = self.settings.remember_keys;
        while self.aging.front().is_some_and(|(at, _)| now.since(*at) >= keep) {
            let Some((_, key)) = self.aging.pop_front() else { return };
            // A key that came again after it was forgotten is younger than its first appearance here.
            if self.keys.get(&key).is_some_and(|known| now.since(known.at) >= keep) {
                self.keys.remove(&key);
            }
        }
    }

    fn fails(&mut self, order: &str, faults: &Faults) -> bool {
        if faults.error <= 0.0 {
            return false;
        }
        let attempt = self.attempts.entry(order.into()).or_default();
        *attempt += 1;
        chance(self.settings.seed, "error", order, *attempt) < faults.error
    }

    fn loses(&self, what: &str, order: &str, faults: &Faults) -> bool {
        chance(self.settings.seed, what, order, 0) < faults.capture_then_fail
    }

    fn stumble(&mut self, order: &str) -> u32 {
        let count = self.stumbles.entry(order.into()).or_default();
        *count += 1;
        *count
    }

    /// The ledger first: what it does not hold has not happened.
    fn record(&mut self, entry: Entry) -> Verdict {
        if let Some(ledger) = &mut self.ledger
            && let Err(failure) = ledger.append(&entry)
        {
            tracing::error!(error = format!("{failure:#}"), "cannot write the gateway's ledger");
            return error("cannot write the gateway's ledger; nothing was captured or refunded");
        }
        Verdict::Answer(self.apply(entry))
    }

    fn apply(&mut self, entry: Entry) -> Answer {
        match entry {
            Entry::Captured { at, key, request } => {
                let charge_id = format!("ch-{:08}", self.charges.len() + 1);
                let asked = request.clone();
                let ChargeRequest { order_id, amount, currency, customer } = request;
                self.of_order.entry(order_id.clone()).or_default().push(self.charges.len());
                self.charges.push(Charge {
                    charge_id: charge_id.clone(),
                    order_id: order_id.clone(),
                    amount,
                    currency: currency.clone(),
                    customer,
                    refunded: false,
                    at,
                });
                let answer = Answer::Captured { charge_id, order_id, amount, currency, status: "captured" };
                self.remember(at, Key::Charge(key), Asked::Charge(asked), answer)
            }
            Entry::Declined { at, key, request, reason } => {
                self.declines += 1;
                let answer = Answer::Declined { status: "declined", reason };
                self.remember(at, Key::Charge(key), Asked::Charge(request), answer)
            }
            Entry::Refunded { at, key, request } => {
                let refund_id = format!("rf-{:08}", self.refunds.len() + 1);
                let charge = self.refundable(&request).map(|charge| &mut self.charges[charge]);
                let charge_id = charge.map_or(String::new(), |charge| {
                    charge.refunded = true;
                    charge.charge_id.clone()
                });
                let RefundRequest { order_id, amount } = request.clone();
                self.refunds.push(Refund {
                    refund_id: refund_id.clone(),
                    charge_id,
                    order_id: order_id.clone(),
                    amount,
                    at,
                });
                let answer = Answer::Refunded { refund_id, order_id, amount };
                self.remember(at, Key::Refund(key), Asked::Refund(request), answer)
            }
        }
    }

    fn remember(&mut self, at: Timestamp, key: Key, asked: Asked, answer: Answer) -> Answer {
        self.aging.push_back((at, key.clone()));
        self.keys.insert(key, Remembered { at, asked, answer: answer.clone() });
        answer
    }
}

fn error(detail: &str) -> Verdict {
    Verdict::Refused(StatusCode::INTERNAL_SERVER_ERROR, detail.into())
}

/// The cents beyond the whole units, by which the rules tell amounts apart.
fn cents(amount: Money) -> i64 {
    amount.minor().rem_euclid(100)
}
