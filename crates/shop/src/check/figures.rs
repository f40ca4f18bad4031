//! The figures of analytics agree with the orders.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::Timestamp;

use super::invariants::{Finding, Orders};
use super::snapshot::Snapshot;
use crate::wire::Order;

/// Where figures begin in the middle of a stream, events around their first may be on either side of it: replicas' clocks differ,
/// and what happened at one time is published a little apart.
const SKEW: Duration = Duration::from_secs(10);

/// From what must be counted to what may be: in between are orders that move, and those around the beginning of the figures.
struct Range {
    least: i64,
    most: i64,
}

/// While orders are in flight, theirs may be counted or not. After a rebuild from a stream that has lost its beginning, only what
/// has happened since then is counted.
pub(super) fn analytics_agrees(snapshot: &Snapshot, orders: &Orders<'_>) -> Finding {
    let summary = &snapshot.summary;
    let all = || orders.settled.iter().chain(&orders.moving).copied();
    let first = all().map(|order| order.created_at).min();
    // Figures that begin with nothing leave nothing out.
    let whole = summary.since <= first;
    // Whether what happened at a time is certainly counted, and whether it may be.
    let since = summary.since.unwrap_or_default();
    let certain = |at: Timestamp| whole || at > since + SKEW;
    let possible = |at: Timestamp| whole || at + SKEW >= since;

    let mut broken = BTreeMap::new();
    let mut compare = |subject: &str, counted: i64, Range { least, most }: Range, show: fn(i64) -> String| {
        if !(least..=most).contains(&counted) {
            let up_to = if most > least { format!(" to {}", show(most)) } else { String::new() };
            let seen = format!("{} counted, orders have {}{up_to}", show(counted), show(least));
            broken.insert(subject.to_owned(), seen);
        }
    };
    let ended = |status: &str, reason: Option<&str>, value: fn(&Order) -> i64| {
        let of_kind = |order: &&&Order| order.status == status && order.reason.as_deref() == reason;
        let at = |order: &&&Order, when: &dyn Fn(Timestamp) -> bool| order.ended_at.is_some_and(when);
        let settled = || orders.settled.iter().filter(of_kind);
        let least = settled().filter(|order| at(order, &certain)).map(|order| value(order)).sum();
        let most: i64 = settled().filter(|order| at(order, &possible)).map(|order| value(order)).sum();
        Range { least, most: most + orders.moving.iter().map(|order| value(order)).sum::<i64>() }
    };
    let one = |_: &Order| 1;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);

    let accepted = |when: &dyn Fn(Timestamp) -> bool| all().filter(|order| when(order.created_at)).count() as i64;
    let least = all().filter(|order| order.created_at <= snapshot.before && certain(order.created_at)).count() as i64;
    let range = Range { least, most: accepted(&possible) };
    compare("orders accepted", number(summary.accepted), range, |count| count.to_string());
    compare("orders CONFIRMED", number(summary.confirmed), ended("CONFIRMED", None, one), |count| count.to_string());
    let cancelled = summary.cancelled;
    for (reason, counted) in [
        ("OUT_OF_STOCK", cancelled.out_of_stock),
        ("DECLINED", cancelled.declined),
        ("DEADLINE", cancelled.deadline),
        ("CUSTOMER", cancelled.customer),
    ] {
        let subject = format!("orders CANCELLED for {reason}");
        let range = ended("CANCELLED", Some(reason), one);
        compare(&subject, number(counted), range, |count| count.to_string());
    }
    let revenue: i64 = summary.revenue.values().map(|sum| sum.0).sum();
    let range = ended("CONFIRMED", None, |order| order.total_amount.minor());
    compare("revenue", revenue, range, |minor| analytics::Sum(minor).to_string());

    let since = match summary.since {
        Some(since) if !whole => format!(", since {since} only"),
        _ => String::new(),
    };
    Finding {
        invariant: "analytics agrees with the orders",
        looked_at: format!("{} confirmed, revenue {}{since}", summary.confirmed, analytics::Sum(revenue)),
        broken,
    }
}
