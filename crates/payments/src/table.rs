//! Every row of the payments' table, and every pair that is not in it.

use std::sync::Arc;

use contracts::inventory::InventoryReserved;
use contracts::orders::{CancelReason, OrderCancelled};
use contracts::payments::PaymentProcessed;
use contracts::{Currency, Money, OrderId, UserId};
use millstream::Outage;
use millstream::event::Emitted;
use millstream::workbench::Workbench;

use crate::gateway::{Capture, Charged, Gateway, Refunded};
use crate::metrics::PAYMENTS;
use crate::saga::{Cancel, Charge};
use crate::{ChargeCard, Payment, PaymentState, PaymentView, RefundCharge, service};

/// A gateway that is never asked: settling is pure.
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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Input {
    Reserved,
    Cancelled,
    Claimed,
    Captured,
    Declined,
    Refunded,
}
use Input::{Cancelled, Captured, Claimed, Declined, Refunded as RefundDone, Reserved};

fn tell(bench: &mut Workbench, input: Input) -> Vec<Emitted> {
    let order_id: OrderId = "o".parse().unwrap();
    let (amount, currency) = (Money::from_minor(1250).unwrap(), Currency::Eur);
    let customer: UserId = "ALFKI".parse().unwrap();
    let gateway = Arc::new(Unasked);
    match input {
        Reserved => {
            let event = bench.received(InventoryReserved { order_id, amount, currency, customer });
            bench.handle(&Charge, &event).unwrap()
        }
        Cancelled => {
            let reason = CancelReason::Customer;
            let event = bench.received(OrderCancelled {
                order_id,
                user_id: customer,
                lines: vec![],
                total: amount,
                currency,
                reason,
            });
            bench.handle(&Cancel, &event).unwrap()
        }
        Claimed => {
            assert!(bench.claim::<ChargeCard<Unasked>>("o") || bench.claim::<RefundCharge<Unasked>>("o"));
            vec![]
        }
        Captured => bench.settle(&ChargeCard(gateway), "o", Charged::Captured { charge_id: "ch_1".into() }),
        Declined => bench.settle(&ChargeCard(gateway), "o", Charged::Declined { reason: "no funds".into() }),
        RefundDone => bench.settle(&RefundCharge(gateway), "o", ()),
    }
}

fn bench(before: &[Input]) -> Workbench {
    let mut bench = Workbench::of(&service(Unasked));
    for input in before {
        tell(&mut bench, *input);
    }
    bench
}

/// Asserts what an input does after some others: the state it leaves, the wake it leaves (its kind, and whether it is
/// claimed), the events it emits.
fn check(before: &[Input], input: Input, state: &str, wake: Option<(&str, bool)>, events: &[&str]) -> PaymentView {
    let mut bench = bench(before);
    let case = format!("{before:?}, then {input:?}");
    let emitted = tell(&mut bench, input);
    let subjects: Vec<_> = emitted.iter().map(|event| event.subject.rsplit_once('.').unwrap().0).collect();
    assert_eq!(subjects, events, "{case}");
    let payment = bench.get::<Payment>("o").unwrap();
    assert_eq!(payment.state.name(), state, "{case}");
    let left = bench.wake_of::<Payment>("o").map(|wake| (wake.kind.as_str(), wake.attempt > 0));
    assert_eq!(left, wake, "{case}");
    if matches!(input, Reserved | Cancelled) {
        let after = bench.state();
        assert_eq!(tell(&mut bench, input), [], "{case}, again");
        assert_eq!(bench.state(), after, "{case}, again");
    }
    payment.into()
}

const PROCESSED: &[&str] = &["payments.processed"];

#[test]
fn a_reservation_is_charged_unless_the_order_was_cancelled_first() {
    check(&[], Reserved, "CHARGING", Some(("charge", false)), &[]);
    let never = check(&[], Cancelled, "NEVER", None, &[]);
    assert_eq!(never.amount, None);
    check(&[Cancelled], Reserved, "NEVER", None, &[]);
}

