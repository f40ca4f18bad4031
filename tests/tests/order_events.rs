//! `GET /orders/{id}/events`: what becomes of an order, as server-sent events.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millstream::engine::timing::Timing;
use millstream::testing::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Apart, Caller, SOON, line, order_of, timing};

/// An open answer.
struct Events {
    answer: reqwest::Response,
    read: String,
}

#[derive(Debug, PartialEq)]
struct Told {
    name: String,
    id: u64,
    data: Value,
}

impl Events {
    async fn ask(app: &Caller, id: &str, seen: Option<&str>) -> reqwest::Response {
        // Without a time-out for the whole answer, as the caller's client has.
        let request = reqwest::Client::new().get(format!("{}/orders/{id}/events", app.urls.orders));
        let request = seen.into_iter().fold(request, |request, seen| request.header("Last-Event-ID", seen));
        request.send().await.unwrap()
    }

    async fn of(app: &Caller, id: &str, seen: Option<&str>) -> Self {
        let answer = Self::ask(app, id, seen).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, read: String::new() }
    }

    /// The next event; `None` at the end. Comments and what only sets the time to come again are skipped.
    async fn next(&mut self) -> Option<Told> {
        // Comments come all the time, so it is the whole that has a limit.
        tokio::time::timeout(SOON, self.read_on()).await.expect("an event, or the end")
    }

    async fn read_on(&mut self) -> Option<Told> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let (Some(name), Some(id), Some(data)) = (field("event: "), field("id: "), field("data: ")) {
                    let (id, data) = (id.parse().unwrap(), serde_json::from_str(&data).unwrap());
                    return Some(Told { name, id, data });
                }
                assert!(block == "retry: 1000" || block.starts_with(':'), "{block}");
            }
            match self.answer.chunk().await.unwrap() {
                Some(chunk) => self.read.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => {
                    assert_eq!(self.read, "", "the answer ends with a whole event");
                    return None;
                }
            }
        }
    }

    /// The next event, which is of this status.
    async fn status(&mut self, status: &str) -> Told {
        let told = self.next().await.unwrap();
        assert_eq!((told.name.as_str(), told.data["status"].as_str()), ("status", Some(status)), "{told:?}");
        told
    }
}

fn a_mug() -> String {
    order_of("ada", &[line("mug", 1, 1000)])
}

/// A shop whose gateway is down and whose inventory is not there yet.
async fn shop() -> Apart {
    shop_with(timing()).await
}

async fn shop_with(timing: Timing) -> Apart {
    let mut shop = Apart::new().await;
    shop.timing = timing;
    for part in ["gateway", "orders", "payments", "notifications", "analytics"] {
        shop.start(part).await;
    }
    shop.faults(json!({ "down": true })).await;
    // It waits for the stream of inventory, whose owner is not there; orders are taken all the same.
    let waits = async || shop.ready("orders").await.1["waitingFor"].to_string().contains("INVENTORY");
    eventually("orders to wait for inventory", SOON, waits).await;
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statuses_of_an_order_arrive_in_order_as_get_shows_them_and_end_with_it() {
    let mut shop = shop().await;
    shop.start("inventory").await;
    shop.all_ready().await;
    shop.stock("mug", 10).await;
    shop.stop("inventory").await;
    let id = shop.place(a_mug()).await;
    let mut events = Events::of(&shop, &id, None).await;
    let pending = events.status("PENDING").await;
    assert_eq!(pending.data, shop.order(&id).await);
    shop.start("inventory").await;
    let reserved = events.status("RESERVED").await;
    shop.faults(json!({})).await;
    let confirmed = events.status("CONFIRMED").await;
    assert_eq!(confirmed.data, shop.order(&id).await);
    assert!(pending.id < reserved.id && reserved.id < confirmed.id);
    assert_eq!(events.next().await, None);
    shop.all_ready().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_commits_is_told_also_while_the_broker_is_away() {
    let mut shop = shop().await;
    shop.start("orders-2").await;
    let id = shop.place(a_mug()).await;
    let mut events = Events::of(&shop.second(), &id, None).await;
    events.status("PENDING").await;
    shop.broker.kill();
    assert_eq!(shop.cancel(&id).await.status, 202);
    let cancelled = events.status("CANCELLED").await;
    assert_eq!(cancelled.data["reason"], "CUSTOMER");
    assert_eq!(events.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_again_is_told_nothing_twice_and_after_the_end_not_to_come() {
    let shop = shop().await;
    let id = shop.place(a_mug()).await;
    let pending = Events::of(&shop, &id, None).await.status("PENDING").await;
    let mut again = Events::of(&shop, &id, Some(&pending.id.to_string())).await;
    assert_eq!(shop.cancel(&id).await.status, 202);
    let cancelled = again.status("CANCELLED").await;
    assert_eq!(again.next().await, None);
    let over = Events::ask(&shop, &id, Some(&cancelled.id.to_string())).await;
    assert_eq!((over.status(), over.text().await.unwrap().as_str()), (StatusCode::NO_CONTENT, ""));
    // Who has seen something else, or nothing, is told how it stands.
    for seen in [None, Some("seen"), Some("4000"), Some("-1"), Some(&*pending.id.to_string())] {
        let mut events = Events::of(&shop, &id, seen).await;
        assert_eq!(events.next().await.as_ref(), Some(&cancelled), "{seen:?}");
        assert_eq!(events.next().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_order_and_one_watcher_too_many_are_refused_as_problems() {
    let shop = shop_with(Timing { watch_limit: 2, ..timing() }).await;
    for unknown in ["no-id", "01890000-0000-8000-8000-000000000000"] {
        let answer = shop.get(format!("{}/orders/{unknown}/events", shop.urls.orders)).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (404, "application/problem+json"));
        assert!(answer.json()["detail"].as_str().unwrap().contains(unknown), "{answer:?}");
    }
    let id = shop.place(a_mug()).await;
    let open = [Events::of(&shop, &id, None).await, Events::of(&shop, &id, None).await];
    let refused = shop.get(format!("{}/orders/{id}/events", shop.urls.orders)).await;
    assert_eq!((refused.status.as_u16(), refused.header("content-type")), (503, "application/problem+json"));
    assert!(refused.text.contains("limit of 2 concurrent watches"), "{refused:?}");
    drop(open);
    let again = async || Events::ask(&shop, &id, None).await.status() == 200;
    eventually("places to be free again", SOON, again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_hold_up_no_stop_and_do_not_count_as_slow_requests() {
    let mut shop = shop().await;
    let id = shop.place(a_mug()).await;
    let mut open = join_all((0..100).map(|_| Events::of(&shop, &id, None))).await;
    for events in &mut open {
        events.status("PENDING").await;
    }
    // That much longer than an answer takes the streams stay open, at the least.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = shop.metrics("orders").await.text;
    let value = |series: &str| -> f64 {
        let line =
            metrics.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // The request that asks for the metrics is one itself.
    assert!(value(r#"http_server_active_requests{http_request_method="GET"}"#) <= 1.0, "{metrics}");
    let labels = r#"{http_request_method="GET",http_route="/orders/{id}/events",http_response_status_code="200"}"#;
    assert_eq!(value(&format!("http_server_request_duration_seconds_count{labels}")), 100.0);
    assert!(value(&format!("http_server_request_duration_seconds_sum{labels}")) < 100.0, "{metrics}");

    let began = Instant::now();
    shop.stop("orders").await;
    let took = began.elapsed();
    for events in &mut open {
        assert_eq!(events.next().await, None, "a stream ends with whole events");
    }
    println!("stopped with 100 open streams in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
