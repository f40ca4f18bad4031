//! The projection on a bench: what it counts, and that the order of events does not matter.

use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::{Currency, Line, Money, OrderId};
use millstream::event::Emitted;
use millstream::workbench::Workbench;
use millstream::{Event, Id, Meta, Timestamp};
use proptest::prelude::*;

use crate::figures::{Sold, Totals};
use crate::sum::Sum;
use crate::summary::Summary;
use crate::{Timing, service};

const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// One order's life.
#[derive(Clone, Debug)]
struct Life {
    /// When it was placed, and how long it took, in milliseconds.
    placed: u64,
    took: u64,
    /// `None`: confirmed; of an order that has not ended there is no end.
    end: Option<Option<CancelReason>>,
    currency: Currency,
    lines: Vec<(String, u32, i64)>,
}

fn life(placed: u64, took: u64, end: Option<CancelReason>, lines: &[(&str, u32, i64)]) -> Life {
    let lines = lines.iter().map(|(product, quantity, price)| ((*product).into(), *quantity, *price)).collect();
    Life { placed, took, end: Some(end), currency: Currency::Eur, lines }
}

fn message<E: Event>(at: Timestamp, event: &E) -> Emitted {
    let id = Id::derived(at, E::TYPE, event.key().as_bytes(), 0);
    let meta = Meta { id, time: at, correlation: id.to_string(), causation: None, traceparent: None };
    Emitted::event("orders", &meta, event).unwrap()
}

/// The events of an order, in the order in which they happen.
fn events(number: usize, life: &Life) -> Vec<Emitted> {
    let placed = START + std::time::Duration::from_millis(life.placed);
    let order_id: OrderId = Id::derived(placed, "orders", &number.to_be_bytes(), 0).into();
    let user_id: contracts::UserId = "ada".parse().unwrap();
    let line = |(product, quantity, price): &(String, u32, i64)| Line {
        product_id: product.parse().unwrap(),
        quantity: *quantity,
        price: Money::from_minor(*price).unwrap(),
    };
    let lines: Vec<Line> = life.lines.iter().map(line).collect();
    let (total, currency) = (Line::total(&lines).unwrap(), life.currency);
    let ended = placed + std::time::Duration::from_millis(life.took);
    let created =
        OrderCreated { order_id: order_id.clone(), user_id: user_id.clone(), lines: lines.clone(), total, currency };
    let mut events = vec![message(placed, &created)];
    events.extend(life.end.map(|end| match end {
        None => message(ended, &OrderConfirmed { order_id, user_id, lines, total, currency }),
        Some(reason) => message(ended, &OrderCancelled { order_id, user_id, lines, total, currency, reason }),
    }));
    events
}

fn fold<'a>(events: impl IntoIterator<Item = &'a Emitted>) -> Workbench {
    let mut bench = Workbench::of(&service());
    for event in events {
        assert!(bench.deliver(event).unwrap().unwrap().is_empty(), "nobody hears of it");
    }
    bench
}

fn all(lives: &[Life]) -> Vec<Emitted> {
    lives.iter().enumerate().flat_map(|(number, life)| events(number, life)).collect()
}