#[test]
fn a_cancel_before_the_claim_means_nothing_is_ever_sent() {
    check(&[Reserved], Cancelled, "NEVER", None, &[]);
    check(&[Reserved, Cancelled], Reserved, "NEVER", None, &[]);
}

#[test]
fn a_cancel_while_the_outcome_is_open_is_noted_and_the_outcome_decides() {
    let noted = check(&[Reserved, Claimed], Cancelled, "CHARGING", Some(("charge", true)), &[]);
    assert!(noted.cancel_requested);
    let open = [Reserved, Claimed, Cancelled];
    check(&open, Reserved, "CHARGING", Some(("charge", true)), &[]);
    check(&open, Captured, "REFUNDING", Some(("refund", false)), PROCESSED);
    check(&open, Declined, "DECLINED", None, PROCESSED);
}

#[test]
fn a_charge_settles_once_with_the_event_that_tells_how() {
    let captured = check(&[Reserved, Claimed], Captured, "CAPTURED", None, PROCESSED);
    assert_eq!((captured.charge_id.as_deref(), captured.amount.unwrap().minor()), (Some("ch_1"), 1250));
    let declined = check(&[Reserved, Claimed], Declined, "DECLINED", None, PROCESSED);
    assert_eq!(declined.reason.as_deref(), Some("no funds"));
    check(&[Reserved, Claimed, Captured], Captured, "CAPTURED", None, &[]);
    for (input, status) in [(Captured, "SUCCESS"), (Declined, "FAILED")] {
        let mut bench = bench(&[Reserved, Claimed]);
        let event: PaymentProcessed = serde_json::from_slice(&tell(&mut bench, input)[0].payload).unwrap();
        assert_eq!(serde_json::to_value(event.status).unwrap(), status);
    }
}

#[test]
fn a_cancel_after_the_capture_gives_the_money_back_once() {
    let refunding = [Reserved, Claimed, Captured, Cancelled];
    check(&refunding[..3], Cancelled, "REFUNDING", Some(("refund", false)), &[]);
    check(&[Reserved, Claimed, Captured, Cancelled, Claimed], Cancelled, "REFUNDING", Some(("refund", true)), &[]);
    check(&[Reserved, Claimed, Captured, Cancelled, Claimed], RefundDone, "REFUNDED", None, &["payments.refunded"]);
    let ended = [Reserved, Claimed, Captured, Cancelled, Claimed, RefundDone];
    check(&ended, RefundDone, "REFUNDED", None, &[]);
    let bench = bench(&ended);
    for outcome in ["captured", "refund_pending", "refunded"] {
        assert_eq!(bench.counted(&PAYMENTS, &[outcome]), 1.0, "{outcome}");
    }
}

#[test]
fn every_pair_that_is_not_in_the_table_changes_nothing() {
    let captured = &[Reserved, Claimed, Captured][..];
    let declined = &[Reserved, Claimed, Declined][..];
    let refunding = &[Reserved, Claimed, Captured, Cancelled][..];
    let refunded = &[Reserved, Claimed, Captured, Cancelled, Claimed, RefundDone][..];
    let refund = Some(("refund", false));
    for (before, input, state, wake) in [
        (&[Reserved][..], Reserved, "CHARGING", Some(("charge", false))),
        (captured, Reserved, "CAPTURED", None),
        (declined, Reserved, "DECLINED", None),
        (declined, Cancelled, "DECLINED", None),
        (refunding, Reserved, "REFUNDING", refund),
        (refunding, Captured, "REFUNDING", refund),
        (refunded, Reserved, "REFUNDED", None),
        (refunded, Cancelled, "REFUNDED", None),
    ] {
        check(before, input, state, wake, &[]);
    }
}

#[test]
fn every_state_comes_back_from_json_with_its_exact_amount() {
    for before in [&[Cancelled][..], &[Reserved], &[Reserved, Claimed, Captured], &[Reserved, Claimed, Declined]] {
        let payment = bench(before).get::<Payment>("o").unwrap();
        let json = serde_json::to_string(&payment).unwrap();
        assert_eq!(serde_json::from_str::<Payment>(&json).unwrap(), payment);
        assert!(json.contains("12.50") || payment.state == PaymentState::Never, "{json}");
    }
}
