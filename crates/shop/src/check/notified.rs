//! Compares the notifications of customers with the outcomes of their orders.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::invariants::{Finding, Orders, order_subject};
use super::snapshot::Snapshot;

/// The service whose durables tell since when customers are told.
const SERVICE: &str = "notifications";

/// A customer is notified once of each occasion, and of nothing else.
///
/// The service starts with new events, so a notification is required only for an order that was finished after its durables were created.
/// A durable that was lost and recreated is younger than its notifications: then fewer are required, and none falsely.
pub(super) fn customers_are_told(snapshot: &Snapshot, orders: &Orders<'_>, patience: Duration) -> Finding {
    let refunded: HashSet<&str> = snapshot
        .payments
        .iter()
        .filter(|payment| payment.status == "REFUNDED")
        .map(|payment| payment.order_id.as_str())
        .collect();
    let mut told: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut unsent: HashMap<&str, Vec<String>> = HashMap::new();
    for notification in &snapshot.notifications {
        told.entry(&notification.order_id).or_default().push(&notification.occasion);
        if notification.status != "SENT" {
            let what = format!("{} ({})", notification.occasion, notification.status);
            unsent.entry(&notification.order_id).or_default().push(what);
        }
    }
    let since = snapshot.durables.iter().filter(|durable| durable.name == SERVICE).map(|durable| durable.created).max();
    let mut broken = BTreeMap::new();
    let mut must = 0;
    for order in &orders.settled {
        let happened = [Some(order.status.as_str()), refunded.contains(order.id.as_str()).then_some("REFUNDED")];
        let happened: Vec<&str> = happened.into_iter().flatten().collect();
        let told = told.get(order.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let demanded = since.zip(order.ended_at).is_some_and(|(since, ended)| ended > since);
        must += usize::from(demanded);
        let missing = demanded && happened.iter().any(|what| !told.contains(what));
        let wrong =
            told.iter().any(|what| !happened.contains(what) || told.iter().filter(|other| *other == what).count() > 1);
        // What waits for the mail server, or was refused by it, nobody was told; for a while it may wait.
        let waits =
            unsent.get(order.id.as_str()).filter(|_| demanded && order.created_at + patience <= snapshot.before);
        if let Some(unsent) = waits.filter(|_| !missing && !wrong) {
            broken.insert(order_subject(&order.id), format!("no mail was sent for {}", unsent.join(", ")));
        }
        if missing || wrong {
            let list = |what: &[&str]| if what.is_empty() { "nothing".into() } else { what.join(", ") };
            broken
                .insert(order_subject(&order.id), format!("{}, the customer was told {}", list(&happened), list(told)));
        }
    }
    for (order, what) in told.iter().filter(|(order, _)| !orders.by_id.contains_key(*order)) {
        broken.insert(order_subject(order), format!("unknown to orders, the customer was told {}", what.join(", ")));
    }
    let count = |status| snapshot.notifications.iter().filter(|told| told.status == status).count();
    Finding {
        invariant: "customers are told once how each order ended",
        looked_at: format!(
            "{} notifications ({} not sent yet, {} refused) of {must} orders",
            snapshot.notifications.len(),
            count("SENDING"),
            count("FAILED")
        ),
        broken,
    }
}
