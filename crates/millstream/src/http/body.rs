//! The body that a route is given, refused with what would be right.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::Segment;

use super::extract::single;
use super::problem::Problem;

/// How large a body may be in bytes.
pub const BODY_LIMIT: usize = 256 * 1024;
/// How much of a body over the limit is still read: a client that is cut off while it sends does not see the answer.
const BODY_DISCARD: usize = 8 * 1024 * 1024;
/// How long a body may take to arrive: a stalled client must not hold its place among the requests in flight for ever.
const BODY_TIME: Duration = Duration::from_secs(10);
/// What clients call UTF-8, and what is a part of it.
const CHARSETS: [&str; 4] = ["utf-8", "utf8", "us-ascii", "ascii"];

/// A body that is a JSON object. It is read from its text, never through a tree of values, so a type that wants a number's exact digits gets
/// them. A type with `#[serde(deny_unknown_fields)]` has members that it does not know refused by name, together with those that it does:
/// a member that is dropped without a word gives the request another meaning than its sender's.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        check_coding(request.headers())?;
        check_content_type(request.headers())?;
        Ok(Self(parse(&in_time(request).await?)?))
    }
}

/// A route that takes no body: an empty one or `{}`. Whatever a caller wants to say with more would be dropped.
#[derive(Clone, Copy, Debug)]
pub struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Sync> FromRequest<S> for NoBody {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        check_coding(request.headers())?;
        let kind = check_content_type(request.headers());
        let bytes = in_time(request).await?;
        if !bytes.is_empty() {
            kind?;
            parse::<Nothing>(&bytes)?;
        }
        Ok(Self)
    }
}

/// Why a body is not taken.
#[derive(Clone, Debug)]
pub struct Refused {
    problem: Problem,
    /// Whether it is the content coding; only then may the answer name those that there are.
    coding: bool,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, coding: false }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if self.coding {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

fn check_coding(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").trim().to_ascii_lowercase();
    let other = headers.get_all(CONTENT_ENCODING).iter().map(text).find(|coding| coding != "identity");
    let Some(coding) = other else { return Ok(()) };
    let detail = format!("the Content-Encoding is `{}`: send the body as it is", coding.escape_default());
    Err(Refused { problem: Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail), coding: true })
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |have: &str| {
        let detail = format!("{have}: send the body as JSON with Content-Type: application/json");
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
    };
    let value = single(headers, CONTENT_TYPE.as_str());
    let value = value.map_err(|why| Problem::bad_request(format!("the header Content-Type {why}")))?;
    let Some(value) = value else { return refuse("there is no Content-Type") };
    let text = std::str::from_utf8(value).unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let other = |part: &str| {
        let charset = part.strip_prefix("charset=")?.trim_matches('"');
        (!CHARSETS.contains(&charset)).then(|| charset.escape_default().to_string())
    };
    if parts.next() != Some("application/json") {
        return refuse(&format!("the Content-Type is `{}`", text.escape_default()));
    }
    match parts.find_map(other) {
        Some(charset) => refuse(&format!("the charset is `{charset}`, not UTF-8")),
        None => Ok(()),
    }
}

async fn in_time(request: Request) -> Result<Bytes, Problem> {
    tokio::time::timeout(BODY_TIME, read(request)).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} seconds", BODY_TIME.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
    })
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
        let chunk = chunk.map_err(|_| Problem::bad_request("the body ended before it was complete"))?;
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
    // JSON has no byte order mark, and its readers may ignore one.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.starts_with(b"\xFE\xFF") || bytes.starts_with(b"\xFF\xFE") {
        let detail = "the body begins with the byte order mark of UTF-16: send it in UTF-8";
        return Err(Problem::bad_request(detail).at("body", "expected UTF-8"));
    }
    if bytes.is_empty() {
        return Err(Problem::bad_request("the body is empty: send a JSON object"));
    }
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        // Serde would take an array for an object, its fields by position.
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| unreadable("", &error))?;
        return Err(
            Problem::bad_request("the body is JSON, but not an object: send `{...}`").at("body", "expected an object")
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
