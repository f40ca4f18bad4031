//! The card gateway: the port, and its HTTP adapter.

use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use contracts::{Currency, Money, OrderId, UserId};
use millstream::Outage;
use millstream::telemetry::metrics::HTTP_CLIENT_DURATION;
use millstream::telemetry::record;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The gateway as payments needs it. A repeated request under the same key takes effect once, as long as the gateway
/// remembers the key.
///
/// Each method returns definite outcomes only; everything else (a timeout, a closed connection, a 5xx) is an [`Outage`].
pub trait Gateway: Send + Sync + 'static {
    /// The server's name, for metrics.
    fn server(&self) -> &str {
        ""
    }

    /// From which age on a charge or refund that is repeated is looked for first, because its key may be forgotten.
    fn query_after(&self) -> Duration {
        QUERY_AFTER
    }

    /// Captures a charge.
    fn charge(
        &self,
        order: &OrderId,
        amount: Money,
        currency: Currency,
        customer: &UserId,
        key: &str,
    ) -> impl Future<Output = Result<Charged, Outage>> + Send;

    /// Refunds the charge of an order.
    fn refund(
        &self,
        order: &OrderId,
        amount: Money,
        key: &str,
    ) -> impl Future<Output = Result<Refunded, Outage>> + Send;

    /// All captures of an order.
    fn find(&self, order: &OrderId) -> impl Future<Output = Result<Vec<Capture>, Outage>> + Send;
}

/// The outcome of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charged {
    /// The charge was captured.
    Captured {
        /// The gateway's id of the charge.
        charge_id: String,
    },
    /// The charge was declined.
    Declined {
        /// The gateway's reason.
        reason: String,
    },
}

/// The outcome of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refunded {
    /// The charge was refunded.
    Done,
    /// There is no unrefunded capture.
    NothingCaptured,
}

/// A captured charge.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// The gateway's id of the charge.
    pub charge_id: String,
    /// The amount.
    pub amount: Money,
    /// Whether it was refunded.
    pub refunded: bool,
}

/// Gateways forget idempotency keys, often after 24 hours. One hour is left for clock differences and for answers in flight.
pub const QUERY_AFTER: Duration = Duration::from_secs(23 * 60 * 60);

/// Below the ten seconds of an effect, so that the adapter reports the timeout with its details.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The gateway over HTTP, with a connection pool.
#[derive(Clone, Debug)]
pub struct HttpGateway {
    client: Client,
    base: String,
    server: String,
    query_after: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChargeRequest<'a> {
    order_id: &'a OrderId,
    amount: Money,
    currency: Currency,
    customer: &'a UserId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefundRequest<'a> {
    order_id: &'a OrderId,
    amount: Money,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChargeAnswer {
    charge_id: String,
}

#[derive(Deserialize)]
struct DeclineAnswer {
    reason: String,
}

#[derive(Deserialize)]
struct ChargesAnswer {
    charges: Vec<Capture>,
}

impl HttpGateway {
    /// A gateway at `base`, `http://localhost:8090`.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(base: &str) -> Result<Self, reqwest::Error> {
        let url = Url::parse(base).ok();
        let builder = Client::builder().timeout(TIMEOUT).connect_timeout(TIMEOUT);
        // A proxy of the environment cannot reach this machine as we do.
        let client = if url.as_ref().is_some_and(is_here) { builder.no_proxy() } else { builder }.build()?;
        let server = url.and_then(|url| url.host_str().map(Into::into)).unwrap_or_default();
        Ok(Self { client, base: base.trim_end_matches('/').into(), server, query_after: QUERY_AFTER })
    }

    /// Changes the age from which on the gateway is queried before anything is repeated; [`QUERY_AFTER`] by default.
    pub fn with_query_after(self, query_after: Duration) -> Self {
        Self { query_after, ..self }
    }
}

impl Gateway for HttpGateway {
    fn server(&self) -> &str {
        &self.server
    }

    fn query_after(&self) -> Duration {
        self.query_after
    }

    async fn charge(
        &self,
        order: &OrderId,
        amount: Money,
        currency: Currency,
        customer: &UserId,
        key: &str,
    ) -> Result<Charged, Outage> {
        let body = ChargeRequest { order_id: order, amount, currency, customer };
        let request = self.client.post(format!("{}/charges", self.base)).header("Idempotency-Key", key).json(&body);
        let response = send(request).await?;
        match response.status() {
            status if status.is_success() => {
                let ChargeAnswer { charge_id } = read(response).await?;
                Ok(Charged::Captured { charge_id })
            }
            StatusCode::PAYMENT_REQUIRED => {
                let DeclineAnswer { reason } = read(response).await?;
                Ok(Charged::Declined { reason })
            }
            status => Err(unknown(status)),
        }
    }

    async fn refund(&self, order: &OrderId, amount: Money, key: &str) -> Result<Refunded, Outage> {
        let body = RefundRequest { order_id: order, amount };
        let request = self.client.post(format!("{}/refunds", self.base)).header("Idempotency-Key", key).json(&body);
        let response = send(request).await?;
        match response.status() {
            status if status.is_success() => Ok(Refunded::Done),
            StatusCode::CONFLICT => Ok(Refunded::NothingCaptured),
            status => Err(unknown(status)),
        }
    }

    async fn find(&self, order: &OrderId) -> Result<Vec<Capture>, Outage> {
        let request = self.client.get(format!("{}/charges", self.base)).query(&[("orderId", &**order)]);
        let response = send(request).await?;
        match response.status() {
            status if status.is_success() => Ok(read::<ChargesAnswer>(response).await?.charges),
            status => Err(unknown(status)),
        }
    }
}

/// Whether a URL is of this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn send(request: RequestBuilder) -> Result<Response, Outage> {
    let (client, request) = request.build_split();
    let request = request
        .map_err(|error| Outage::new(format!("cannot build the request: {}", chain(&error))).with_source(error))?;
    let (method, server) = (request.method().clone(), request.url().host_str().unwrap_or_default().to_owned());
    let started = Instant::now();
    let result = client.execute(request).await;
    let (status, error) = match &result {
        Ok(response) => (response.status().as_str().to_owned(), ""),
        Err(error) if error.is_timeout() => (String::new(), "timeout"),
        Err(error) if error.is_connect() => (String::new(), "connect"),
        Err(_) => (String::new(), "broken_off"),
    };
    record(&HTTP_CLIENT_DURATION, &[method.as_str(), &server, &status, error], started.elapsed().as_secs_f64());
    result.map_err(|error| Outage::new(format!("the gateway did not answer: {}", chain(&error))).with_source(error))
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Outage> {
    let body =
        response.bytes().await.map_err(|error| Outage::new(format!("the gateway's answer ended early: {error}")))?;
    serde_json::from_slice(&body)
        .map_err(|error| Outage::new(format!("the gateway's answer cannot be parsed: {error}")))
}

fn unknown(status: StatusCode) -> Outage {
    Outage::new(format!("the gateway answered {status}: outcome unknown"))
}

/// An error with its causes: reqwest's own text says only that sending failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gateway_elsewhere_may_be_reached_by_a_proxy() {
        for (url, here) in [
            ("http://127.0.0.1:8090", true),
            ("http://127.8.0.1", true),
            ("http://LOCALHOST:8090", true),
            ("http://[::1]:8090", true),
            ("http://gateway:8090", false),
            ("https://localhost.example.com", false),
            ("http://10.0.0.7", false),
        ] {
            assert_eq!(is_here(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}
