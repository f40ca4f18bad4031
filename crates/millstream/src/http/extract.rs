//! What routes are given beside the body: the caller and the query; each refused with what would be right.

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::authenticate::Authenticated;
use super::problem::Problem;
use crate::commands::Caller;
use crate::ids::{Id, Timestamp};

const CORRELATION: &str = "x-correlation-id";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";

/// The request's correlation id, once the shell has found or made it.
#[derive(Clone)]
pub(super) struct Correlation(pub(super) String);

/// The value of a header that must not come twice.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, &'static str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.as_bytes());
    if values.next().is_some() { Err("is there twice: send one") } else { Ok(first) }
}

/// The caller's correlation id; `None` if it sent none.
pub(super) fn correlation(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |why| Problem::bad_request(format!("the header X-Correlation-Id {why}"));
    let Some(value) = single(headers, CORRELATION).map_err(refuse)? else { return Ok(None) };
    let text = std::str::from_utf8(value)
        .ok()
        .filter(|text| (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control));
    text.map(|text| Some(text.into())).ok_or_else(|| refuse("must be 1 to 128 printable characters"))
}

pub(super) fn fresh_correlation() -> String {
    Id::random(Timestamp::system()).to_string()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |why| Problem::bad_request(format!("the header Idempotency-Key {why}"));
    let Some(value) = single(headers, IDEMPOTENCY_KEY).map_err(refuse)? else { return Ok(None) };
    let fine = (1..=255).contains(&value.len()) && value.iter().all(|byte| (b' '..=b'~').contains(byte));
    let text = std::str::from_utf8(value).ok().filter(|_| fine);
    text.map(|text| Some(text.into())).ok_or_else(|| refuse("must be 1 to 255 printable ASCII characters"))
}

/// `traceparent`, if it is well-formed; otherwise W3C Trace Context says to go on without.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return None };
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let set = |text: &str| text.bytes().any(|byte| byte != b'0');
    let fine = hex(version, 2) && version != "ff" && hex(trace, 32) && set(trace) && hex(span, 16) && set(span);
    (fine && hex(flags, 2)).then(|| text.into())
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let correlation = match parts.extensions.get::<Correlation>() {
            Some(Correlation(id)) => id.clone(),
            None => correlation(&parts.headers)?.unwrap_or_else(fresh_correlation),
        };
        let route = parts.extensions.get::<MatchedPath>().map_or(parts.uri.path(), MatchedPath::as_str);
        Ok(Self {
            name: parts.extensions.get::<Authenticated>().map(|Authenticated(name)| name.clone()),
            correlation,
            traceparent: traceparent(&parts.headers),
            idempotency_key: idempotency_key(&parts.headers)?,
            method: parts.method.to_string(),
            route: route.into(),
        })
    }
}

/// The query string. A repeated parameter, a missing or a wrong one is refused by name.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            let named = ["missing field `", "unknown field `", "duplicate field `"];
            let quoted = named.iter().find_map(|start| text.strip_prefix(start)?.split_once('`'));
            let field = quoted.map(|(field, _)| field).or_else(|| text.split_once(": ").map(|(field, _)| field));
            let field = field.unwrap_or("query");
            Problem::bad_request(format!("the query string is invalid: {text}")).at(field, text)
        })
    }
}
