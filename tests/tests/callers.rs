//! Orders with callers that have keys.

use millstream::api_keys::ApiKeys;
use millstream::testing::Bench;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::timing;

/// The SHA-256 hashes of `one` and `two`.
const KEYS: &str = "web:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed
till:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_with_one_idempotency_key_place_two_orders_and_nobody_places_one_without_a_key() {
    let bench = Bench::start().await;
    // What it reads: without them it is not ready.
    for stream in [contracts::inventory::STREAM, contracts::payments::STREAM] {
        bench.declare(&stream).await;
    }
    let keys = ApiKeys::read(KEYS).unwrap();
    let service = bench.run(orders::service(orders::Settings::default()).only_for(keys), timing()).await;
    let http = reqwest::Client::new();
    let place = |key: Option<&'static str>, user: &'static str| {
        let order =
            json!({ "userId": user, "items": [{ "productId": "mug", "quantity": 1, "price": 5 }], "totalAmount": 5 });
        let request = http.post(format!("{}/orders", service.url())).json(&order).header("Idempotency-Key", "mine");
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        async {
            let answer = request.send().await.unwrap();
            (answer.status(), answer.json::<Value>().await.unwrap())
        }
    };
    for key in [None, Some("three"), Some("web")] {
        let (status, said) = place(key, "ada").await;
        assert_eq!((status, &said["status"]), (StatusCode::UNAUTHORIZED, &json!(401)), "{key:?}: {said}");
    }
    let (one, two) = (place(Some("one"), "ada").await, place(Some("two"), "bob").await);
    assert_eq!((one.0, two.0), (StatusCode::CREATED, StatusCode::CREATED), "{one:?} {two:?}");
    assert_ne!(one.1["id"], two.1["id"]);
    assert_eq!((&one.1["userId"], &two.1["userId"]), (&json!("ada"), &json!("bob")), "nobody is told another's order");
    // Each repeats its own.
    assert_eq!(place(Some("one"), "ada").await.1, one.1);
    assert_eq!(place(Some("two"), "bob").await.1, two.1);
    let (status, said) = place(Some("two"), "ada").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{said}");
    service.stop().await;
}
