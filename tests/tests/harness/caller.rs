//! What a customer, an operator and an auditor do over HTTP.

use std::time::{Duration, Instant};

use analytics::Summary;
use millstream::testing::eventually;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use shop::check;
use shop::whole::Urls;
use tokio::time::sleep;

use super::{SOON, Wire};

/// An HTTP client, and where everything is.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) urls: Urls,
    pub(crate) http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// `quantity` of a product at a price in cents.
pub(crate) fn line(product: &str, quantity: u32, cents: u64) -> (String, u32, u64) {
    (product.into(), quantity, cents)
}

/// The body of an order, with its right total. Amounts are written from whole cents, never through a float.
pub(crate) fn order_of(user: &str, lines: &[(String, u32, u64)]) -> String {
    let money = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let item = |(product, quantity, cents): &(String, u32, u64)| {
        format!(r#"{{"productId":"{product}","quantity":{quantity},"price":{}}}"#, money(*cents))
    };
    let items: Vec<String> = lines.iter().map(item).collect();
    let total = lines.iter().map(|(_, quantity, cents)| u64::from(*quantity) * cents).sum();
    format!(r#"{{"userId":"{user}","items":[{}],"totalAmount":{}}}"#, items.join(","), money(total))
}

/// Whether an order has ended.
pub(crate) fn at_rest(order: &Value) -> bool {
    matches!(order["status"].as_str(), Some("CONFIRMED" | "CANCELLED"))
}

impl Caller {
    pub(crate) fn new(urls: Urls) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { urls, http }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }

    /// A POST to the orders service, to be changed before it is sent.
    pub(crate) fn posting(&self, body: impl Into<String>) -> RequestBuilder {
        let request = self.http.post(format!("{}/orders", self.urls.orders)).body(body.into());
        request.header("content-type", "application/json")
    }

    pub(crate) async fn post(&self, body: impl Into<String>) -> Answer {
        self.send(self.posting(body)).await
    }

    /// Places an order that is accepted, and gives its id. As long as a busy machine says that nothing was done, it is sent again.
    pub(crate) async fn place(&self, body: impl Into<String>) -> String {
        let (body, until) = (body.into(), Instant::now() + SOON);
        let answer = loop {
            let answer = self.post(body.clone()).await;
            if answer.status != 503 || !answer.text.contains("nothing was done") || Instant::now() > until {
                break answer;
            }
            sleep(Duration::from_millis(200)).await;
        };
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, url: String) -> Answer {
        self.send(self.http.get(url)).await
    }

    async fn found(&self, url: String) -> Value {
        let answer = self.get(url).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn order(&self, id: &str) -> Value {
        self.found(format!("{}/orders/{id}", self.urls.orders)).await
    }

    pub(crate) async fn cancel(&self, id: &str) -> Answer {
        self.send(self.http.post(format!("{}/orders/{id}/cancel", self.urls.orders))).await
    }

    /// Waits for an order's end.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let ended = async || Some(self.order(id).await).filter(at_rest);
        eventually(&format!("the end of order {id}"), SOON, ended).await
    }

    /// All orders.
    pub(crate) async fn orders(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (vec![], String::new());
        loop {
            let page = self.found(format!("{}/orders?limit=1000{cursor}", self.urls.orders)).await;
            all.extend_from_slice(page["orders"].as_array().unwrap());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Waits until all of so many orders have ended.
    pub(crate) async fn all_ended(&self, count: usize) -> Vec<Value> {
        for status in ["PENDING", "RESERVED"] {
            let url = format!("{}/orders?limit=1&status={status}", self.urls.orders);
            let none = async || self.found(url.clone()).await["orders"].as_array().unwrap().is_empty();
            eventually(&format!("the end of all {status} orders"), SOON * 2, none).await;
        }
        let orders = self.orders().await;
        assert_eq!(orders.len(), count);
        // An order that was still PENDING in the one look may not be seen RESERVED in the other.
        assert!(orders.iter().all(at_rest), "{orders:?}");
        orders
    }

    pub(crate) async fn payment(&self, id: &str) -> Option<Value> {
        let answer = self.get(format!("{}/payments/{id}", self.urls.payments)).await;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until the payment of an order stands there.
    pub(crate) async fn payment_is(&self, id: &str, status: &str) -> Value {
        let stands = async || self.payment(id).await.filter(|payment| payment["status"] == status);
        eventually(&format!("payment {status} of order {id}"), SOON, stands).await
    }

    /// Waits until the reservation of an order stands there.
    pub(crate) async fn reservation_is(&self, id: &str, status: &str) {
        let stands = async || {
            let answer = self.get(format!("{}/reservations/{id}", self.urls.inventory)).await;
            answer.status == 200 && answer.json()["status"] == status
        };
        eventually(&format!("reservation {status} of order {id}"), SOON, stands).await;
    }

    /// What customers were told, of one order or of all.
    pub(crate) async fn notifications(&self, filter: &str) -> Vec<Value> {
        let found = self.found(format!("{}/notifications?limit=1000{filter}", self.urls.notifications)).await;
        found["notifications"].as_array().unwrap().clone()
    }

    pub(crate) async fn summary(&self) -> Summary {
        let answer = self.get(format!("{}/analytics/summary", self.urls.analytics)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.text).unwrap()
    }

    pub(crate) async fn stock(&self, product: &str, initial: u64) {
        shop::stock::put(&self.http, &self.urls.inventory, product, initial).await.unwrap();
    }

    /// Initial, reserved and sold.
    pub(crate) async fn stock_of(&self, product: &str) -> [u64; 3] {
        let stock = self.found(format!("{}/stock/{product}", self.urls.inventory)).await;
        ["initial", "reserved", "sold"].map(|field| stock[field].as_u64().unwrap())
    }

    pub(crate) async fn faults(&self, faults: Value) {
        let answer = self.send(self.http.put(format!("{}/faults", self.urls.gateway)).json(&faults)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The gateway's captures and refunds of an order.
    pub(crate) async fn money(&self, id: &str) -> (usize, usize) {
        let list = async |what: &str| {
            let found = self.found(format!("{}/{what}?orderId={id}", self.urls.gateway)).await;
            found[what].as_array().unwrap().len()
        };
        (list("charges").await, list("refunds").await)
    }

    pub(crate) async fn metrics(&self, service: &str) -> Answer {
        self.get(format!("{}/metrics", self.base(service))).await
    }

    pub(crate) fn base(&self, service: &str) -> &str {
        match service {
            "orders" => &self.urls.orders,
            "inventory" => &self.urls.inventory,
            "payments" => &self.urls.payments,
            "notifications" => &self.urls.notifications,
            "analytics" => &self.urls.analytics,
            "console" => &self.urls.console,
            other => panic!("there is no service {other}"),
        }
    }

    /// The test's own look at the broker.
    pub(crate) async fn wire(&self) -> Wire {
        Wire::connect(&self.urls.nats).await
    }

    /// Whether a service says that it can do its whole job, and what it says.
    pub(crate) async fn ready(&self, service: &str) -> (StatusCode, Value) {
        let answer = self.get(format!("{}/readyz", self.base(service))).await;
        (answer.status, answer.json())
    }

    /// Every invariant of the saga holds, and there are so many dead letters.
    pub(crate) async fn check(&self, dead_letters: u64) {
        let outcome = check::run(check::Options {
            older_than: Duration::ZERO,
            looks: 240,
            pause: Duration::from_millis(250),
            dead_letters,
            ..self.check_options()
        });
        let outcome = outcome.await.unwrap();
        assert_eq!(outcome.exit_code(), 0, "\n{outcome}");
    }

    /// Where a check looks.
    pub(crate) fn check_options(&self) -> check::Options {
        check::Options::of(&self.urls)
    }

    /// Places orders of one product, so many at once.
    pub(crate) async fn place_many(&self, count: usize, at_once: usize, body: impl Fn(usize) -> String) -> Vec<String> {
        use futures_util::StreamExt;
        let bodies: Vec<String> = (0..count).map(body).collect();
        futures_util::stream::iter(bodies).map(|body| self.place(body)).buffer_unordered(at_once).collect().await
    }
}
