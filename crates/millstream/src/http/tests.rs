//! Requests through the whole shell, as a caller sees them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as RawBody;
use axum::extract::Path;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;
use crate::commands::{Caller, CommandError};
use crate::handler::FieldError;
use crate::store::StoreError;
use crate::telemetry::Telemetry;

struct Fixed(Health);

impl Probe for Fixed {
    fn health(&self) -> Health {
        self.0.clone()
    }
}

fn well() -> Health {
    let consumer = ConsumerHealth {
        stream: "ORDERS".into(),
        durable: "payments".into(),
        pulling: true,
        standby: false,
        pending: 3,
        ack_pending: 1,
    };
    Health { database: true, broker: true, consumers: vec![consumer], commands_free: 77, ..Default::default() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    user_id: String,
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    quantity: u32,
    price: Box<RawValue>,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

async fn order(Body(order): Body<Order>) -> String {
    let items = order.items.iter().map(|item| format!("{}x{}", item.quantity, item.price));
    format!("{}: {}", order.user_id, items.collect::<Vec<_>>().join(" "))
}

async fn fail(Path(kind): Path<String>) -> Problem {
    match kind.as_str() {
        "fields" => {
            let field = FieldError { field: "items".into(), message: "at least one line".into() };
            Problem::unprocessable("the order breaks rules").with_errors([field])
        }
        "unknown" => CommandError::OutcomeUnknown.into(),
        "store" => StoreError::new("/secret/path").into(),
        _ => panic!("a secret"),
    }
}

fn app_with(health: Health, telemetry: &Telemetry, max_in_flight: usize, routes: Router) -> Router {
    shell(routes, (), Arc::new(Fixed(health)), telemetry.clone(), max_in_flight)
}

fn app() -> Router {
    let routes = Router::new()
        .route("/orders", post(order))
        .route("/orders/{id}", get(async |caller: Caller| format!("{caller:?}")))
        .route("/nothing", post(async |_: NoBody| "done"))
        .route("/page", get(async |Query(page): Query<Page>| page.limit.to_string()))
        .route("/number/{n}", get(async |Path(n): Path<u32>| n.to_string()))
        .route("/fail/{kind}", get(fail));
    app_with(well(), &Telemetry::new("orders", &[]), MAX_IN_FLIGHT, routes)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Checks what all problems have in common, and returns it.
    fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["title"], StatusCode::from_u16(status).unwrap().canonical_reason().unwrap());
        assert_eq!(problem["correlationId"], self.header("x-correlation-id"));
        assert_eq!(self.header("retry-after"), if status == 503 { "1" } else { "" });
        problem
    }
}

async fn send(app: Router, request: Request<RawBody>) -> Answer {
    let response = app.oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Answer { status, headers, text: String::from_utf8(bytes.into()).unwrap() }
}

async fn fetch(path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    send(app(), request.body(RawBody::empty()).unwrap()).await
}

async fn submit(content_type: &str, body: impl Into<RawBody>) -> Answer {
    let request = Request::post("/orders").header("content-type", content_type).body(body.into()).unwrap();
    send(app(), request).await
}

