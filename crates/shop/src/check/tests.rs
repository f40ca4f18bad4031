//! Each invariant broken once, on a small system that is otherwise at rest.

use analytics::{Sum, Summary};
use contracts::Money;
use millstream::Timestamp;

use super::snapshot::{Charge, DeadLetters, Durable, Notification, Payment, Reservation, Stream};
use super::*;
use crate::wire::{Line, Order, Product};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn money(cents: i64) -> Money {
    Money::from_minor(cents).unwrap()
}

fn order(id: &str, status: &str) -> Order {
    Order {
        id: id.into(),
        items: vec![Line { product_id: "tea".into(), quantity: 2 }],
        total_amount: money(1000),
        status: status.into(),
        reason: None,
        created_at: Timestamp::from_millis(1_000),
        ended_at: matches!(status, "CONFIRMED" | "CANCELLED").then_some(Timestamp::from_millis(2_000)),
    }
}

fn payment(order: &str, status: &str) -> Payment {
    Payment { order_id: order.into(), status: status.into(), amount: Some(money(1000)) }
}

fn reservation(order: &str, status: &str) -> Reservation {
    let lines = vec![Line { product_id: "tea".into(), quantity: 2 }];
    Reservation { order_id: order.into(), status: status.into(), lines }
}

fn charge(order: &str, refunded: bool) -> Charge {
    Charge { order_id: order.into(), amount: money(1000), refunded }
}

fn told(order: &str, occasion: &str) -> Notification {
    Notification { order_id: order.into(), occasion: occasion.into(), status: "SENT".into() }
}

/// What the orders at rest come to.
fn summary() -> Summary {
    let json = r#"{"since":"1970-01-01T00:00:01Z","until":"1970-01-01T00:00:02Z","accepted":4,"confirmed":1,
        "cancelled":{"OUT_OF_STOCK":1,"DECLINED":1,"DEADLINE":0,"CUSTOMER":1},"revenue":{"EUR":10.00},
        "sagaDurations":{"confirmed":{"count":0,"minMs":0,"meanMs":0,"p50Ms":0,"p95Ms":0,"maxMs":0},
        "cancelled":{"count":0,"minMs":0,"meanMs":0,"p50Ms":0,"p95Ms":0,"maxMs":0}},
        "topProducts":{"byQuantity":[],"byRevenue":[]}}"#;
    serde_json::from_str(json).unwrap()
}

fn durable(name: &str) -> Durable {
    let (stream, name) = ("ORDERS".into(), name.into());
    Durable { stream, name, pending: 0, unacked: 0, ack_floor: 8, created: Timestamp::from_millis(500) }
}

fn cancelled(id: &str, reason: &str) -> Order {
    Order { reason: Some(reason.into()), ..order(id, "CANCELLED") }
}

/// One order confirmed, one refunded, one declined, one rejected.
fn at_rest() -> Snapshot {
    Snapshot {
        before: NOW,
        orders: vec![
            order("sold", "CONFIRMED"),
            cancelled("refunded", "CUSTOMER"),
            cancelled("declined", "DECLINED"),
            cancelled("rejected", "OUT_OF_STOCK"),
        ],
        products: vec![Product { product_id: "tea".into(), initial: 10, reserved: 0, sold: 2, available: 8 }],
        reservations: vec![
            reservation("sold", "SOLD"),
            reservation("refunded", "RELEASED"),
            reservation("declined", "RELEASED"),
            reservation("rejected", "REJECTED"),
        ],
        payments: vec![
            payment("sold", "CAPTURED"),
            payment("refunded", "REFUNDED"),
            payment("declined", "DECLINED"),
            Payment { amount: None, ..payment("rejected", "NEVER") },
        ],
        charges: vec![charge("sold", false), charge("refunded", true)],
        notifications: [
            ("sold", "CONFIRMED"),
            ("refunded", "CANCELLED"),
            ("refunded", "REFUNDED"),
            ("declined", "CANCELLED"),
            ("rejected", "CANCELLED"),
        ]
        .map(|(order, occasion)| told(order, occasion))
        .to_vec(),
        summary: summary(),
        streams: vec![
            Stream { name: "ORDERS".into(), last_sequence: 8 },
            Stream { name: "DLQ_ORDERS".into(), last_sequence: 0 },
        ],
        dead: vec![DeadLetters { stream: "DLQ_ORDERS".into(), left: 0, poisoned: 0 }],
        durables: vec![durable("inventory"), durable("notifications")],
    }
}

