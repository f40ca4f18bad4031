//! The body of `POST /orders`, and its validation.

use std::collections::HashMap;
use std::fmt::Display;

use contracts::{Line, Money, ProductId, UserId};
use millstream::FieldError;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::PlaceOrder;

const MAX_LINES: usize = 100;
const MAX_QUANTITY: u32 = 10_000;

/// An unvalidated order. Its types are wide, so that all violations can be reported together.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewOrder {
    user_id: String,
    items: Vec<NewLine>,
    total_amount: Number,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewLine {
    product_id: String,
    quantity: Number,
    price: Number,
}

/// Any JSON number, as it is written.
#[derive(Debug)]
struct Number(Box<RawValue>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let kind = match raw.get().as_bytes() {
            [b'-' | b'0'..=b'9', ..] => return Ok(Self(raw)),
            [b'"', ..] => "a string",
            [b'{', ..] => "an object",
            [b'[', ..] => "an array",
            [b'n', ..] => "null",
            _ => "a boolean",
        };
        Err(de::Error::custom(format_args!("invalid type: {kind}, expected a number without quotes")))
    }
}

impl Number {
    fn quantity(&self) -> Result<u32, String> {
        let quantity = self.0.get().parse().ok().filter(|quantity| (1..=MAX_QUANTITY).contains(quantity));
        quantity.ok_or_else(|| format!("must be a whole number from 1 to {MAX_QUANTITY}"))
    }

    fn amount(&self) -> Result<Money, String> {
        let amount: Money = self.0.get().parse().map_err(|error| format!("{error}"))?;
        if amount < Money::ZERO { Err("is negative: an amount must be 0 or more".into()) } else { Ok(amount) }
    }
}

/// The violations found so far.
#[derive(Default)]
struct Broken(Vec<FieldError>);

impl Broken {
    fn say(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    fn check<T, E: Display>(&mut self, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.say(field, error.to_string())).ok()
    }
}

impl NewOrder {
    /// The validated order, or all violations.
    pub(crate) fn check(&self) -> Result<PlaceOrder, Vec<FieldError>> {
        let mut broken = Broken::default();
        let user_id = broken.check("userId", self.user_id.parse::<UserId>());
        let lines = self.lines(&mut broken);
        let total = broken.check("totalAmount", self.total_amount.amount());
        if let Some(lines) = &lines {
            match (Line::total(lines), total) {
                (None, _) => broken.say("items", format!("add up to more than the largest amount, {}", Money::MAX)),
                (Some(Money::ZERO), _) => {
                    broken.say("items", "add up to 0.00: an order must have something to pay for")
                }
                (Some(right), Some(total)) if right != total => {
                    broken.say("totalAmount", format!("is {total}, but the items add up to {right}"));
                }
                _ => {}
            }
        }
        match (user_id, lines, total) {
            (Some(user_id), Some(lines), Some(total)) if broken.0.is_empty() => {
                Ok(PlaceOrder { user_id, lines, total })
            }
            _ => Err(broken.0),
        }
    }

