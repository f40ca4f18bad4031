//! The whole shop in a process of its own, which is killed at any moment and started again.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use millstream::Timestamp;
use millstream::config::Logs;
use millstream::telemetry::init_logs_to;
use millstream::testing::eventually;
use serde_json::Value;
use shop::data::DataFolder;
use shop::whole::{Shop, Urls};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::harness::{Caller, SOON, line, order_of, plan};

/// Names the data folder to the child, and that it is one.
const FOLDER: &str = "MILLSTREAM_TEST_SHOP";
/// Begins the line in which the child says where everything is.
const URLS: &str = "URLS ";

/// The process that the tests of this file start and kill; without a folder it is none of them, and does nothing.
#[test]
fn a_shop_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let data = DataFolder::open(Path::new(&folder)).unwrap();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(data.log()).unwrap();
        init_logs_to(file, &Logs { log_format: None, log: "info,millstream=debug".into() }).unwrap();
        let mut shop = Shop::start(plan(), data).await.unwrap();
        let Urls { orders, inventory, payments, notifications, analytics, gateway, console, nats } = &shop.urls;
        shop.urls.ready(&reqwest::Client::new(), SOON).await.unwrap();
        println!("{URLS}{orders} {inventory} {payments} {notifications} {analytics} {gateway} {console} {nats}");
        panic!("{}", shop.ended().await);
    });
}

struct Child {
    process: tokio::process::Child,
    caller: Caller,
}

impl Child {
    /// Starts a shop on a folder, and waits until it is ready.
    async fn start(folder: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::a_shop_to_be_killed", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let said = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, urls)) = line.split_once(URLS) {
                    return urls.to_owned();
                }
            }
            panic!("the shop's process has ended");
        };
        let said = tokio::time::timeout(SOON, said).await.expect("the shop's process is ready in time");
        let urls: Vec<String> = said.split(' ').map(str::to_owned).collect();
        let [orders, inventory, payments, notifications, analytics, gateway, console, nats] = urls.try_into().unwrap();
        let urls = Urls { orders, inventory, payments, notifications, analytics, gateway, console, nats };
        Self { process, caller: Caller::new(urls) }
    }

    /// SIGKILL. The broker, its child, ends because nobody is left at its pipe.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// The bodies of the load: most are confirmed, some are declined, and some charges stumble.
fn body(number: usize) -> String {
    let cents = match number % 20 {
        3 => 13,
        7 => 17,
        11 => 23,
        _ => 0,
    };
    order_of(&format!("user-{}", number % 7), &[line("mug", 1, 1000 + cents)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_killed_at_any_moment_under_load_ends_every_order_it_has_accepted_once_it_is_started_again() {
    const ORDERS: usize = 600;
    const KILLS: u64 = 4;
    let folder = tempfile::tempdir().unwrap();
    let accepted = Mutex::new(HashMap::<usize, String>::new());
    let submit = async |caller: &Caller, number: usize| {
        let request = caller.posting(body(number)).header("idempotency-key", format!("k-{number}"));
        // Whether an order whose answer is lost was accepted, its key tells at the next try.
        let Ok(answer) = request.send().await else { return false };
        if answer.status() != 201 {
            return false;
        }
        let Ok(order) = answer.json::<Value>().await else { return false };
        let id = order["id"].as_str().unwrap().to_owned();
        let first = accepted.lock().unwrap().entry(number).or_insert_with(|| id.clone()).clone();
        assert_eq!(first, id, "the same key is the same order, whoever was killed in between");
        true
    };
    let load = async |caller: &Caller, numbers: Vec<usize>| {
        let all = futures_util::stream::iter(numbers).map(|number| submit(caller, number)).buffer_unordered(16);
        all.filter(|done| std::future::ready(!done)).count().await
    };
    for round in 0..KILLS {
        let child = Child::start(folder.path()).await;
        if round == 0 {
            child.caller.stock("mug", 10_000).await;
        }
        // New ones, and every fifth again.
        let done: Vec<usize> = accepted.lock().unwrap().keys().copied().collect();
        let numbers = (0..ORDERS).filter(|number| !done.contains(number) || number % 5 == 0).collect();
        let moment = Duration::from_millis(100 + Timestamp::system().millis() * 7919 % 500);
        tokio::select! {
            _ = load(&child.caller, numbers) => {}
            () = tokio::time::sleep(moment) => {}
        }
        println!("killed after {moment:?} of load, {} orders accepted so far", accepted.lock().unwrap().len());
        child.kill().await;
    }
    let child = Child::start(folder.path()).await;
    let rest = load(&child.caller, (0..ORDERS).collect()).await;
    assert_eq!(rest, 0, "all orders are accepted at last");
    let started = Instant::now();
    let orders = child.caller.all_ended(ORDERS).await;
    println!("all ended after another {:?}", started.elapsed());
    let accepted = accepted.into_inner().unwrap();
    for order in &orders {
        assert!(accepted.values().any(|id| order["id"] == **id), "{order} was accepted under no key");
    }
    let declined = orders.iter().filter(|order| order["reason"] == "DECLINED").count();
    let confirmed = orders.iter().filter(|order| order["status"] == "CONFIRMED").count();
    assert_eq!((declined, confirmed), (ORDERS / 20, ORDERS - ORDERS / 20));
    child.caller.check(0).await;
    child.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_log_line_about_an_order_has_its_correlation_id_and_every_service_logs_it() {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::start(folder.path()).await;
    let caller = &child.caller;
    caller.stock("mug", 10).await;
    let correlation = "basket/ä 7";
    let value = reqwest::header::HeaderValue::from_bytes(correlation.as_bytes()).unwrap();
    // A charge that fails twice, so that there is something to be said of it.
    let posted =
        caller.send(caller.posting(order_of("ada", &[line("mug", 1, 1017)])).header("x-correlation-id", value)).await;
    let id = posted.json()["id"].as_str().unwrap().to_owned();
    caller.all_ended(1).await;
    let wire = caller.wire().await;
    wire.drained().await;
    let mut ids: Vec<String> = wire.all_events().await.iter().map(|event| event.header("ce-id").to_owned()).collect();
    assert_eq!(ids.len(), 4);
    ids.push(id.clone());
    let path = folder.path().join("logs/shop.log");
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        // The last line may not be whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let ours = || lines().into_iter().filter(|line| line["correlation"] == correlation).collect::<Vec<_>>();
    for service in ["orders", "inventory", "payments", "notifications", "analytics"] {
        let logged = async || ours().iter().any(|line| line["service"] == service);
        eventually(&format!("a line of {service} with the correlation id"), SOON, logged).await;
    }
    let stumbled = ours().into_iter().find(|line| line["service"] == "payments" && line.get("why").is_some());
    assert!(stumbled.is_some(), "the failed charges are in the log under the order's correlation id");
    for line in lines() {
        let text = line.to_string();
        if ids.iter().any(|id| text.contains(id)) {
            assert_eq!(line["correlation"], correlation, "{line}");
            assert!(line["service"].is_string(), "{line}");
        }
    }
    child.kill().await;
}