fn broken(snapshot: &Snapshot, terms: &Terms) -> Vec<(&'static str, String)> {
    let findings = invariants(snapshot, terms).into_iter();
    let evidence = |finding: Finding| {
        let invariant = finding.invariant;
        finding.broken.into_iter().map(move |(subject, seen)| (invariant, format!("{subject}: {seen}")))
    };
    findings.flat_map(evidence).collect()
}

/// Breaks the system at rest, and expects this evidence among what is found.
#[track_caller]
fn breaks(break_it: impl FnOnce(&mut Snapshot), invariant: &str, evidence: &str) {
    let mut snapshot = at_rest();
    break_it(&mut snapshot);
    let found = broken(&snapshot, &Terms::default());
    let expected = |(name, seen): &(&'static str, String)| name.contains(invariant) && seen == evidence;
    assert!(found.iter().any(expected), "`{evidence}` is not in {found:#?}");
}

#[test]
fn a_system_at_rest_breaks_nothing() {
    assert_eq!(broken(&at_rest(), &Terms::default()), []);
}

#[test]
fn an_order_that_has_not_ended_is_named() {
    let seen = "order late: RESERVED since 1970-01-01T00:00:01Z";
    breaks(|system| system.orders.push(order("late", "RESERVED")), "has ended", seen);
}

#[test]
fn a_confirmed_order_without_its_money_or_goods_is_named() {
    let seen = "order sold: CONFIRMED, payment CHARGING, reservation SOLD";
    breaks(|system| system.payments[0].status = "CHARGING".into(), "CONFIRMED", seen);
    let seen = "order sold: CONFIRMED, payment CAPTURED, reservation none";
    breaks(|system| drop(system.reservations.remove(0)), "CONFIRMED", seen);
}

#[test]
fn a_cancelled_order_that_holds_money_or_goods_is_named() {
    let seen = "order refunded: CANCELLED, payment REFUNDING, reservation RELEASED";
    breaks(|system| system.payments[1].status = "REFUNDING".into(), "CANCELLED", seen);
    let seen = "order declined: CANCELLED, payment DECLINED, reservation RESERVED";
    breaks(|system| system.reservations[2].status = "RESERVED".into(), "CANCELLED", seen);
}

#[test]
fn a_payment_of_another_amount_than_the_total_is_named() {
    let seen = "order sold: CONFIRMED, payment CAPTURED, reservation SOLD, payment of 9.99 for a total of 10.00";
    breaks(|system| system.payments[0].amount = Some(money(999)), "CONFIRMED", seen);
}

#[test]
fn what_belongs_to_no_order_is_named() {
    let seen = "order ghost: unknown to orders, payment CAPTURED, capture of 10.00";
    let haunt = |system: &mut Snapshot| {
        system.payments.push(payment("ghost", "CAPTURED"));
        system.charges.push(charge("ghost", false));
    };
    breaks(haunt, "without its order", seen);
}

#[test]
fn a_second_capture_is_named_even_if_it_was_refunded() {
    let seen = "order sold: captured 2 times: 10.00, 10.00";
    breaks(|system| system.charges.push(charge("sold", true)), "at most once", seen);
}

#[test]
fn money_that_does_not_match_the_orders_is_named() {
    let seen = "order refunded: CANCELLED, 0.00 is due, the gateway keeps 10.00";
    breaks(|system| system.charges[1].refunded = false, "captures - refunds", seen);
    let seen = "order sold: CONFIRMED, 10.00 is due, the gateway keeps 0.00";
    breaks(|system| drop(system.charges.remove(0)), "captures - refunds", seen);
}

#[test]
fn stock_that_does_not_match_the_orders_is_named() {
    let seen = "product tea: sold 4, confirmed orders have 2";
    breaks(|system| system.products[0].sold = 4, "sold = quantities", seen);
    let seen = "product tea: unknown to inventory, confirmed orders have 2";
    breaks(|system| system.products.clear(), "sold = quantities", seen);
    let seen = "product tea: reserved 1, reservations hold 0, orders in flight need 0";
    breaks(|system| system.products[0].reserved = 1, "reserved", seen);
    let seen = "product tea: 1 = 8 + 0 + 2?";
    breaks(|system| system.products[0].initial = 1, "initial", seen);
}

#[test]
fn a_customer_who_was_told_nothing_or_the_wrong_thing_or_twice_is_named() {
    let seen = "order sold: CONFIRMED, the customer was told nothing";
    breaks(|system| drop(system.notifications.remove(0)), "customers are told", seen);
    let seen = "order refunded: CANCELLED, REFUNDED, the customer was told CANCELLED";
    breaks(|system| drop(system.notifications.remove(2)), "customers are told", seen);
    let seen = "order sold: CONFIRMED, the customer was told CONFIRMED, CONFIRMED";
    breaks(|system| system.notifications.push(told("sold", "CONFIRMED")), "customers are told", seen);
    let seen = "order declined: CANCELLED, the customer was told CANCELLED, REFUNDED";
    breaks(|system| system.notifications.push(told("declined", "REFUNDED")), "customers are told", seen);
    let seen = "order ghost: unknown to orders, the customer was told CONFIRMED";
    breaks(|system| system.notifications.push(told("ghost", "CONFIRMED")), "customers are told", seen);
}

#[test]
fn a_mail_that_was_never_sent_tells_nobody() {
    let seen = "order sold: no mail was sent for CONFIRMED (SENDING)";
    breaks(|system| system.notifications[0].status = "SENDING".into(), "customers are told", seen);
    let seen = "order sold: no mail was sent for CONFIRMED (FAILED)";
    breaks(|system| system.notifications[0].status = "FAILED".into(), "customers are told", seen);
    let mut system = at_rest();
    system.notifications[0].status = "SENDING".into();
    let patient = Terms { patience: Duration::from_secs(3600), ..Terms::default() };
    assert_eq!(broken(&system, &patient), [], "while the mail server is down, mails wait");
}

#[test]
fn of_an_order_that_ended_before_notifications_were_there_nothing_need_be_told() {
    let mut system = at_rest();
    system.notifications.clear();
    assert_eq!(broken(&system, &Terms::default()).len(), 4);
    system.durables[1].created = Timestamp::from_millis(2_000);
    assert_eq!(broken(&system, &Terms::default()), []);
    let seen = "order sold: CONFIRMED, the customer was told CANCELLED";
    system.notifications.push(told("sold", "CANCELLED"));
    assert_eq!(broken(&system, &Terms::default())[0].1, seen, "and nothing wrong");
}

#[test]
fn figures_that_do_not_agree_with_the_orders_are_named() {
    let seen = "orders accepted: 3 counted, orders have 4";
    breaks(|system| system.summary.accepted = 3, "analytics", seen);
    let seen = "orders CONFIRMED: 2 counted, orders have 1";
    breaks(|system| system.summary.confirmed = 2, "analytics", seen);
    let seen = "orders CANCELLED for DECLINED: 0 counted, orders have 1";
    breaks(|system| system.summary.cancelled.declined = 0, "analytics", seen);
    let seen = "revenue: 10.01 counted, orders have 10.00";
    breaks(|system| system.summary.revenue = [("EUR".into(), Sum(1001))].into(), "analytics", seen);
}

#[test]
fn figures_that_begin_later_are_held_to_what_has_happened_since() {
    let mut system = at_rest();
    for order in &mut system.orders[..2] {
        (order.created_at, order.ended_at) = (Timestamp::from_millis(100_000), Some(Timestamp::from_millis(101_000)));
    }
    system.summary.since = Some(Timestamp::from_millis(60_000));
    (system.summary.accepted, system.summary.confirmed) = (2, 1);
    (system.summary.cancelled.declined, system.summary.cancelled.out_of_stock) = (0, 0);
    assert_eq!(broken(&system, &Terms::default()), []);
    system.summary.accepted = 4;
    assert_eq!(broken(&system, &Terms::default())[0].1, "orders accepted: 4 counted, orders have 2");
    // Around the beginning it may be either.
    system.summary.since = Some(Timestamp::from_millis(5_000));
    assert_eq!(broken(&system, &Terms::default()), []);
    system.summary.since = None;
    assert!(!broken(&system, &Terms::default()).is_empty(), "orders that are not counted at all");
}

#[test]
fn dead_letters_are_named_unless_they_are_expected() {
    breaks(|system| system.dead[0].left = 3, "dead letters", "stream DLQ_ORDERS: 3 dead letters");
    let mut system = at_rest();
    system.dead[0].left = 3;
    assert_eq!(broken(&system, &Terms { dead_letters: 3, ..Terms::default() }), []);
    let seen = broken(&at_rest(), &Terms { dead_letters: 3, ..Terms::default() });
    assert_eq!(seen[0].1, "dead letters: 3 expected, found none");
}

#[test]
fn what_the_demonstration_has_poisoned_is_told_and_breaks_nothing() {
    let mut system = at_rest();
    system.dead[0].poisoned = 2;
    let found = invariants(&system, &Terms::default());
    let dead = found.iter().find(|finding| finding.invariant.contains("dead letters")).unwrap();
    assert_eq!(
        (dead.broken.len(), dead.looked_at.as_str()),
        (0, "0 of 0 expected, and 2 poisoned by the demonstration")
    );
}

#[test]
fn with_patience_an_order_and_its_money_may_be_under_way_for_so_long() {
    let with = |seconds| Terms { patience: Duration::from_secs(seconds), ..Terms::default() };
    let mut system = at_rest();
    system.orders.extend([order("waits", "RESERVED"), cancelled("charging", "CUSTOMER")]);
    system.reservations.push(reservation("charging", "RELEASED"));
    system.payments.push(payment("charging", "CHARGING"));
    system.charges.push(charge("charging", false));
    system.notifications.push(told("charging", "CANCELLED"));
    system.summary.accepted = 6;
    system.summary.cancelled.customer += 1;
    assert_eq!(broken(&system, &with(1000)), []);
    // All of them began 999 seconds ago.
    let impatient: Vec<_> = broken(&system, &with(998)).into_iter().map(|(_, seen)| seen).collect();
    assert!(impatient.iter().any(|seen| seen.starts_with("order waits: RESERVED")), "{impatient:#?}");
    assert!(impatient.iter().any(|seen| seen.contains("payment CHARGING")), "{impatient:#?}");
}

#[test]
fn a_durable_that_is_behind_is_named_unless_it_has_moved_past_the_first_look() {
    let seen = "durable inventory on ORDERS: 4 pending, 1 unacked";
    let lag = |system: &mut Snapshot| {
        system.durables[0].pending = 4;
        system.durables[0].unacked = 1;
    };
    breaks(lag, "durable", seen);
    let mut system = at_rest();
    lag(&mut system);
    let looked = |sequence| Terms { first_sequences: [("ORDERS".into(), sequence)].into(), ..Terms::default() };
    assert_eq!(broken(&system, &looked(8)), []);
    assert_eq!(broken(&system, &looked(9)).len(), 1);
}

#[test]
fn orders_in_flight_are_allowed_for() {
    let mut system = at_rest();
    let mut young = order("young", "RESERVED");
    young.created_at = NOW + Duration::from_millis(1);
    let mut just_ended = order("just", "CONFIRMED");
    just_ended.ended_at = Some(NOW + Duration::from_millis(1));
    system.orders.extend([young, just_ended]);
    system.reservations.extend([reservation("young", "RESERVED"), reservation("just", "RESERVED")]);
    system.payments.push(payment("just", "CAPTURED"));
    system.charges.extend([charge("young", false), charge("just", false)]);
    system.products[0] = Product { product_id: "tea".into(), initial: 10, reserved: 4, sold: 2, available: 4 };
    system.notifications.push(told("just", "CONFIRMED"));
    system.summary.accepted = 5;
    assert_eq!(broken(&system, &Terms::default()), []);
    system.products[0] = Product { product_id: "tea".into(), initial: 10, reserved: 5, sold: 2, available: 3 };
    assert_eq!(broken(&system, &Terms::default()).len(), 1);
}

#[test]
fn only_what_stays_broken_is_reported() {
    let broken_by = |id: &str| {
        let mut system = at_rest();
        system.orders.push(order(id, "PENDING"));
        system.summary.accepted = 5;
        invariants(&system, &Terms::default())
    };
    let kept = still_broken(&broken_by("a"), broken_by("b"));
    assert!(kept.iter().all(|finding| finding.broken.is_empty()));
    let kept = still_broken(&broken_by("a"), broken_by("a"));
    assert_eq!(kept[0].broken.len(), 1);
}

#[test]
fn the_exit_code_tells_broken_from_not_seen() {
    let mut outcome = Outcome { rows: vec![], unseen: vec![], looks: 1 };
    assert_eq!(outcome.exit_code(), 0);
    let mut system = at_rest();
    system.charges.clear();
    outcome.rows = invariants(&system, &Terms::default()).into_iter().map(Row::from).collect();
    assert_eq!(outcome.exit_code(), 1);
    let table = outcome.to_string();
    assert!(table.contains("BROKEN") && table.contains("order sold: CONFIRMED, 10.00 is due"), "{table}");
    outcome.unseen = vec![("payments", "does not answer".into())];
    assert_eq!(outcome.exit_code(), 2);
}

#[tokio::test]
async fn a_system_that_is_not_there_is_not_seen_part_by_part() {
    let nats_url = "nats://127.0.0.1:1".into();
    let options = Options { port_base: 1, nats_url, looks: 1, ..Options::default() };
    let outcome = run(options).await.unwrap();
    let parts: Vec<_> = outcome.unseen.iter().map(|(part, _)| *part).collect();
    assert_eq!(
        parts,
        [
            "stock of inventory",
            "reservations of inventory",
            "payments",
            "gateway",
            "notifications",
            "analytics",
            "broker",
            "orders",
        ]
    );
    assert_eq!(outcome.exit_code(), 2);
}
