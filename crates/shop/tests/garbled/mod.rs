//! Random requests to a running shop. Whatever is sent, it is taken whole or refused in the 4xx with a problem, nothing of an order
//! is there that was not answered with 201, nothing panics, and memory does not grow. `MILLSTREAM_GARBLED` says how many are sent,
//! `MILLSTREAM_SEED` which.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use millstream::operator::exact::Exact;
use millstream::testing::Garble;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Request, Url};
use serde_json::Value;

use crate::drills::{Drill, Running};

/// Requests that are in flight at once.
const AT_ONCE: usize = 8;
/// What memory may grow by once all code has run: a client that leaks a KiB a request would be seen.
const GROWTH_KIB: u64 = 48 * 1024;

const ORDER: &str = r#"{"userId":"ada","items":[{"productId":"mug","quantity":2,"price":12.00},{"productId":"tea","quantity":1,"price":0.50}],"totalAmount":24.50}"#;
const WAKE: &str = r#"{"wake":{"service":"orders","collection":"orders","document":"x","kind":"deadline","opened":"2026-01-31T12:00:00Z","at":"2026-01-31T12:00:00Z","attempt":0,"lease":null,"generation":1,"cancellable":true,"correlation":"c"},"act":{"action":"move","to":"2026-01-31T12:00:00Z"},"who":"ada","why":"a test"}"#;
const FILTER: &str = r#"{"filter":{"service":"orders","event":"orders.created","id":"01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01","before":"2026-01-31T12:00:00Z","all":true},"dryRun":true,"force":false,"who":"ada","why":"a test"}"#;
const EDIT: &str =
    r#"{"service":"orders","id":"01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01","payload":"{}","who":"ada","why":"a test"}"#;
const REVEAL: &str = r#"{"stream":"ORDERS","sequence":1,"who":"ada","why":"a test"}"#;

/// A request that is right, to be garbled: whose it is, how often it comes, method, path, body.
const SEEDS: [(&str, u64, &str, &str, &str); 19] = [
    ("orders", 24, "POST", "/orders", ORDER),
    ("orders", 6, "GET", "/orders?limit=10&cursor=01932f6e-7a00~0a1b2c3d&status=CONFIRMED&userId=ada", ""),
    ("orders", 3, "GET", "/orders/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01", ""),
    ("orders", 2, "GET", "/orders/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f02/events", ""),
    ("orders", 3, "POST", "/orders/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01/cancel", "{}"),
    ("inventory", 4, "PUT", "/stock/garbled", r#"{"initial":100}"#),
    ("inventory", 2, "GET", "/stock?limit=10&cursor=mug~0a1b2c3d", ""),
    ("inventory", 1, "GET", "/reservations/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01", ""),
    ("payments", 2, "GET", "/payments?limit=10&status=CAPTURED", ""),
    ("payments", 1, "GET", "/payments/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01", ""),
    ("notifications", 2, "GET", "/notifications?orderId=01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01&limit=5", ""),
    ("console", 3, "GET", "/api/dead/list?service=orders&event=orders.created&all=true&offset=0&limit=10", ""),
    ("console", 2, "GET", "/api/dead/orders/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01", ""),
    ("console", 1, "GET", "/api/trace/01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01", ""),
    ("console", 2, "POST", "/api/dead/redrive", FILTER),
    ("console", 2, "POST", "/api/dead/discard", FILTER),
    ("console", 2, "POST", "/api/dead/edit", EDIT),
    ("console", 2, "POST", "/api/wakes", WAKE),
    ("console", 3, "POST", "/api/reveal", REVEAL),
];

const HEADERS: [(&str, &str); 9] = [
    ("content-type", "application/json"),
    ("content-type", "application/json; charset=utf-8"),
    ("content-encoding", "gzip"),
    ("idempotency-key", "a key of the caller"),
    ("x-correlation-id", "a request of the caller"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("last-event-id", "7"),
    ("accept", "text/event-stream"),
    ("x-forwarded-for", "127.0.0.1"),
];

/// What may stand in the place of any value, and is JSON.
const VALUES: [&str; 22] = [
    "null",
    "true",
    "-1",
    "-0",
    "0",
    "1.5",
    "1e400",
    "0.1234567890123456789",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345.67",
    "\"\"",
    "\"a b\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"../..\"",
    "\"*\"",
    "\"$JS.API.>\"",
    "\"ORDERS.x\\r\\nPUB a 0\"",
    "\"9999-12-31T23:59:59Z\"",
    "\"ffffffff-ffff-7fff-bfff-ffffffffffff\"",
    "[[{}]]",
];

/// JSON with one to three values replaced: it reaches what stands behind the parser.
fn garbled_json(dice: &mut Garble, body: &str) -> Vec<u8> {
    let Ok(mut json) = Exact::read(body.as_bytes()) else { return body.into() };
    for _ in 0..=dice.below(3) {
        let mut places = vec![];
        collect(&json, String::new(), &mut places);
        let value = dice.pick(&VALUES);
        json.set(&dice.pick(&places), Exact::read(value.as_bytes()).unwrap_or_else(|_| Exact::text(value)));
    }
    json.to_string().into()
}

/// The pointers to all values of a JSON.
fn collect(json: &Exact, at: String, places: &mut Vec<String>) {
    match json {
        Exact::Object(members) => {
            members.iter().for_each(|(name, value)| collect(value, format!("{at}/{name}"), places))
        }
        Exact::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| collect(value, format!("{at}/{index}"), places));
        }
        Exact::Leaf(_) => {}
    }
    places.push(at);
}

