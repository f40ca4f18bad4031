//! Within 23 hours the gateway's keys keep a repeat from charging twice; after that the gateway is asked first.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::{Currency, Money, OrderId, UserId};
use millstream::{Effect, Id, Outage, Timestamp, Wake};

use crate::gateway::{Capture, Charged, Gateway, Refunded};
use crate::{ChargeCard, Payment, PaymentState, RefundCharge, Terms};

/// A gateway that has forgotten every key: whatever it is asked, it does.
#[derive(Default)]
struct Forgetful {
    captures: Mutex<Vec<Capture>>,
    asked: Mutex<Vec<String>>,
}

impl Gateway for Forgetful {
    async fn charge(&self, _: &OrderId, amount: Money, _: Currency, _: &UserId, key: &str) -> Result<Charged, Outage> {
        self.asked.lock().unwrap().push(key.into());
        let charge_id = "new".to_owned();
        self.captures.lock().unwrap().push(Capture { charge_id: charge_id.clone(), amount, refunded: false });
        Ok(Charged::Captured { charge_id })
    }

    async fn refund(&self, _: &OrderId, _: Money, key: &str) -> Result<Refunded, Outage> {
        self.asked.lock().unwrap().push(key.into());
        let mut captures = self.captures.lock().unwrap();
        let Some(capture) = captures.iter_mut().find(|capture| !capture.refunded) else {
            return Ok(Refunded::NothingCaptured);
        };
        capture.refunded = true;
        Ok(Refunded::Done)
    }

    async fn find(&self, _: &OrderId) -> Result<Vec<Capture>, Outage> {
        self.asked.lock().unwrap().push("find".into());
        Ok(self.captures.lock().unwrap().clone())
    }
}

const YOUNG: Duration = Duration::from_secs(22 * 3600 + 59 * 60);
const OLD: Duration = Duration::from_secs(23 * 3600);

fn wake(kind: &str, age: Duration) -> Wake {
    let opened = Timestamp::system() - age;
    Wake {
        kind: kind.into(),
        opened,
        at: opened,
        attempt: 1,
        lease: None,
        generation: 1,
        cause: Id::random(opened),
        correlation: "c".into(),
        traceparent: None,
    }
}

fn terms() -> Terms {
    let (amount, customer) = (Money::from_minor(1250).unwrap(), "ALFKI".parse().unwrap());
    Terms { amount, currency: Currency::Eur, customer }
}

/// A gateway with these captures (whether each was refunded).
fn gateway(captures: &[bool]) -> Arc<Forgetful> {
    let capture = |refunded: &bool| Capture { charge_id: "old".into(), amount: terms().amount, refunded: *refunded };
    Arc::new(Forgetful { captures: Mutex::new(captures.iter().map(capture).collect()), ..Forgetful::default() })
}

async fn check_charge(captures: &[bool], age: Duration, charge_id: Option<&str>, asked: &[&str]) {
    let gateway = gateway(captures);
    let payment =
        Payment { id: "o".parse().unwrap(), state: PaymentState::Charging { terms: terms(), cancel_requested: false } };
    let charged = ChargeCard(gateway.clone()).run(&payment, &wake("charge", age)).await.unwrap();
    let id = match charged {
        Charged::Captured { charge_id } => Some(charge_id),
        Charged::Declined { .. } => None,
    };
    assert_eq!(id.as_deref(), charge_id, "{captures:?} after {age:?}");
    assert_eq!(*gateway.asked.lock().unwrap(), asked, "{captures:?} after {age:?}");
}

async fn check_refund(captures: &[bool], age: Duration, done: bool, asked: &[&str]) {
    let gateway = gateway(captures);
    let state = PaymentState::Refunding { terms: terms(), charge_id: "old".into() };
    let payment = Payment { id: "o".parse().unwrap(), state };
    let result = RefundCharge(gateway.clone()).run(&payment, &wake("refund", age)).await;
    assert_eq!(result.is_ok(), done, "{captures:?} after {age:?}: {result:?}");
    assert_eq!(*gateway.asked.lock().unwrap(), asked, "{captures:?} after {age:?}");
}

#[tokio::test]
async fn a_charge_that_is_asked_again_after_23_hours_looks_for_the_capture_first() {
    check_charge(&[], YOUNG, Some("new"), &["charge-o"]).await;
    check_charge(&[], OLD, Some("new"), &["find", "charge-o"]).await;
    check_charge(&[false], OLD, Some("old"), &["find"]).await;
    check_charge(&[true], OLD, None, &["find"]).await;
    check_charge(&[true, false], OLD, Some("old"), &["find"]).await;
}

#[tokio::test]
async fn a_refund_that_is_asked_again_after_23_hours_looks_for_the_refund_first() {
    check_refund(&[false], YOUNG, true, &["refund-o"]).await;
    check_refund(&[false], OLD, true, &["find", "refund-o"]).await;
    check_refund(&[true], OLD, true, &["find"]).await;
}

#[tokio::test]
async fn a_gateway_without_a_capture_to_refund_is_believed_only_when_it_shows_the_refund() {
    check_refund(&[true], YOUNG, true, &["refund-o", "find"]).await;
    check_refund(&[], YOUNG, false, &["refund-o", "find"]).await;
}
