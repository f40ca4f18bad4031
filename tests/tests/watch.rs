//! The boards against the real thing: a Prometheus that scrapes the shop under load, and three incidents.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use boards::{OBSERVER, RATE, SERVICES, alerts, dashboards};
use millstream::testing::{eventually, skip};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::boards::{exprs, panels, queries};
use crate::harness::{Apart, Caller, SOON, line, order_of};

/// The scrape interval of the test; Grafana would make rates over four of them.
const SCRAPE: &str = "1s";
const WINDOW: &str = "5s";
/// The time within which an operator is to see an incident.
const SEEN: Duration = Duration::from_secs(30);

/// A Prometheus that scrapes the shop. It ends with the test.
struct Prometheus {
    url: String,
    http: reqwest::Client,
    _process: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one; `None` where there is none.
    async fn start(shop: &Apart) -> Option<Self> {
        let known = Command::new("prometheus").arg("--version").output().await;
        if known.is_err() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = String::new();
        for job in SERVICES.iter().copied().chain([OBSERVER]) {
            let address = shop.base(job).strip_prefix("http://").unwrap();
            jobs += &format!("  - {{ job_name: {job}, static_configs: [{{ targets: ['{address}'] }}] }}\n");
        }
        let rules = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
        let config = format!(
            "global: {{ scrape_interval: {SCRAPE}, scrape_timeout: {SCRAPE}, evaluation_interval: {SCRAPE} }}\nrule_files: ['{}']\nscrape_configs:\n{jobs}",
            rules.display()
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let prometheus = Self { url, http: reqwest::Client::new(), _process: process, _folder: folder };
        let scraped = async || prometheus.value("sum(up)").await == Some((SERVICES.len() + 1) as f64);
        eventually("a first scrape of everything", SOON, scraped).await;
        Some(prometheus)
    }

    /// What a query gives now: the values of its series.
    async fn values(&self, query: &str) -> Vec<f64> {
        let query = filled(query);
        let request = self.http.get(format!("{}/api/v1/query", self.url)).query(&[("query", &query)]);
        let Ok(answer) = request.send().await else { return vec![] };
        // While it starts it answers in plain words.
        let Ok(answer) = answer.json::<Value>().await else { return vec![] };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        series.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    async fn value(&self, query: &str) -> Option<f64> {
        self.values(query).await.first().copied()
    }

    /// The colours of a board's tiles.
    async fn tiles(&self, board: &Value) -> Vec<(String, String)> {
        let mut colors = vec![];
        for tile in panels(board).into_iter().filter(|panel| panel["type"] == "stat") {
            let value = self.value(exprs(tile)[0]).await;
            let steps = tile["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
            // As Grafana does: the last step that is not above the value.
            let step = value.map(|value| {
                steps.iter().rev().find(|step| step["value"].as_f64().is_none_or(|from| value >= from)).unwrap()
            });
            let color = step.map_or("no data", |step| step["color"].as_str().unwrap());
            colors.push((tile["title"].as_str().unwrap().to_owned(), color.to_owned()));
        }
        colors
    }

    async fn red(&self, board: &Value) -> BTreeSet<String> {
        let red = self.tiles(board).await.into_iter().filter(|(_, color)| color != "green" && color != "orange");
        red.map(|(title, color)| if color == "red" { title } else { format!("{title}: {color}") }).collect()
    }

    async fn all_green(&self, board: &Value) {
        let mut last = vec![];
        let green = async || {
            last = self.tiles(board).await;
            last.iter().all(|(_, color)| color == "green")
        };
        eventually("green tiles only", SOON, green).await;
    }

    /// Exactly these tiles turn red in time, and at no moment others.
    async fn turns_red(&self, board: &Value, tiles: &[&str]) {
        let expected: BTreeSet<String> = tiles.iter().map(|tile| (*tile).to_owned()).collect();
        let began = Instant::now();
        let mut red = BTreeSet::new();
        while red != expected {
            assert!(began.elapsed() < SEEN, "after {SEEN:?} these are red: {red:?}, and not {expected:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
            red = self.red(board).await;
            assert!(red.is_subset(&expected), "{red:?} are red, and only {expected:?} are to be");
        }
        println!("{expected:?} red after {:.1?}", began.elapsed());
    }
}

/// A query with Grafana's variables filled in.
fn filled(query: &str) -> String {
    query.replace(RATE, WINDOW).replace("$job", ".+").replace("$instance", ".+")
}

/// Customers who order all the while.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
}

impl Load {
    fn start(caller: Caller) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut placed = 0;
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                caller.place(order_of(&format!("user-{placed}"), &[line("mug", 1, 1000)])).await;
                placed += 1;
            }
            placed
        });
        Self { stop, task }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Queries that may give nothing while all is well, and why.
const EMPTY_WHEN_WELL: [(&str, &str); 4] = [
    ("Restarts", "nothing has started anew"),
    ("Releases", "nothing was deployed"),
    ("Alerts", "no alert fires"),
    ("Firing alerts", "no alert fires"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_query_has_an_answer_under_load_and_an_operator_sees_three_incidents_within_half_a_minute() {
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.start("console").await;
    let Some(prometheus) = Prometheus::start(&shop).await else {
        return skip(
            "boards and alerts against a real Prometheus",
            "there is no prometheus (Debian's package has the name)",
        );
    };
    shop.stock("mug", 1_000_000).await;
    let load = Load::start(shop.caller());
    let board = &dashboards()[0].1;
    prometheus.all_green(board).await;

    every_query_has_an_answer(&prometheus).await;

    // The gateway does not answer: charges wait, and with them the orders.
    shop.faults(json!({ "down": true })).await;
    prometheus.turns_red(board, &["Orders completed", "Completed within 2.5 s", "Oldest overdue payment"]).await;
    shop.faults(json!({ "down": false })).await;
    prometheus.all_green(board).await;

    // Inventory is stopped: its events wait, and with them the orders.
    shop.stop("inventory").await;
    prometheus
        .turns_red(board, &["Orders completed", "Completed within 2.5 s", "Oldest pending event", "Services down"])
        .await;
    shop.start("inventory").await;
    prometheus.all_green(board).await;

    // Somebody sends what is no event of ours: it is parked, and nobody waits.
    let wire = shop.wire().await;
    let mut headers = HeaderMap::new();
    headers.insert("ce-type", "orders.created.v1");
    wire.0.publish_with_headers("orders.created.0", headers, "{\"orderId\":7}".into()).await.unwrap().await.unwrap();
    prometheus.turns_red(board, &["Dead letters"]).await;
    let answer = shop.get(format!("{}/dead-letters?service=inventory&reason=schema", shop.urls.console)).await.json();
    assert_eq!((&answer[0]["event"], &answer[0]["stream"]), (&json!("orders.created"), &json!("ORDERS")), "{answer}");
    for stream in ["DLQ_INVENTORY", "DLQ_ANALYTICS"] {
        wire.0.get_stream(stream).await.unwrap().purge().await.unwrap();
    }
    prometheus.all_green(board).await;

    let placed = load.end().await;
    shop.all_ended(placed).await;
    shop.stop("console").await;
    shop.close().await;
}

async fn every_query_has_an_answer(prometheus: &Prometheus) {
    let mut silent = vec![];
    let mut all = queries();
    all.extend(alerts::recordings().into_iter().map(|recording| (recording.name.clone(), recording.name)));
    all.extend(alerts::recordings().into_iter().map(|recording| (recording.name, recording.expr)));
    // What `absent` says is nothing while all is well.
    let present = alerts::all().into_iter().filter(|alert| !alert.value.starts_with("absent("));
    all.extend(present.map(|alert| (alert.name.to_owned(), alert.value)));
    // Rules, and rates that need two scrapes, may have nothing to say for a moment.
    let until = Instant::now() + SEEN;
    for (place, query) in &all {
        let excused = EMPTY_WHEN_WELL.iter().any(|(what, _)| place.ends_with(what));
        let mut values = prometheus.values(query).await;
        while values.is_empty() && !excused && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            values = prometheus.values(query).await;
        }
        if values.is_empty() && !excused {
            silent.push(format!("{place}: {query} gives nothing"));
        }
        if values.iter().any(|value| *value < 0.0) {
            silent.push(format!("{place}: {query} is below zero: {values:?}"));
        }
    }
    assert!(silent.is_empty(), "\n{}", silent.join("\n"));
    let targets = prometheus.http.get(format!("{}/api/v1/targets", prometheus.url)).send().await.unwrap();
    let targets: Value = targets.json().await.unwrap();
    for target in targets["data"]["activeTargets"].as_array().unwrap() {
        assert_eq!(target["health"], "up", "{target}");
    }
    // A series that is no bucket, sum or count of a histogram has no quantiles.
    let summaries = prometheus.values(r#"count({quantile=~".+",__name__!~"go_.*|prometheus_.*|net_.*"})"#).await;
    assert!(summaries.is_empty(), "a histogram came out as a summary");
}