    fn lines(&self, broken: &mut Broken) -> Option<Vec<Line>> {
        let items = &self.items;
        if items.is_empty() || items.len() > MAX_LINES {
            broken.say("items", format!("has {} items: an order must have 1 to {MAX_LINES}", items.len()));
            return None;
        }
        let mut first = HashMap::new();
        let mut lines = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let field = |name| format!("items[{index}].{name}");
            let product_id = broken.check(field("productId"), item.product_id.parse::<ProductId>());
            let quantity = broken.check(field("quantity"), item.quantity.quantity());
            let price = broken.check(field("price"), item.price.amount());
            let Some(product_id) = product_id else { continue };
            let earlier = *first.entry(item.product_id.as_str()).or_insert(index);
            if earlier != index {
                broken.say(
                    field("productId"),
                    format!(
                        "`{product_id}` is in items[{earlier}] already: use one item per product, with the total quantity"
                    ),
                );
            } else if let (Some(quantity), Some(price)) = (quantity, price) {
                lines.push(Line { product_id, quantity, price });
            }
        }
        (lines.len() == items.len()).then_some(lines)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &str) -> Result<NewOrder, String> {
        let mut json = serde_json::Deserializer::from_str(body);
        serde_path_to_error::deserialize(&mut json).map_err(|error| error.to_string())
    }

    fn item(product: &str, quantity: Value, price: Value) -> Value {
        json!({ "productId": product, "quantity": quantity, "price": price })
    }

    /// Asserts the broken rules of a body: each a field and a part of its message, in order.
    fn check(body: Value, expected: &[(&str, &str)]) {
        let order = parse(&body.to_string()).unwrap();
        let broken = order.check().map_or_else(|broken| broken, |_| vec![]);
        let said: Vec<_> = broken.iter().map(|error| (error.field.as_str(), error.message.as_str())).collect();
        assert_eq!(said.len(), expected.len(), "{body}: {said:?}");
        for ((field, message), (expected_field, part)) in said.iter().zip(expected) {
            assert!(field == expected_field && message.contains(part), "{body}: {said:?}, expected {expected:?}");
        }
    }

    fn check_items(items: Vec<Value>, expected: &[(&str, &str)]) {
        check(json!({ "userId": "ALFKI", "items": items, "totalAmount": 10 }), expected);
    }

    #[test]
    fn a_right_order_is_taken_with_its_exact_amounts() {
        let body =
            r#"{"userId": "u", "items": [{"productId": "p", "quantity": 3, "price": 0.1}], "totalAmount": 0.30}"#;
        let order = parse(body).unwrap().check().unwrap();
        assert_eq!((order.total, order.lines[0].price), ("0.30".parse().unwrap(), "0.10".parse().unwrap()));
    }

    #[test]
    fn two_spellings_of_one_order_are_the_same_command() {
        let place = |body: &str| serde_json::to_string(&parse(body).unwrap().check().unwrap()).unwrap();
        let one = place(r#"{"userId":"u","items":[{"productId":"p","quantity":2,"price":1.50}],"totalAmount":3}"#);
        let other =
            place(r#"{"totalAmount":3.0, "items":[{"price":1.5,"quantity":2,"productId":"p"}], "userId":"\u0075"}"#);
        assert_eq!(one, other);
    }

    #[test]
    fn each_broken_rule_names_its_field_and_what_would_be_right() {
        check_items(vec![item("a", json!(1), json!(10))], &[]);
        check_items(vec![], &[("items", "1 to 100")]);
        check_items(vec![item("a", json!(1), json!(1)); 101], &[("items", "has 101 items")]);
        for quantity in [json!(0), json!(-1), json!(1.5), json!(1.0), json!(10_001), json!(99_999_999_999_u64)] {
            check_items(vec![item("a", quantity, json!(10))], &[("items[0].quantity", "whole number from 1 to 10000")]);
        }
        check_items(vec![item("a", json!(1), json!(-0.01))], &[("items[0].price", "negative")]);
        check_items(vec![item("a", json!(1), json!(9.999))], &[("items[0].price", "two decimals")]);
        check_items(vec![item("a b", json!(1), json!(10))], &[("items[0].productId", "1 to 64 characters")]);
        check_items(vec![item(&"x".repeat(65), json!(1), json!(10))], &[("items[0].productId", "1 to 64")]);
        check_items(vec![item("a", json!(1), json!(0))], &[("items", "0.00")]);
        check_items(
            vec![item("a", json!(1), json!(5)), item("b", json!(1), json!(0)), item("a", json!(1), json!(5))],
            &[("items[2].productId", "items[0]")],
        );
        check_items(vec![item("a", json!(2), json!(9_999_999_999.5))], &[("totalAmount", "add up to 19999999999.00")]);
        check_items(vec![item("a", json!(10_000), json!(99_999_999_999.99))], &[("items", "largest amount")]);
        check_items(
            vec![item("a", json!(3), json!(4.11))],
            &[("totalAmount", "is 10.00, but the items add up to 12.33")],
        );
    }

    #[test]
    fn all_broken_rules_are_said_together() {
        let items = vec![item("", json!(0), json!(-1)), item("ok", json!(2.5), json!(1))];
        check(
            json!({ "userId": "a\nb", "items": items, "totalAmount": 1.005 }),
            &[
                ("userId", "1 to 64"),
                ("items[0].productId", "1 to 64"),
                ("items[0].quantity", "whole number"),
                ("items[0].price", "negative"),
                ("items[1].quantity", "whole number"),
                ("totalAmount", "two decimals"),
            ],
        );
    }

    #[test]
    fn a_wrong_type_a_missing_or_an_unknown_field_is_named_with_its_path() {
        for (body, path, part) in [
            (
                r#"{"userId":"u","items":[{"productId":"p","quantity":"3","price":1}],"totalAmount":3}"#,
                "items[0].quantity",
                "a string",
            ),
            (
                r#"{"userId":"u","items":[{"productId":"p","quantity":3,"price":null}],"totalAmount":3}"#,
                "items[0].price",
                "null",
            ),
            (r#"{"userId":7,"items":[],"totalAmount":3}"#, "userId", "expected a string"),
            (r#"{"userId":"u","items":{},"totalAmount":3}"#, "items", "expected a sequence"),
            (
                r#"{"userId":"u","items":[{"productId":"p","quantity":3}],"totalAmount":3}"#,
                "items[0]",
                "missing field `price`",
            ),
            (r#"{"userId":"u","totalAmount":3}"#, "", "missing field `items`"),
            (r#"{"userId":"u","items":[],"totalAmount":3,"currency":"USD"}"#, "currency", "unknown field `currency`"),
            (
                r#"{"userId":"u","items":[{"productId":"p","quantity":3,"Quantity":5,"price":1}],"totalAmount":3}"#,
                "items[0].Quantity",
                "expected one of `productId`, `quantity`, `price`",
            ),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.starts_with(path) && error.contains(part), "{body}: {error}");
        }
    }
}
