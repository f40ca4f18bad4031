//! What routes are given: the caller, the body, the query; each refused with what would be right.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::Segment;

use super::problem::Problem;
use crate::commands::Caller;
use crate::ids::{Id, Timestamp};

/// How large a body may be in bytes.
pub const BODY_LIMIT: usize = 256 * 1024;
/// How much of a body over the limit is still read: a client that is cut off while it sends does not see the answer.
const BODY_DISCARD: usize = 8 * 1024 * 1024;
/// How long a body may take to arrive: a stalled client must not hold its place among the requests in flight for ever.
const BODY_TIME: Duration = Duration::from_secs(10);

const CORRELATION: &str = "x-correlation-id";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";

/// The request's correlation id, once the shell has found or made it.
#[derive(Clone)]
pub(super) struct Correlation(pub(super) String);

/// The value of a header that must not come twice.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, &'static str> {
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
            correlation,
            traceparent: traceparent(&parts.headers),
            idempotency_key: idempotency_key(&parts.headers)?,
            method: parts.method.to_string(),
            route: route.into(),
        })
    }
}

/// A body that is a JSON object. It is read from its text, never through a tree of values, so a type that wants a number's exact digits gets
/// them.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let bytes = tokio::time::timeout(BODY_TIME, read(request)).await.unwrap_or_else(|_| {
            let detail = format!("the body did not arrive within {} seconds", BODY_TIME.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        })?;
        parse(&bytes).map(Self)
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |have: &str| {
        let detail = format!("{have}: send the body as JSON with Content-Type: application/json");
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
    };
    let Some(value) = headers.get(CONTENT_TYPE) else { return refuse("there is no Content-Type") };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let charset = |part: &str| part.strip_prefix("charset=").is_none_or(|charset| charset.trim_matches('"') == "utf-8");
    if parts.next() != Some("application/json") {
        return refuse(&format!("the Content-Type is `{}`", text.escape_default()));
    }
    if parts.all(charset) { Ok(()) } else { refuse("the charset is not UTF-8") }
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body is larger than the limit of {} KiB ({BODY_LIMIT} bytes)", BODY_LIMIT / 1024);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_DISCARD) {
        return Err(too_large());
    }
    let mut chunks = request.into_body().into_data_stream();
    let mut body = Vec::with_capacity(announced.unwrap_or_default().min(BODY_LIMIT));
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("the body broke off before its end"))?;
        length += chunk.len();
        if length <= BODY_LIMIT {
            body.extend_from_slice(&chunk);
        } else if length > BODY_DISCARD {
            break;
        }
    }
    if length > BODY_LIMIT { Err(too_large()) } else { Ok(body.into()) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::bad_request("the body is empty: send a JSON object"));
    }
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        // Serde would take an array for an object, its fields by position.
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| unreadable("", &error))?;
        return Err(
            Problem::bad_request("the body is JSON, but no object: send `{...}`").at("body", "expected an object")
        );
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value =
        serde_path_to_error::deserialize(&mut json).map_err(|error| unreadable(&path(error.path()), error.inner()))?;
    json.end().map_err(|error| unreadable("", &error))?;
    Ok(value)
}

/// A path as people write it: `items[2].quantity`; empty for the whole body.
fn path(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |mut text, segment| {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                text.push_str(if text.is_empty() { "" } else { "." });
                text.push_str(key);
            }
            // A number that is read from its text ends in a segment without a name.
            Segment::Unknown => {}
        }
        text
    })
}

fn unreadable(path: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = in_plain_words(text.strip_suffix(place.as_str()).unwrap_or(&text));
    let dot = if path.is_empty() { "" } else { "." };
    let field = match message.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        Some((field, _)) => format!("{path}{dot}{field}"),
        None if path.is_empty() => "body".to_owned(),
        None => path.to_owned(),
    };
    let what = if error.is_data() { "the body does not fit" } else { "the body is not JSON" };
    let (line, column) = (error.line(), error.column());
    Problem::bad_request(format!("{what}: `{field}`: {message} (line {line}, column {column})")).at(field, message)
}

/// Serde's messages name Rust types; callers know JSON's.
fn in_plain_words(message: &str) -> String {
    let Some((found, expected)) = message.split_once(", expected ") else { return message.into() };
    let (first, _) = expected.split_once(' ').unwrap_or((expected, ""));
    let plain = match first {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "struct" => "an object",
        _ => match expected {
            "a map" => "an object",
            "a sequence" => "an array",
            other => other,
        },
    };
    format!("{found}, expected {plain}")
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
            Problem::bad_request(format!("the query string does not fit: {text}")).at(field, text)
        })
    }
}
