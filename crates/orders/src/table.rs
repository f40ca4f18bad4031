//! Every row of the saga's table, and every pair that is not in it.

use contracts::inventory::{InventoryRejected, InventoryReserved};
use contracts::orders::CancelReason;
use contracts::payments::{PaymentProcessed, PaymentRefunded, PaymentStatus};
use contracts::{Currency, Line, Money, OrderId, UserId};
use millstream::event::Emitted;
use millstream::workbench::Workbench;
use millstream::{Fault, Handler, Id, Timestamp};

use crate::facts::Learn;
use crate::metrics::ORDERS;
use crate::order::{Fact, Order, Status};
use crate::{CancelOrder, Deadline, INVARIANT_VIOLATIONS, PlaceOrder, Settings, service};

fn place() -> PlaceOrder {
    let line = Line { product_id: "chai".parse().unwrap(), quantity: 2, price: Money::from_minor(450).unwrap() };
    PlaceOrder { user_id: customer(), total: Line::total(std::slice::from_ref(&line)).unwrap(), lines: vec![line] }
}

fn customer() -> UserId {
    "ALFKI".parse().unwrap()
}

/// A bench with one order in a given state, with its deadline if it has not ended.
fn bench(status: Status) -> (Workbench, OrderId) {
    let mut bench = Workbench::of(&service(Settings::default()));
    let command = Id::random(Timestamp::from_millis(1_767_225_600_000));
    bench.command_to(&Settings::default(), command, &place()).unwrap();
    let id = OrderId::from(command);
    match status {
        Status::Pending => {}
        Status::Reserved => assert!(tell(&mut bench, &id, Fact::Reserved).unwrap().is_empty()),
        Status::Confirmed => assert_eq!(tell(&mut bench, &id, Fact::Captured).unwrap().len(), 1),
        Status::Cancelled => assert_eq!(tell(&mut bench, &id, Fact::Deadline).unwrap().len(), 1),
    }
    (bench, id)
}

fn tell(bench: &mut Workbench, id: &OrderId, fact: Fact) -> Result<Vec<Emitted>, Fault> {
    fn on<E>(bench: &mut Workbench, event: E) -> Result<Vec<Emitted>, Fault>
    where
        Learn: Handler<E>,
        E: millstream::Event,
    {
        let event = bench.received(event);
        bench.handle(&Learn, &event)
    }
    let (order_id, amount, currency) = (id.clone(), Money::from_minor(900).unwrap(), Currency::Eur);
    let processed = |status| PaymentProcessed {
        order_id: id.clone(),
        status,
        amount,
        currency,
        customer: customer(),
        charge_id: None,
        reason: None,
    };
    match fact {
        Fact::Reserved => on(bench, InventoryReserved { order_id, amount, currency, customer: customer() }),
        Fact::Rejected => on(bench, InventoryRejected { order_id, short: vec![] }),
        Fact::Captured => on(bench, processed(PaymentStatus::Success)),
        Fact::Declined => on(bench, processed(PaymentStatus::Failed)),
        Fact::Refunded => on(bench, PaymentRefunded { order_id, amount, currency, customer: customer() }),
        Fact::Deadline => Ok(bench.fire(&Deadline, id)),
        Fact::CancelAsked => bench.command(Id::random(bench.now), &CancelOrder { id: id.clone() }).map(|done| done.1),
    }
}

