//! Each event writes exactly its golden file, and reads it, with a field it does not know too.

use std::fmt::Debug;

use millstream_core::Event;
use serde_json::Value;

use crate::inventory::{InventoryRejected, InventoryReleased, InventoryReserved, ShortLine};
use crate::orders::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated};
use crate::payments::{PaymentProcessed, PaymentRefunded, PaymentStatus};
use crate::{Currency, Line, Money, OrderId, UserId};

fn money(minor: i64) -> Money {
    Money::from_minor(minor).unwrap()
}

fn order_id() -> OrderId {
    "01932f6e-7a00-7000-8000-000000000001".parse().unwrap()
}

fn user_id() -> UserId {
    "ALFKI".parse().unwrap()
}

fn lines() -> Vec<Line> {
    let line =
        |product: &str, quantity, price| Line { product_id: product.parse().unwrap(), quantity, price: money(price) };
    vec![line("chai", 2, 1800), line("sku:42_b", 1, 7)]
}

/// The fields, at any depth, that hold this value.
fn fields_about<'a>(value: &str, body: &'a Value) -> Vec<&'a str> {
    match body {
        Value::Object(fields) => {
            let within = |(name, field): (&'a String, &'a Value)| match field.as_str() == Some(value) {
                true => vec![name.as_str()],
                false => fields_about(value, field),
            };
            fields.iter().flat_map(within).collect()
        }
        Value::Array(items) => items.iter().flat_map(|item| fields_about(value, item)).collect(),
        _ => vec![],
    }
}

fn check<E: Event + Debug + PartialEq>(event: E) -> String {
    let name = format!("{}.v{}.json", E::TYPE, E::VERSION);
    let path = format!("{}/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let golden = golden.trim_end();
    assert_eq!(serde_json::to_string(&event).unwrap(), golden, "{name}");
    assert_eq!(serde_json::from_str::<E>(golden).unwrap(), event, "{name}");
    let later = golden.replacen('{', r#"{"addedLater":{"x":[1.5]},"#, 1);
    assert_eq!(serde_json::from_str::<E>(&later).unwrap(), event, "{name} with a field added later");
    assert_eq!(event.key(), &*order_id());
    assert_eq!(fields_about(user_id().as_ref(), &serde_json::to_value(&event).unwrap()), E::PERSONAL, "{name}");
    assert!(E::TYPE.starts_with(&format!("{}.", E::STREAM.domain)), "the subject lies in the stream");
    name
}

#[test]
fn every_event_writes_and_reads_its_golden_file() {
    let (order_id, user_id, total, currency) = (order_id(), user_id(), money(3607), Currency::Eur);
    let mut checked = vec![
        check(OrderCreated { order_id: order_id.clone(), user_id: user_id.clone(), lines: lines(), total, currency }),
        check(OrderConfirmed { order_id: order_id.clone(), user_id: user_id.clone(), lines: lines(), total, currency }),
        check(OrderCancelled {
            order_id: order_id.clone(),
            user_id: user_id.clone(),
            lines: lines(),
            total,
            currency,
            reason: CancelReason::OutOfStock,
        }),
        check(InventoryReserved { order_id: order_id.clone(), amount: total, currency, customer: user_id.clone() }),
        check(InventoryRejected {
            order_id: order_id.clone(),
            short: vec![ShortLine { product_id: "sku:42_b".parse().unwrap(), requested: 1, available: 0 }],
        }),
        check(InventoryReleased { order_id: order_id.clone(), lines: lines() }),
        check(PaymentProcessed {
            order_id: order_id.clone(),
            status: PaymentStatus::Success,
            amount: total,
            currency,
            customer: user_id.clone(),
            charge_id: Some("ch_1".into()),
            reason: None,
        }),
        check(PaymentRefunded { order_id, amount: total, currency, customer: user_id }),
    ];
    checked.sort();
    let folder = std::fs::read_dir(format!("{}/golden", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut files: Vec<String> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(checked, files, "every golden file belongs to an event");
}

#[test]
fn a_total_is_what_the_lines_add_up_to_and_no_more_than_an_amount_can_be() {
    assert_eq!(Line::total(&lines()), Some(money(3607)));
    let mut dear = lines();
    dear[0].price = Money::MAX;
    assert_eq!(Line::total(&dear), None);
}

#[test]
fn a_value_that_is_not_known_fails_to_parse() {
    let processed: Value = serde_json::from_str(include_str!("../golden/payments.processed.v1.json")).unwrap();
    let mut partly = processed.clone();
    partly["status"] = "PARTLY".into();
    assert!(serde_json::from_value::<PaymentProcessed>(processed).is_ok());
    assert!(serde_json::from_value::<PaymentProcessed>(partly).unwrap_err().to_string().contains("PARTLY"));
    assert!(serde_json::from_str::<CancelReason>("\"BORED\"").is_err());
    assert!(serde_json::from_str::<Currency>("\"XXX\"").is_err());
}