#[test]
fn orders_are_counted_by_outcome_and_reason_with_their_exact_revenue_and_durations() {
    let bench = fold(&all(&[
        life(0, 40, None, &[("mug", 2, 1200), ("tea", 1, 333)]),
        life(100, 60, None, &[("mug", 1, 1200)]),
        life(200, 900_000, Some(CancelReason::Deadline), &[("mug", 1, 1200)]),
        life(300, 10, Some(CancelReason::OutOfStock), &[("gold", 9, 99_999)]),
        Life { end: None, ..life(400, 0, None, &[("mug", 1, 1200)]) },
        Life { currency: Currency::Usd, ..life(500, 80, None, &[("tea", 10, 100)]) },
    ]));
    let totals = bench.get::<Totals>(Totals::ID).unwrap();
    let at = |ms| Some(START + std::time::Duration::from_millis(ms));
    assert_eq!((totals.since, totals.until), (at(0), at(900_200)));
    assert_eq!((totals.accepted, totals.confirmed), (6, 3));
    let cancelled = serde_json::to_value(totals.cancelled).unwrap();
    let expected = serde_json::json!({ "OUT_OF_STOCK": 1, "DECLINED": 0, "DEADLINE": 1, "CUSTOMER": 0 });
    assert_eq!(cancelled, expected);
    assert_eq!(totals.revenue, [("EUR".into(), Sum(3933)), ("USD".into(), Sum(1000))].into());

    let sold = ["EUR.mug", "EUR.tea", "USD.tea"].map(|id| bench.get::<Sold>(id).unwrap());
    assert_eq!(sold.each_ref().map(|sold| (sold.quantity, sold.revenue.0)), [(3, 3600), (1, 333), (10, 1000)]);
    assert_eq!(bench.get::<Sold>("EUR.gold"), None, "what was cancelled is not sold");
    let summary = Summary::of(totals, sold.to_vec());
    let names = |sold: &[Sold]| sold.iter().map(|sold| sold.product_id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&summary.top_products.by_quantity), ["tea", "mug", "tea"]);
    assert_eq!(names(&summary.top_products.by_revenue), ["mug", "tea", "tea"]);
    let confirmed = Timing { count: 3, min_ms: 40, mean_ms: 60, p50_ms: 65, p95_ms: 80, max_ms: 80 };
    assert_eq!(summary.saga_durations.confirmed, confirmed);
    assert_eq!(summary.saga_durations.cancelled.max_ms, 900_000);
}

#[test]
fn a_summary_is_read_back_as_it_was_written_to_the_last_cent() {
    let lives: Vec<Life> = (0..3).map(|_| life(0, 1, None, &[("gold", 1, Money::MAX.minor())])).collect();
    let bench = fold(&all(&lives));
    let sold = bench.get::<Sold>("EUR.gold").unwrap();
    let summary = Summary::of(bench.get(Totals::ID).unwrap(), vec![sold]);
    let json = serde_json::to_string(&summary).unwrap();
    assert!(json.contains(r#""revenue":{"EUR":299999999999.97}"#), "{json}");
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
}

#[test]
fn an_order_whose_id_has_no_time_is_counted_without_a_duration() {
    let event = OrderConfirmed {
        order_id: "from-elsewhere".parse().unwrap(),
        user_id: "ada".parse().unwrap(),
        lines: vec![],
        total: Money::ZERO,
        currency: Currency::Eur,
    };
    let totals = fold([&message(START, &event)]).get::<Totals>(Totals::ID).unwrap();
    assert_eq!((totals.confirmed, totals.to_confirmed.count), (1, 0));
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let end = prop_oneof![
        Just(None),
        Just(Some(None)),
        Just(Some(None)),
        Just(Some(Some(CancelReason::OutOfStock))),
        Just(Some(Some(CancelReason::Declined))),
        Just(Some(Some(CancelReason::Deadline))),
        Just(Some(Some(CancelReason::Customer))),
    ];
    let currency = prop_oneof![3 => Just(Currency::Eur), 1 => Just(Currency::Chf)];
    let lines = prop::collection::btree_map("[a-d]", (1_u32..=10_000, 0_i64..=99_999_999), 1..4);
    let life =
        (0_u64..100_000, 0_u64..2_000_000, end, currency, lines).prop_map(|(placed, took, end, currency, lines)| {
            let lines = lines.into_iter().map(|(product, (quantity, price))| (product, quantity, price)).collect();
            Life { placed, took, end, currency, lines }
        });
    prop::collection::vec(life, 1..30)
}

proptest! {
    #[test]
    fn whatever_the_order_of_events_the_figures_are_the_same(
        (sorted, shuffled) in lives().prop_map(|lives| all(&lives)).prop_flat_map(|events| {
            (Just(events.clone()), Just(events).prop_shuffle())
        })
    ) {
        prop_assert_eq!(fold(&sorted).state(), fold(&shuffled).state());
    }
}