/// What a row says: the status after it, and the event that is emitted.
type Row = (Status, Option<&'static str>);

fn check(from: Status, fact: Fact, (to, event): Row) -> (Order, f64) {
    let (mut bench, id) = bench(from);
    let before = bench.get::<Order>(&id).unwrap();
    let violations = bench.counted(&INVARIANT_VIOLATIONS, &[]);
    let emitted = tell(&mut bench, &id, fact).unwrap();
    let after = bench.get::<Order>(&id).unwrap();
    let case = format!("{from:?} on {fact:?}");
    assert_eq!(after.status, to, "{case}");
    let subjects: Vec<_> = emitted.iter().map(|event| event.subject.rsplit_once('.').unwrap().0).collect();
    assert_eq!(subjects, Vec::from_iter(event), "{case}");
    if from == to && !after.captured_late {
        assert_eq!(before, after, "{case}");
    }
    let waits = matches!(to, Status::Pending | Status::Reserved);
    assert_eq!(bench.wake_of::<Order>(&id).is_some(), waits, "{case}: an order has a deadline until it has ended");
    assert_eq!(after.ended_at.is_none(), waits, "{case}");
    // Told again, it stays as it is.
    if !matches!(fact, Fact::CancelAsked) {
        assert_eq!(tell(&mut bench, &id, fact).unwrap(), [], "{case}, again");
        assert_eq!(bench.get::<Order>(&id).unwrap(), after, "{case}, again");
    }
    (after, bench.counted(&INVARIANT_VIOLATIONS, &[]) - violations)
}

#[test]
fn every_pair_of_state_and_fact_does_what_the_table_says() {
    use Fact::{Captured, Deadline, Declined, Refunded, Rejected, Reserved};
    use Status::{Cancelled, Confirmed, Pending};
    const CONFIRMED: Row = (Confirmed, Some("orders.confirmed"));
    const CANCELLED: Row = (Cancelled, Some("orders.cancelled"));
    let facts = [Reserved, Rejected, Captured, Declined, Refunded, Deadline];
    let stays = |status| (status, None);
    for (from, rows) in [
        (Pending, [(Status::Reserved, None), CANCELLED, CONFIRMED, CANCELLED, stays(Pending), CANCELLED]),
        (
            Status::Reserved,
            [
                stays(Status::Reserved),
                stays(Status::Reserved),
                CONFIRMED,
                CANCELLED,
                stays(Status::Reserved),
                CANCELLED,
            ],
        ),
        (Confirmed, [stays(Confirmed); 6]),
        (Cancelled, [stays(Cancelled); 6]),
    ] {
        for (fact, row) in facts.into_iter().zip(rows) {
            check(from, fact, row);
        }
    }
}

#[test]
fn an_order_says_why_it_was_cancelled() {
    for (fact, reason, label) in [
        (Fact::Rejected, CancelReason::OutOfStock, "out_of_stock"),
        (Fact::Declined, CancelReason::Declined, "declined"),
        (Fact::Deadline, CancelReason::Deadline, "deadline"),
        (Fact::CancelAsked, CancelReason::Customer, "customer"),
    ] {
        let (mut bench, id) = bench(Status::Pending);
        let emitted = tell(&mut bench, &id, fact).unwrap();
        let event: contracts::orders::OrderCancelled = serde_json::from_slice(&emitted[0].payload).unwrap();
        assert_eq!(event.reason, reason);
        assert_eq!(event.lines, place().lines);
        assert_eq!(bench.get::<Order>(&id).unwrap().reason, Some(reason));
        assert_eq!(bench.counted(&ORDERS, &["cancelled", label]), 1.0);
    }
}

#[test]
fn a_fact_that_contradicts_the_state_is_counted_and_changes_nothing() {
    use Fact::{Captured, Deadline, Declined, Refunded, Rejected, Reserved};
    for status in Status::ALL {
        for fact in [Reserved, Rejected, Captured, Declined, Refunded, Deadline] {
            let (mut bench, id) = bench(status);
            tell(&mut bench, &id, fact).unwrap();
            let wrong = matches!(
                (status, fact),
                (Status::Reserved | Status::Confirmed, Rejected) | (Status::Confirmed, Declined | Refunded)
            );
            let counted = bench.counted(&INVARIANT_VIOLATIONS, &[]);
            assert_eq!(counted, f64::from(u8::from(wrong)), "{status:?} on {fact:?}");
        }
    }
}

#[test]
fn a_new_order_is_pending_with_a_deadline_and_told() {
    let (bench, id) = bench(Status::Pending);
    let order = bench.get::<Order>(&id).unwrap();
    assert_eq!((order.status, order.created_at, order.currency), (Status::Pending, bench.now, Currency::Eur));
    let wake = bench.wake_of::<Order>(&id).unwrap();
    assert_eq!((wake.kind.as_str(), wake.at), ("deadline", bench.now + Settings::default().deadline));
    let (reply, emitted) = bench.clone().command_to(&Settings::default(), Id::random(bench.now), &place()).unwrap();
    assert_eq!(reply["status"], "PENDING");
    assert_eq!(reply["totalAmount"].to_string(), "9.0");
    assert!(emitted[0].subject.starts_with("orders.created."));
}

#[test]
fn a_capture_after_the_cancel_is_noted_once() {
    let (order, violations) = check(Status::Cancelled, Fact::Captured, (Status::Cancelled, None));
    assert!(order.captured_late);
    assert_eq!(violations, 0.0);
}

#[test]
fn a_cancel_ends_an_open_order_repeats_on_a_cancelled_one_and_conflicts_with_a_confirmed_one() {
    check(Status::Pending, Fact::CancelAsked, (Status::Cancelled, Some("orders.cancelled")));
    check(Status::Reserved, Fact::CancelAsked, (Status::Cancelled, Some("orders.cancelled")));
    check(Status::Cancelled, Fact::CancelAsked, (Status::Cancelled, None));
    let (mut bench, id) = bench(Status::Confirmed);
    let before = bench.state();
    let refused =
        |fault| matches!(fault, Fault::Reject(reject) if reject.status == 409 && reject.detail.contains("CONFIRMED"));
    assert!(refused(tell(&mut bench, &id, Fact::CancelAsked).unwrap_err()));
    assert_eq!(bench.state(), before);
    let nobody = CancelOrder { id: "nobody".parse().unwrap() };
    assert!(
        matches!(bench.command(Id::random(bench.now), &nobody), Err(Fault::Reject(reject)) if reject.status == 404)
    );
}

#[test]
fn a_fact_about_an_unknown_order_is_tried_again() {
    let mut bench = Workbench::of(&service(Settings::default()));
    let id = "unknown".parse().unwrap();
    for fact in [Fact::Reserved, Fact::Rejected, Fact::Captured, Fact::Declined, Fact::Refunded] {
        assert!(matches!(tell(&mut bench, &id, fact), Err(Fault::Retry(why)) if why.contains("unknown")), "{fact:?}");
    }
    assert!(bench.state().is_empty());
}
