//! The card company: whatever is asked again under the same key happens once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use contracts::{Currency, Money, OrderId, UserId};
use millstream::Outage;
use payments::gateway::{Capture, Charged, Gateway, Refunded};

/// What the company knows.
#[derive(Debug)]
pub(crate) struct Company {
    seed: u64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    calls: u64,
    answers: BTreeMap<String, Result<String, String>>,
    captures: BTreeMap<OrderId, Vec<Capture>>,
}

/// The way to it.
pub(crate) struct Cards(pub(crate) Arc<Company>);

impl Company {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, books: Mutex::default() }
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All captures of an order.
    pub(crate) fn captures(&self, order: &OrderId) -> Vec<Capture> {
        self.books().captures.get(order).cloned().unwrap_or_default()
    }

    /// All orders that were charged.
    pub(crate) fn orders(&self) -> Vec<OrderId> {
        self.books().captures.keys().cloned().collect()
    }

    /// Now and then it does not answer, before or after it has done what was asked.
    fn fails(&self, calls: u64) -> bool {
        (calls.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed).is_multiple_of(11)
    }
}

impl Gateway for Cards {
    async fn charge(
        &self,
        order: &OrderId,
        amount: Money,
        _: Currency,
        _: &UserId,
        key: &str,
    ) -> Result<Charged, Outage> {
        let mut books = self.0.books();
        books.calls += 1;
        let calls = books.calls;
        if self.0.fails(calls) {
            return Err(Outage::new("503"));
        }
        let declined = self.0.seed.wrapping_add(books.captures.len() as u64).is_multiple_of(5);
        if !books.answers.contains_key(key) {
            let answer = if declined { Err("card declined".to_owned()) } else { Ok(format!("ch_{calls}")) };
            if let Ok(charge_id) = &answer {
                let capture = Capture { charge_id: charge_id.clone(), amount, refunded: false };
                books.captures.entry(order.clone()).or_default().push(capture);
            }
            books.answers.insert(key.into(), answer);
        }
        let answer = books.answers.get(key).cloned();
        if self.0.fails(calls + 7) {
            return Err(Outage::new("no answer in time"));
        }
        match answer {
            Some(Ok(charge_id)) => Ok(Charged::Captured { charge_id }),
            Some(Err(reason)) => Ok(Charged::Declined { reason }),
            None => Err(Outage::new("500")),
        }
    }

    async fn refund(&self, order: &OrderId, _: Money, _: &str) -> Result<Refunded, Outage> {
        let mut books = self.0.books();
        books.calls += 1;
        let calls = books.calls;
        if self.0.fails(calls) {
            return Err(Outage::new("503"));
        }
        let capture = books.captures.get_mut(order).and_then(|captures| captures.first_mut());
        let Some(capture) = capture else { return Ok(Refunded::NothingCaptured) };
        capture.refunded = true;
        if self.0.fails(calls + 3) { Err(Outage::new("no answer in time")) } else { Ok(Refunded::Done) }
    }

    async fn find(&self, order: &OrderId) -> Result<Vec<Capture>, Outage> {
        Ok(self.0.captures(order))
    }
}
