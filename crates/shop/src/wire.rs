//! The services' JSON as a client sees it, and their lists read page by page.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use contracts::Money;
use millstream::Timestamp;
use millstream::broker::inbox_prefix;
use millstream::config::NatsUrl;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// An order as the orders service shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) items: Vec<Line>,
    pub(crate) total_amount: Money,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
}

/// A line of an order or a reservation.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) product_id: String,
    pub(crate) quantity: i64,
}

/// A product as the inventory service shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Product {
    pub(crate) product_id: String,
    pub(crate) initial: i64,
    pub(crate) reserved: i64,
    pub(crate) sold: i64,
    pub(crate) available: i64,
}

/// A service's address.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) http: reqwest::Client,
    base: String,
}

/// How many items of a list are asked for at once.
const PAGE: usize = 1000;

/// A part of a list, and the cursor of the next one unless this is the last.
pub(crate) type Page<T> = (Vec<T>, Option<String>);

impl Api {
    pub(crate) fn new(http: &reqwest::Client, base: &str) -> Self {
        Self { http: http.clone(), base: base.trim_end_matches('/').to_owned() }
    }

    pub(crate) fn url(&self, route: &str) -> String {
        format!("{}{route}", self.base)
    }

    /// One page of the list `field` of a route; `route` may have a query already.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        route: &str,
        field: &str,
        cursor: Option<&str>,
    ) -> anyhow::Result<Page<T>> {
        let url = self.url(route);
        let mut request = self.http.get(&url).query(&[("limit", PAGE.to_string())]);
        if let Some(cursor) = cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let body = body(request, &url).await?;
        let mut fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(&body).with_context(|| format!("the answer of {url} is not a JSON object"))?;
        let items = fields.remove(field).with_context(|| format!("the answer of {url} has no `{field}`"))?;
        let items =
            serde_json::from_str(items.get()).with_context(|| format!("`{field}` of {url} is not as expected"))?;
        let next = fields.remove("nextCursor").map_or(Ok(None), |next| serde_json::from_str(next.get()));
        Ok((items, next.with_context(|| format!("`nextCursor` of {url} is not a string"))?))
    }

    /// What a route answers.
    pub(crate) async fn object<T: DeserializeOwned>(&self, route: &str) -> anyhow::Result<T> {
        let url = self.url(route);
        let body = body(self.http.get(&url), &url).await?;
        serde_json::from_slice(&body).with_context(|| format!("the answer of {url} is not as expected"))
    }

    /// A whole list.
    pub(crate) async fn list<T: DeserializeOwned>(&self, route: &str, field: &str) -> anyhow::Result<Vec<T>> {
        let (mut all, mut next) = self.page(route, field, None).await?;
        while let Some(cursor) = next {
            let (items, after) = self.page(route, field, Some(&cursor)).await?;
            if after.as_ref() == Some(&cursor) {
                bail!("{} repeats the cursor {cursor}", self.url(route));
            }
            all.extend(items);
            next = after;
        }
        Ok(all)
    }
}

/// The body of an answer that is a success; `url` is for the error.
async fn body(request: reqwest::RequestBuilder, url: &str) -> anyhow::Result<Vec<u8>> {
    let answer = request.send().await.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(reqwest::Error::without_url);
    let body = body.with_context(|| format!("{url} ended its answer early"))?;
    if !status.is_success() {
        bail!("{url} answered {status}: {}", excerpt(&body));
    }
    Ok(body.into())
}

/// A client for the services: no answer within ten seconds is none. A proxy of the environment is for other hosts: the parts of
/// the shop reach each other without it.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    orders_client(None)
}

/// A client for the orders service alone, with the key that it asks for: the others are not to learn it.
pub(crate) fn orders_client(key: Option<&SecretString>) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().timeout(Duration::from_secs(10)).connect_timeout(Duration::from_secs(2));
    let mut headers = HeaderMap::new();
    if let Some(key) = key.map(ExposeSecret::expose_secret).filter(|key| !key.is_empty()) {
        let value = HeaderValue::try_from(format!("Bearer {key}"));
        let mut value = value.context("--orders-api-key (ORDERS_API_KEY) has characters that no header may have")?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let builder = builder.default_headers(headers);
    builder.tcp_nodelay(true).no_proxy().build().context("cannot create an HTTP client")
}

/// A connection to the broker. The URL may hold a password, so no error repeats it.
pub(crate) async fn broker(url: &str) -> anyhow::Result<async_nats::Client> {
    let refused = "cannot connect to the broker (--nats-url, NATS_URL)";
    let url = NatsUrl::read(url).map_err(anyhow::Error::msg).context(refused)?;
    let options = url.authenticate(async_nats::ConnectOptions::new()).connection_timeout(Duration::from_secs(2));
    // A private inbox prefix, so that no other user can read the answers.
    let options = options.custom_inbox_prefix(inbox_prefix("check"));
    options.connect(url.servers()).await.context(refused)
}

/// The beginning of an answer, for an error message.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if text.is_empty() { "(nothing)".into() } else { text.chars().take(300).collect() }
}

/// What amounts add up to; beyond the largest amount there is, that one.
pub(crate) fn total(amounts: impl Iterator<Item = Money>) -> Money {
    amounts.fold(Money::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(Money::MAX))
}