/// A path with changes behind its first segment: what no URL may have is percent-encoded.
fn garbled_path(dice: &mut Garble, path: &str) -> String {
    let behind = path[1..].find(['/', '?']).map_or(path.len(), |at| at + 2);
    let (first, rest) = path.split_at(behind);
    let mut text = first.to_owned();
    for byte in dice.bytes(rest.as_bytes()).into_iter().take(6000) {
        match byte {
            b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => text += &format!("%{byte:02X}"),
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

/// A request to be sent, and how to name it where it fails.
fn garbled(dice: &mut Garble, running: &Running) -> (Request, String) {
    let weights: u64 = SEEDS.iter().map(|(_, weight, ..)| weight).sum();
    let mut place = dice.below(weights);
    let seed = SEEDS.iter().find(|(_, weight, ..)| {
        let here = place < *weight;
        place = place.wrapping_sub(*weight);
        here
    });
    let (service, _, method, path, body) = *seed.unwrap();
    // One part in two stays right, so that what is behind it is reached, too.
    let path = if dice.below(2) == 0 { garbled_path(dice, path) } else { path.to_owned() };
    let body = match dice.below(8) {
        0 => body.into(),
        1..=3 => garbled_json(dice, body),
        _ => dice.bytes(body.as_bytes()),
    };
    let text = format!("{}{path}", running.url(service));
    let url = Url::parse(&text).unwrap_or_else(|_| running.url(service).parse().unwrap());
    let mut request = Request::new(method.parse::<Method>().unwrap(), url);
    if dice.below(40) == 0 {
        *request.method_mut() = dice.pick(&[Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::HEAD]);
    }
    let headers = request.headers_mut();
    headers.insert("x-millstream", HeaderValue::from_static("1"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if dice.below(3) == 0 {
        let (name, value) = dice.pick(&HEADERS);
        let value: Vec<u8> =
            dice.bytes(value.as_bytes()).into_iter().filter(|byte| *byte >= b' ' && *byte != 127).take(2000).collect();
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
    }
    let named = format!("{} {text} {:?} {:?}", request.method(), request.headers(), String::from_utf8_lossy(&body));
    if method != "GET" {
        *request.body_mut() = Some(body.into());
    }
    (request, named)
}

/// What is wrong with an answer; the id of the order that it says was placed.
async fn judged(answer: reqwest::Response, is_head: bool) -> Result<Option<String>, String> {
    let (status, url) = (answer.status(), answer.url().clone());
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let correlation = answer.headers().get("x-correlation-id").map(|id| id.as_bytes().to_vec());
    let text = answer.text().await.map_err(|error| format!("{status}, and no body: {error}"))?;
    let json = || serde_json::from_str::<Value>(&text).map_err(|error| format!("{status} {text}: {error}"));
    if status.is_success() {
        return Ok(match (status.as_u16(), url.path()) {
            (201, "/orders") => Some(json()?["id"].as_str().unwrap_or_default().to_owned()),
            _ => None,
        });
    }
    // What is right, and comes while the machine has too much to do.
    if status == 503 && text.contains("nothing was done") {
        return Ok(None);
    }
    if !status.is_client_error() || kind != "application/problem+json" {
        return Err(format!("{status} {kind} {text}"));
    }
    if is_head {
        return Ok(None);
    }
    let problem = json()?;
    let said = problem["status"] == status.as_u16()
        && problem["detail"].as_str().is_some_and(|detail| !detail.is_empty())
        && problem["correlationId"].as_str().map(|id| id.as_bytes().to_vec()) == correlation
        && correlation.is_some();
    if said { Ok(None) } else { Err(format!("{status} {correlation:?} {text}")) }
}

/// Sends so many requests, and gives the ids of the orders that were placed and what was wrong.
async fn send(running: &Running, dice: &mut Garble, count: u64) -> (BTreeSet<String>, Vec<String>) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
    let requests = (0..count).map(|_| garbled(dice, running));
    let sent = futures_util::stream::iter(requests).map(|(request, named)| {
        let client = client.clone();
        async move {
            let is_head = request.method() == Method::HEAD;
            let answer = client.execute(request).await.map_err(|error| format!("{named}: no answer: {error:?}"))?;
            judged(answer, is_head).await.map_err(|wrong| format!("{named}: {wrong}"))
        }
    });
    let mut sent = sent.buffer_unordered(AT_ONCE);
    let (mut placed, mut wrong) = (BTreeSet::new(), vec![]);
    while let Some(done) = sent.next().await {
        match done {
            Ok(id) => placed.extend(id),
            Err(what) => wrong.push(what),
        }
    }
    (placed, wrong)
}

/// Bytes that are no HTTP, or hardly: the answer is a refusal, or none.
fn send_noise(running: &Running, dice: &mut Garble, count: u64) {
    let head = format!("POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{ORDER}", ORDER.len());
    for _ in 0..count {
        let bytes = dice.bytes(head.as_bytes());
        let service = dice.pick(&["orders", "payments", "console"]);
        let mut stream = TcpStream::connect(running.url(service).trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = stream.write_all(&bytes);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        let status = String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or("none").to_owned();
        let refused = status == "none" || status.starts_with('4') || status.starts_with('2');
        assert!(refused, "{status}: {:?}", String::from_utf8_lossy(&bytes));
    }
}

fn garble_a_shop(count: u64) {
    let drill = Drill::new();
    let running = drill.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut dice = Garble::from_env();
    let (began, half) = (Instant::now(), count / 2);
    let (mut placed, mut wrong) = runtime.block_on(send(&running, &mut dice, half));
    let warm = running.memory_kib();
    let (more, also) = runtime.block_on(send(&running, &mut dice, count - half));
    placed.extend(more);
    wrong.extend(also);
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), first(&wrong, 20));
    send_noise(&running, &mut dice, count / 20);
    let grown = running.memory_kib().saturating_sub(warm);
    println!(
        "{count} requests in {:.1?}, {} orders placed, memory grown by {grown} KiB",
        began.elapsed(),
        placed.len()
    );
    assert!(grown < GROWTH_KIB, "memory has grown from {warm} KiB by {grown} KiB");

    // What noise has placed was not read: its orders are among those of the database, and right like all others.
    let (table, holds) = running.check(&[], "120");
    assert!(holds, "{table}");
    let orders = rusqlite::Connection::open(drill.path("data/orders.db")).unwrap();
    let ids = orders.prepare("SELECT id FROM doc_orders").unwrap().query_map([], |row| row.get(0)).unwrap().collect();
    let ids: BTreeSet<String> = Result::unwrap(ids);
    assert!(placed.is_subset(&ids), "of {} orders {} are there", placed.len(), ids.len());
    let unasked: Vec<&String> = ids.difference(&placed).collect();
    assert!(unasked.len() as u64 <= count / 20, "placed without 201: {unasked:?}");
    running.kill();
    let log = fs::read_to_string(drill.path("data/logs/shop.log")).unwrap();
    let panics: Vec<String> = log.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect();
    assert!(panics.is_empty(), "{}", first(&panics, 5));
}

fn first(lines: &[String], most: usize) -> String {
    lines.iter().take(most).map(|line| line.chars().take(1500).collect::<String>() + "\n").collect()
}

#[test]
fn whatever_is_sent_to_a_shop_is_taken_whole_or_refused_by_name() {
    garble_a_shop(Garble::count(3000));
}

#[test]
#[ignore = "long"]
fn a_hundred_thousand_garbled_requests_leave_no_error_of_the_server_no_half_order_and_no_more_memory() {
    garble_a_shop(Garble::count(100_000));
}
