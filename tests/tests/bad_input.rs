//! Bad input: every answer names the field and what would be right, and nothing is left behind.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, count, line, order_of};

/// The fields that an answer names, with what it says of each.
fn named(answer: &Answer) -> Vec<(String, String)> {
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    errors.iter().map(|error| (text(&error["field"]), text(&error["message"]))).collect()
}

/// An RFC 9457 problem with this status, that names exactly these fields and says this of each.
fn is_problem(answer: &Answer, status: u16, fields: &[(&str, &str)], what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}: {answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{what}: {answer:?}");
    assert_eq!(problem["correlationId"].as_str(), Some(answer.header("x-correlation-id")), "{what}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {answer:?}");
    assert_eq!(misnamed(answer, fields), None, "{what}");
}

/// What an answer names, unless that is exactly these fields with these words.
fn misnamed(answer: &Answer, fields: &[(&str, &str)]) -> Option<String> {
    let named = named(answer);
    let mut pairs = named.iter().zip(fields);
    let fits = named.len() == fields.len()
        && pairs.all(|((field, message), (expected, part))| field == expected && message.contains(part));
    (!fits).then(|| format!("{named:?}, expected {fields:?}"))
}

/// Nothing of any order is there: no document, no journal entry, no key, no event.
async fn nothing_is_left(app: &TestApp) {
    let sql = app.sql("orders");
    for table in ["doc_orders", "journal", "keys"] {
        assert_eq!(count(&sql, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    assert_eq!(app.wire().await.count("ORDERS").await, 0);
}

fn item(product: &str, quantity: &str, price: &str) -> String {
    format!(r#"{{"productId":"{product}","quantity":{quantity},"price":{price}}}"#)
}

fn body(items: &[String], total: &str) -> String {
    format!(r#"{{"userId":"ada","items":[{}],"totalAmount":{total}}}"#, items.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_order_is_refused_with_the_field_and_what_would_be_right_and_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let one = |quantity: &str, price: &str, total: &str| body(&[item("mug", quantity, price)], total);
    let long = "x".repeat(65);
    let hundred_and_one: Vec<String> = (0..101).map(|n| item(&format!("p{n}"), "1", "1")).collect();
    let (whole, amount) = ("a whole number from 1 to 10000", "at most two decimals");
    let cases: Vec<(&str, String, Vec<_>)> = vec![
        ("empty", String::new(), vec![]),
        ("not JSON", "userId=ada".into(), vec![("body", "expected")]),
        ("cut off", one("1", "1", "1").split_at(30).0.into(), vec![("items[0]", "EOF")]),
        ("not an object", "[]".into(), vec![("body", "an object")]),
        ("more than one", format!("{0}{0}", one("1", "1", "1")), vec![("body", "trailing")]),
        ("no userId", r#"{"items":[],"totalAmount":1}"#.into(), vec![("userId", "missing")]),
        ("no items", r#"{"userId":"ada","totalAmount":1}"#.into(), vec![("items", "missing")]),
        ("no total", r#"{"userId":"ada","items":[]}"#.into(), vec![("totalAmount", "missing")]),
        ("empty items", body(&[], "1"), vec![("items", "1 to 100")]),
        ("items of a wrong type", r#"{"userId":"ada","items":{},"totalAmount":1}"#.into(), vec![("items", "an array")]),
        ("an item of a wrong type", body(&["7".into()], "1"), vec![("items[0]", "an object")]),
        ("userId of a wrong type", one("1", "1", "1").replace(r#""ada""#, "7"), vec![("userId", "a string")]),
        ("too many items", body(&hundred_and_one, "101"), vec![("items", "1 to 100")]),
        ("no price", body(&[r#"{"productId":"mug","quantity":1}"#.into()], "1"), vec![("items[0].price", "missing")]),
        ("quantity in quotes", one(r#""1""#, "1", "1"), vec![("items[0].quantity", "without quotes")]),
        ("quantity 0", one("0", "1", "0"), vec![("items[0].quantity", whole)]),
        ("quantity negative", one("-1", "1", "1"), vec![("items[0].quantity", whole)]),
        ("quantity fractional", one("1.5", "2", "3"), vec![("items[0].quantity", whole)]),
        ("quantity over the bound", one("10001", "1", "10001"), vec![("items[0].quantity", whole)]),
        ("quantity beyond integers", one("1e400", "1", "1"), vec![("items[0].quantity", whole)]),
        ("price negative", one("1", "-1", "1"), vec![("items[0].price", "0 or more")]),
        ("price with three decimals", one("1", "1.001", "1"), vec![("items[0].price", amount)]),
        ("price with too many digits", one("1", "123456789012.00", "1"), vec![("items[0].price", "13 digits")]),
        ("price with an exponent", one("1", "1e2", "100"), vec![("items[0].price", "exponent")]),
        ("price in quotes", one("1", r#""1.00""#, "1"), vec![("items[0].price", "without quotes")]),
        ("price null", one("1", "null", "1"), vec![("items[0].price", "a number")]),
        ("nothing to pay", one("1", "0", "0"), vec![("items", "something to pay")]),
        ("total that does not match", one("3", "0.10", "0.31"), vec![("totalAmount", "add up to 0.30")]),
        ("total negative", one("1", "1", "-1"), vec![("totalAmount", "0 or more")]),
        ("total with three decimals", one("1", "1", "1.000"), vec![("totalAmount", amount)]),
        (
            "a product twice",
            body(&[item("mug", "1", "1"), item("mug", "2", "1")], "3"),
            vec![("items[1].productId", "items[0] already")],
        ),
        ("a product's id with a space", body(&[item("a b", "1", "1")], "1"), vec![("items[0].productId", "1 to 64")]),
        ("a product's id over length", body(&[item(&long, "1", "1")], "1"), vec![("items[0].productId", "1 to 64")]),
        ("an empty product's id", body(&[item("", "1", "1")], "1"), vec![("items[0].productId", "1 to 64")]),
        ("a product's id with a slash", body(&[item("../x", "1", "1")], "1"), vec![("items[0].productId", "1 to 64")]),
        (
            "a product's id of dots and NUL",
            body(&[item("\\u0000", "1", "1")], "1"),
            vec![("items[0].productId", "A-Z")],
        ),
        ("a user's id with a line break", one("1", "1", "1").replace("ada", "a\\r\\nb"), vec![("userId", "1 to 64")]),
        ("a user's id over length", one("1", "1", "1").replace("ada", &long), vec![("userId", "1 to 64")]),
        (
            "several faults at once",
            format!(
                r#"{{"userId":"","items":[{},{}],"totalAmount":1.005}}"#,
                item("a b", "0", "-1"),
                item("mug", "2.5", "1.001")
            ),
            vec![
                ("userId", "1 to 64"),
                ("items[0].productId", "1 to 64"),
                ("items[0].quantity", whole),
                ("items[0].price", "0 or more"),
                ("items[1].quantity", whole),
                ("items[1].price", amount),
                ("totalAmount", amount),
            ],
        ),
    ];
    let mut wrong = vec![];
    for (what, body, fields) in cases {
        let answer = app.post(body).await;
        match misnamed(&answer, &fields) {
            Some(misnamed) => wrong.push(format!("{what}: {} {misnamed}", answer.status)),
            None => is_problem(&answer, 400, &fields, what),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let good = order_of("ada", &[line("mug", 1, 100)]);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        let request = app.http.post(format!("{}/orders", app.urls.orders)).header("content-type", kind);
        let answer = app.send(request.body(good.clone())).await;
        is_problem(&answer, 415, &[], kind);
        assert!(answer.json()["detail"].as_str().unwrap().contains("application/json"), "{answer:?}");
    }
    let padded = format!("{good}{}", " ".repeat(300 * 1024));
    let answer = app.post(padded).await;
    is_problem(&answer, 413, &[], "body over the limit");
    assert!(answer.json()["detail"].as_str().unwrap().contains("262144 bytes"), "{answer:?}");
    for (header, value) in [
        ("idempotency-key", "k".repeat(256)),
        ("idempotency-key", String::new()),
        ("x-correlation-id", "c".repeat(129)),
    ] {
        let answer = app.send(app.posting(good.clone()).header(header, value)).await;
        is_problem(&answer, 400, &[], header);
        assert!(answer.json()["detail"].as_str().unwrap().to_lowercase().contains(header), "{answer:?}");
    }
    for (method, path, status, part) in [
        (Method::GET, "/order", 404, "no route GET /order"),
        (Method::POST, "/orders/x/y/z", 404, "no route"),
        (Method::DELETE, "/orders", 405, "use "),
        (Method::PUT, "/orders/x", 405, "use GET"),
        (Method::GET, "/orders/no-such-order", 404, "no order with id no-such-order"),
        (Method::GET, "/orders/a%20b", 404, "no order"),
        (Method::POST, "/orders/no-such-order/cancel", 404, "no order"),
        (Method::GET, "/orders?status=OPEN", 400, ""),
        (Method::GET, "/orders?limit=0", 400, ""),
    ] {
        let answer = app.send(app.http.request(method.clone(), format!("{}{path}", app.urls.orders))).await;
        let what = format!("{method} {path}");
        assert_eq!(answer.status.as_u16(), status, "{what}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{what}: {answer:?}");
    }
    nothing_is_left(&app).await;
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_stock_is_refused_with_the_field_and_leaves_nothing_behind() {
    let app = TestApp::start().await;
    for (product, body, fields) in [
        ("mug", r#"{"initial":-1}"#, vec![("initial", "not negative")]),
        ("mug", r#"{"initial":1.5}"#, vec![("initial", "whole number")]),
        ("mug", r#"{"initial":"5"}"#, vec![("initial", "whole number")]),
        ("mug", "{}", vec![("initial", "missing")]),
        ("a%20b", r#"{"initial":1}"#, vec![("productId", "1 to 64")]),
        ("mug", r#"{"initial":99999999999}"#, vec![("initial", "1000000000")]),
    ] {
        let request = app.http.put(format!("{}/stock/{product}", app.urls.inventory));
        let answer = app.send(request.header("content-type", "application/json").body(body)).await;
        is_problem(&answer, 400, &fields, body);
    }
    assert_eq!(count(&app.sql("inventory"), "SELECT count(*) FROM doc_products"), 0);
    assert_eq!(count(&app.sql("inventory"), "SELECT count(*) FROM journal"), 0);
    // Less than what is promised already is a conflict, said with the numbers.
    app.stock("mug", 5).await;
    let id = app.place(order_of("ada", &[line("mug", 4, 100)])).await;
    app.ended(&id).await;
    app.reservation_is(&id, "SOLD").await;
    let put = app.http.put(format!("{}/stock/mug", app.urls.inventory)).json(&json!({ "initial": 3 }));
    let answer = app.send(put).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().contains('4'), "{answer:?}");
    assert_eq!(app.stock_of("mug").await, [5, 0, 4]);
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_used_for_another_order_is_refused_and_leaves_the_first_order_alone() {
    let app = TestApp::start().await;
    app.stock("mug", 10).await;
    let keyed = |quantity| app.posting(order_of("ada", &[line("mug", quantity, 100)])).header("idempotency-key", "k");
    let first = app.send(keyed(1)).await;
    assert_eq!(first.status, 201, "{first:?}");
    let answer = app.send(keyed(2)).await;
    is_problem(&answer, 422, &[], "another order under the key");
    assert!(answer.json()["detail"].as_str().unwrap().contains("Idempotency-Key"), "{answer:?}");
    // The key belongs to its route: the cancel of an order under it is something else.
    let id = first.json()["id"].as_str().unwrap().to_owned();
    app.ended(&id).await;
    assert_eq!(app.send(keyed(1)).await.text, first.text);
    // A bad order under the key of a good one is a bad order.
    let bad = app.send(app.posting("{}").header("idempotency-key", "k")).await;
    assert_eq!(bad.status, 400, "{bad:?}");
    assert_eq!(app.all_ended(1).await.len(), 1);
    assert_eq!(count(&app.sql("orders"), "SELECT count(*) FROM doc_orders"), 1);
    app.close().await;
}