#[tokio::test]
async fn a_body_is_read_from_its_text() {
    let body = r#"{"userId":"u1","items":[{"quantity":2,"price":123456789012345.670}]}"#;
    let answer = submit("application/json; charset=utf-8", body).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "u1: 2x123456789012345.670"));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_names_the_field_the_place_and_what_would_be_right() {
    for (body, field, parts) in [
        ("", "", &["empty"][..]),
        ("hello", "body", &["not JSON", "line 1, column 1"]),
        (r#"{"userId":"u","items":[]"#, "body", &["not JSON", "EOF", "column 24"]),
        (r#"{"userId":"u","items":[]} x"#, "body", &["trailing characters", "column 27"]),
        (r#" ["u",[]]"#, "body", &["not an object"]),
        ("[1", "body", &["not JSON"]),
        (r#"{"items":[]}"#, "userId", &["missing field"]),
        (r#"{"userId":7,"items":[]}"#, "userId", &["integer `7`", "expected a string"]),
        (r#"{"userId":"u","items":{}}"#, "items", &["expected an array"]),
        (r#"{"userId":"u","items":[3]}"#, "items[0]", &["expected an object"]),
        (r#"{"userId":"u","items":[{"quantity":1,"price":1},{"price":1}]}"#, "items[1].quantity", &["missing field"]),
        (r#"{"userId":"u","items":[{"quantity":-1,"price":1}]}"#, "items[0].quantity", &["`-1`", "not negative"]),
        (r#"{"userId":"u","items":[{"quantity":1.5,"price":1}]}"#, "items[0].quantity", &["`1.5`", "whole number"]),
        (r#"{"userId":"u","items":[{"quantity":"1","price":1}]}"#, "items[0].quantity", &["string", "whole number"]),
    ] {
        let problem = submit("application/json", body).await.problem(400);
        let detail = problem["detail"].as_str().unwrap();
        for part in parts {
            assert!(detail.contains(part), "`{part}` is missing in: {detail}");
        }
        if !field.is_empty() {
            assert_eq!(problem["errors"][0]["field"], field, "{detail}");
        }
    }
}

#[tokio::test]
async fn another_content_type_is_refused_with_the_right_one() {
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        let problem = submit(content_type, "{}").await.problem(415);
        assert!(problem["detail"].as_str().unwrap().contains("application/json"), "{problem}");
    }
    let none = send(app(), Request::post("/orders").body(RawBody::from("{}")).unwrap()).await.problem(415);
    assert!(none["detail"].as_str().unwrap().starts_with("there is no Content-Type"), "{none}");
    let twice =
        Request::post("/orders").header("content-type", "application/json").header("content-type", "text/plain");
    let twice = send(app(), twice.body(RawBody::from("{}")).unwrap()).await.problem(400);
    assert_eq!(twice["detail"], "the header Content-Type is there twice: send one");
}

#[tokio::test]
async fn utf8_by_any_of_its_names_and_with_a_byte_order_mark_is_read() {
    let body = r#"{"userId":"u","items":[]}"#;
    for charset in ["utf-8", "utf8", "UTF8", "us-ascii", "\"UTF-8\""] {
        let answer = submit(&format!("application/json; charset={charset}"), body).await;
        assert_eq!(answer.status, 200, "{charset}: {}", answer.text);
    }
    assert_eq!(submit("application/json", format!("\u{feff}{body}")).await.status, 200);
    let wide: Vec<u8> = format!("\u{feff}{body}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let problem = submit("application/json", wide).await.problem(400);
    assert!(problem["detail"].as_str().unwrap().contains("byte order mark of UTF-16"), "{problem}");
}

#[tokio::test]
async fn a_compressed_body_is_refused_with_the_coding_that_there_is() {
    let body = r#"{"userId":"u","items":[]}"#;
    for (coding, status) in [("gzip", 415), ("br, identity", 415), ("identity", 200), ("Identity", 200)] {
        let request = Request::post("/orders").header("content-type", "application/json");
        let request = request.header("content-encoding", coding).body(RawBody::from(body)).unwrap();
        let answer = send(app(), request).await;
        assert_eq!(answer.status, status, "{coding}: {}", answer.text);
        assert_eq!(answer.header("accept-encoding"), if status == 415 { "identity" } else { "" });
    }
    // A 415 for another reason must not name codings.
    assert_eq!(submit("text/plain", body).await.header("accept-encoding"), "");
}

#[tokio::test]
async fn a_member_that_is_not_known_is_refused_by_name_with_those_that_are() {
    for (body, field, known) in [
        (r#"{"userId":"u","items":[],"coupon":"X"}"#, "coupon", "`userId` or `items`"),
        (r#"{"userId":"u","items":[{"quantity":1,"Quantity":5,"price":1}]}"#, "items[0].Quantity", "`quantity`"),
    ] {
        let problem = submit("application/json", body).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(known), "{problem}");
    }
    let ask = async |body: &'static str| {
        let request = Request::post("/nothing").header("content-type", "application/json");
        send(app(), request.body(RawBody::from(body)).unwrap()).await
    };
    assert_eq!((ask("").await.status, ask("{}").await.status), (200, 200));
    let problem = ask(r#"{"reason":"late"}"#).await.problem(400);
    assert_eq!(problem["errors"][0]["field"], "reason", "{problem}");
    let bare = Request::post("/nothing").body(RawBody::empty()).unwrap();
    assert_eq!(send(app(), bare).await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_naming_the_limit() {
    let order = |length: usize| format!(r#"{{"userId":"{}","items":[]}}"#, "u".repeat(length - 24));
    assert_eq!(submit("application/json", order(BODY_LIMIT)).await.status, 200);
    for length in [BODY_LIMIT + 1, 9 * 1024 * 1024] {
        let problem = submit("application/json", order(length)).await.problem(413);
        assert!(problem["detail"].as_str().unwrap().contains("256 KiB"), "{problem}");
    }
    let announced = Request::post("/orders").header("content-type", "application/json");
    let announced = announced.header("content-length", "99999999").body(RawBody::empty()).unwrap();
    send(app(), announced).await.problem(413);
}

#[tokio::test]
async fn a_bad_query_names_the_parameter() {
    for (path, field) in [("/page?limit=many", "limit"), ("/page", "limit"), ("/page?limit=1&limit=2", "limit")] {
        let problem = fetch(path, &[]).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    assert_eq!(fetch("/page?limit=5&other=1", &[]).await.text, "5");
}

#[tokio::test]
async fn a_caller_is_known_by_its_headers() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("x-correlation-id", "order 42/ä"), ("idempotency-key", "k-1"), ("traceparent", trace)];
    let answer = fetch("/orders/7", &headers).await;
    for part in ["\"order 42/ä\"", "Some(\"k-1\")", trace, "method: \"GET\"", "route: \"/orders/{id}\""] {
        assert!(answer.text.contains(part), "`{part}` is missing in {}", answer.text);
    }
    assert_eq!(answer.headers["x-correlation-id"].as_bytes(), "order 42/ä".as_bytes());

    let answer =
        fetch("/orders/7", &[("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")]).await;
    assert!(answer.text.contains("traceparent: None"), "{}", answer.text);
    assert!(answer.text.contains(answer.header("x-correlation-id")) && answer.header("x-correlation-id").len() == 36);
}

#[tokio::test]
async fn a_bad_header_is_refused_by_name() {
    let long = "c".repeat(129);
    for headers in [
        &[("x-correlation-id", long.as_str())][..],
        &[("x-correlation-id", "")],
        &[("x-correlation-id", "tab\there")],
        &[("x-correlation-id", "a"), ("x-correlation-id", "b")],
        &[("idempotency-key", "")],
        &[("idempotency-key", "schlüssel")],
        &[("idempotency-key", "a"), ("idempotency-key", "b")],
    ] {
        let problem = fetch("/orders/7", headers).await.problem(400);
        let detail = problem["detail"].as_str().unwrap().to_lowercase();
        assert!(detail.contains(headers[0].0), "{detail}");
    }
    let key = "k".repeat(256);
    assert_eq!(fetch("/orders/7", &[("idempotency-key", &key[1..])]).await.status, 200);
    fetch("/orders/7", &[("idempotency-key", &key)]).await.problem(400);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let problem = fetch("/nowhere", &[]).await.problem(404);
    assert_eq!(problem["detail"], "there is no route GET /nowhere");
    let answer = send(app(), Request::delete("/orders").body(RawBody::empty()).unwrap()).await;
    let problem = answer.problem(405);
    assert_eq!(answer.header("allow"), "POST");
    assert_eq!(problem["detail"], "DELETE is not possible on /orders: use POST");
    let problem = fetch("/number/x", &[]).await.problem(400);
    assert!(problem["detail"].as_str().unwrap().contains("`x`"), "{problem}");
}

#[tokio::test]
async fn errors_of_routes_carry_fields_and_correlation_and_leak_nothing() {
    let problem = fetch("/fail/fields", &[("x-correlation-id", "c-9")]).await.problem(422);
    assert_eq!(problem["errors"], json!([{ "field": "items", "message": "at least one line" }]));
    assert_eq!(problem["correlationId"], "c-9");
    let problem = fetch("/fail/unknown", &[]).await.problem(503);
    assert_eq!(problem["detail"], "outcome unknown: repeat with the same Idempotency-Key");
    assert!(!fetch("/fail/store", &[]).await.problem(503)["detail"].as_str().unwrap().contains("secret"));
    assert!(!fetch("/fail/panic", &[]).await.problem(500)["detail"].as_str().unwrap().contains("secret"));
}

#[tokio::test]
async fn health_tells_what_is_up_and_what_is_waited_for() {
    let answer = fetch("/health", &[]).await;
    let health = answer.json();
    assert_eq!((answer.status, &health["status"]), (200, &json!("UP")));
    assert_eq!(health["services"], json!({ "database": "UP", "messageBroker": "UP" }));
    assert_eq!(health["commandsAccepted"], 77);
    let consumer = json!({ "stream": "ORDERS", "durable": "payments", "pulling": true, "standby": false, "pending": 3, "ackPending": 1 });
    assert_eq!(health["consumers"], json!([consumer]));
    assert!(health["timestamp"].is_string());
    assert_eq!(fetch("/readyz", &[]).await.status, 200);

    let telemetry = Telemetry::new("orders", &[]);
    let away = Health { broker: false, waiting_for: vec!["the broker has never been reached".into()], ..well() };
    let get = async |path: &str| {
        let app = app_with(away.clone(), &telemetry, 1, Router::new());
        send(app, Request::get(path).body(RawBody::empty()).unwrap()).await
    };
    let health = get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("DEGRADED")));
    assert_eq!(health.json()["services"]["messageBroker"], "DOWN");
    let ready = get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["waitingFor"], json!(["the broker has never been reached"]));
    let alive = get("/livez").await;
    assert_eq!((alive.status, alive.json()), (200, json!({ "status": "alive" })));
}

#[tokio::test]
async fn too_many_at_once_are_shed_while_health_still_answers_and_all_is_measured() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, go) = (entered.clone(), release.clone());
    let slow = get(async move || {
        inside.notify_one();
        go.notified().await;
    });
    let telemetry = Telemetry::new("orders", &[]);
    let app = app_with(well(), &telemetry, 1, Router::new().route("/slow/{id}", slow));
    let request = |path: &str| Request::get(path).body(RawBody::empty()).unwrap();

    let first = tokio::spawn(send(app.clone(), request("/slow/1")));
    tokio::time::timeout(Duration::from_secs(5), entered.notified()).await.expect("the first request is in its route");
    let problem = send(app.clone(), request("/slow/2")).await.problem(503);
    assert!(problem["detail"].as_str().unwrap().contains("1 requests are in flight"), "{problem}");
    assert_eq!(send(app.clone(), request("/livez")).await.status, 200);
    assert!(telemetry.render().contains(r#"http_server_active_requests{http_request_method="GET"} 1"#));
    release.notify_one();
    assert_eq!(first.await.unwrap().status, 200);

    let answer = send(app, request("/metrics")).await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        r#"millstream_http_shed_total{reason="overload"} 1"#,
        r#"millstream_http_shed_total{reason="unavailable"} 0"#,
        concat!(
            r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/slow/{id}","#,
            r#"http_response_status_code="200"} 1"#
        ),
    ] {
        assert!(answer.text.contains(line), "{line} is missing in {}", answer.text);
    }
    assert!(!answer.text.contains(" summary"));
}

#[tokio::test]
async fn a_503_of_a_route_counts_by_its_reason() {
    let telemetry = Telemetry::new("orders", &[]);
    for (draining, reason) in [(false, "unavailable"), (true, "draining")] {
        let route = get(async || Problem::unavailable("the broker is away"));
        let app = app_with(Health { draining, ..well() }, &telemetry, 1, Router::new().route("/", route));
        send(app, Request::get("/").body(RawBody::empty()).unwrap()).await.problem(503);
        assert!(telemetry.render().contains(&format!("millstream_http_shed_total{{reason=\"{reason}\"}} 1")));
    }
}
