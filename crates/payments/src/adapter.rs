//! Tests of the HTTP adapter against a small server: which answers are definite, and which are outages.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use contracts::Currency;
use millstream::Outage;

use crate::gateway::{Capture, Charged, Gateway, HttpGateway, Refunded};

/// A gateway that gives one answer to whatever it is asked. The answer may hold `{request}`: what was asked, for the test to
/// see.
async fn gateway(status: u16, answer: &'static str) -> HttpGateway {
    async fn reply(
        State((status, answer)): State<(StatusCode, &'static str)>,
        headers: HeaderMap,
        Query(query): Query<Vec<(String, String)>>,
        body: String,
    ) -> (StatusCode, String) {
        let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap());
        let request = format!("{key:?} {query:?} {body}").replace('"', "'");
        (status, answer.replace("{request}", &request))
    }
    let status = StatusCode::from_u16(status).unwrap();
    let app = Router::new()
        .route("/charges", post(reply).get(reply))
        .route("/refunds", post(reply))
        .with_state((status, answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    HttpGateway::new(&base).unwrap()
}

async fn charge(gateway: &HttpGateway) -> Result<Charged, Outage> {
    let (amount, customer) = ("12.5".parse().unwrap(), "ALFKI".parse().unwrap());
    gateway.charge(&"o".parse().unwrap(), amount, Currency::Eur, &customer, "charge-o").await
}

async fn refund(gateway: &HttpGateway) -> Result<Refunded, Outage> {
    gateway.refund(&"o".parse().unwrap(), "12.5".parse().unwrap(), "refund-o").await
}

#[tokio::test]
async fn definite_answers_are_outcomes() {
    let captured = charge(&gateway(201, r#"{"chargeId":"{request}","status":"captured"}"#).await).await.unwrap();
    let request = "Some('charge-o') [] {'orderId':'o','amount':12.50,'currency':'EUR','customer':'ALFKI'}";
    assert_eq!(captured, Charged::Captured { charge_id: request.into() });

    let declined = charge(&gateway(402, r#"{"status":"declined","reason":"no funds"}"#).await).await.unwrap();
    assert_eq!(declined, Charged::Declined { reason: "no funds".into() });

    assert_eq!(refund(&gateway(201, r#"{"refundId":"r"}"#).await).await, Ok(Refunded::Done));
    assert_eq!(refund(&gateway(409, "{}").await).await, Ok(Refunded::NothingCaptured));

    let charges = r#"{"charges":[{"chargeId":"{request}","orderId":"o","amount":12.50,"refunded":true}]}"#;
    let found = gateway(200, charges).await.find(&"o".parse().unwrap()).await.unwrap();
    let charge_id = "None [('orderId', 'o')] ".into();
    assert_eq!(found, [Capture { charge_id, amount: "12.50".parse().unwrap(), refunded: true }]);
}

#[tokio::test]
async fn everything_else_is_an_outage_that_says_what_happened() {
    for (status, answer, part) in [
        (500, "", "500"),
        (503, "", "503"),
        (429, "", "429"),
        (409, "", "409"),
        (404, "", "404"),
        (201, "<html>", "cannot be parsed"),
        (201, "{}", "chargeId"),
        (402, "declined", "cannot be parsed"),
    ] {
        let why = charge(&gateway(status, answer).await).await.unwrap_err().to_string();
        assert!(why.contains(part), "{status} {answer}: {why}");
    }
    let why = refund(&gateway(402, "{}").await).await.unwrap_err().to_string();
    assert!(why.contains("402"), "{why}");
    let why = gateway(404, "").await.find(&"o".parse().unwrap()).await.unwrap_err().to_string();
    assert!(why.contains("404"), "{why}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = charge(&HttpGateway::new(&format!("http://{free}")).unwrap()).await.unwrap_err().to_string();
    assert!(why.contains("did not answer") && why.contains("refused"), "{why}");
}
