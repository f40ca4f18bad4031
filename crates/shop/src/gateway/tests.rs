//! The gateway over HTTP, in this process.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use reqwest::Response;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;

struct TestGateway {
    url: String,
    http: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

impl TestGateway {
    async fn start(settings: Settings) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, settings, stop.clone().cancelled_owned()));
        Self { url, http: reqwest::Client::new(), stop, served }
    }

    async fn stop(self) {
        self.stop.cancel();
        drop(self.http);
        self.served.await.unwrap().unwrap();
    }

    async fn post(&self, route: &str, key: &str, body: String) -> reqwest::Result<Response> {
        self.http.post(format!("{}{route}", self.url)).header("Idempotency-Key", key).body(body).send().await
    }

    async fn charge(&self, key: &str, order: &str, amount: &str) -> reqwest::Result<Response> {
        let body = format!(r#"{{"orderId":"{order}","amount":{amount},"currency":"EUR","customer":"c-1"}}"#);
        self.post("/charges", key, body).await
    }

    async fn refund(&self, key: &str, order: &str, amount: &str) -> Response {
        self.post("/refunds", key, format!(r#"{{"orderId":"{order}","amount":{amount}}}"#)).await.unwrap()
    }

    async fn get(&self, route: &str) -> Value {
        self.http.get(format!("{}{route}", self.url)).send().await.unwrap().json().await.unwrap()
    }

    async fn set(&self, faults: &str) -> StatusCode {
        self.http.put(format!("{}/faults", self.url)).body(faults.to_owned()).send().await.unwrap().status()
    }

    async fn captures(&self) -> Value {
        self.get("/summary").await["captures"].clone()
    }
}

fn with_ledger(path: &Path) -> Settings {
    Settings { ledger: Some(path.into()), ..Settings::default() }
}

fn fresh_file() -> PathBuf {
    std::env::temp_dir().join(format!("shop-gateway-{}.jsonl", uuid::Uuid::now_v7()))
}

#[tokio::test]
async fn an_ordinary_amount_is_captured_and_a_repeat_gets_the_same_answer() {
    let gateway = TestGateway::start(Settings::default()).await;
    let first = gateway.charge("k1", "o1", "12.30").await.unwrap();
    assert_eq!(first.status(), StatusCode::CREATED);
    let first = first.text().await.unwrap();
    assert!(first.contains(r#""amount":12.30,"currency":"EUR","status":"captured""#), "{first}");
    assert_eq!(gateway.charge("k1", "o1", "12.3").await.unwrap().text().await.unwrap(), first);
    assert_eq!(gateway.captures().await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_for_a_different_request_is_refused() {
    let gateway = TestGateway::start(Settings::default()).await;
    gateway.charge("k1", "o1", "12.30").await.unwrap();
    for (order, amount) in [("o1", "12.31"), ("o2", "12.30")] {
        let status = gateway.charge("k1", order, amount).await.unwrap().status();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(gateway.captures().await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn fifty_requests_with_one_key_at_once_capture_once() {
    let gateway = TestGateway::start(Settings::default()).await;
    let charges = (0..50).map(|_| async { gateway.charge("k1", "o1", "9.00").await.unwrap().text().await.unwrap() });
    let answers: HashSet<_> = futures_util::future::join_all(charges).await.into_iter().collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(gateway.captures().await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_repeat_after_the_key_was_forgotten_charges_again_and_the_summary_tells() {
    let forgetful = Settings { remember_keys: Duration::ZERO, ..Settings::default() };
    let gateway = TestGateway::start(forgetful).await;
    for _ in 0..2 {
        assert_eq!(gateway.charge("k1", "o1", "9.00").await.unwrap().status(), StatusCode::CREATED);
    }
    let summary = gateway.get("/summary").await;
    assert_eq!((&summary["captures"], &summary["capturedTwice"]), (&json!(2), &json!(1)));
    assert_eq!(summary["capturedTwiceOrders"], json!(["o1"]));
    assert_eq!(gateway.get("/charges?orderId=o1").await["charges"].as_array().unwrap().len(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn cents_of_13_decline_and_a_repeat_declines_again() {
    let gateway = TestGateway::start(Settings::default()).await;
    for _ in 0..2 {
        let declined = gateway.charge("k1", "o1", "20.13").await.unwrap();
        assert_eq!(declined.status(), StatusCode::PAYMENT_REQUIRED);
        assert_eq!(declined.json::<Value>().await.unwrap()["status"], "declined");
    }
    let summary = gateway.get("/summary").await;
    assert_eq!((&summary["captures"], &summary["declines"]), (&json!(0), &json!(1)));
    gateway.stop().await;
}

#[tokio::test]
async fn cents_of_17_fail_twice_before_the_capture() {
    let gateway = TestGateway::start(Settings::default()).await;
    let mut statuses = vec![];
    for _ in 0..3 {
        statuses.push(gateway.charge("k1", "o1", "20.17").await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [500, 500, 201]);
    assert_eq!(gateway.captures().await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn cents_of_19_hang_once_without_a_capture_and_a_stop_does_not_wait_for_them() {
    let gateway = TestGateway::start(Settings { hang: Duration::from_millis(50), ..Settings::default() }).await;
    assert!(gateway.charge("k1", "o1", "20.19").await.is_err(), "the connection breaks without an answer");
    assert_eq!(gateway.captures().await, 0);
    assert_eq!(gateway.charge("k1", "o1", "20.19").await.unwrap().status(), StatusCode::CREATED);
    gateway.stop().await;

    let gateway = TestGateway::start(Settings { hang: Duration::from_secs(3600), ..Settings::default() }).await;
    let (http, url) = (gateway.http.clone(), format!("{}/charges", gateway.url));
    let body = r#"{"orderId":"o1","amount":1.19,"currency":"EUR","customer":"c"}"#;
    let hanging = tokio::spawn(http.post(url).header("Idempotency-Key", "k").body(body).send());
    // The second charge of the order no longer hangs: when it is captured, the first one is hanging.
    let in_time = tokio::time::timeout(Duration::from_secs(10), async {
        while gateway.captures().await == 0 {
            let second = gateway.charge("k2", "o1", "1.19");
            let _ = tokio::time::timeout(Duration::from_millis(200), second).await;
        }
    });
    in_time.await.expect("a second charge of the order is captured");
    tokio::time::timeout(Duration::from_secs(10), gateway.stop()).await.expect("the gateway stops although one hangs");
    hanging.abort();
}

#[tokio::test]
async fn cents_of_23_capture_and_lose_the_answer_once() {
    let gateway = TestGateway::start(Settings::default()).await;
    assert!(gateway.charge("k1", "o1", "20.23").await.is_err(), "the connection breaks without an answer");
    assert_eq!(gateway.captures().await, 1);
    assert_eq!(gateway.charge("k1", "o1", "20.23").await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(gateway.captures().await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_capture_is_refunded_once_and_whole() {
    let gateway = TestGateway::start(Settings::default()).await;
    assert_eq!(gateway.refund("r1", "o1", "9.00").await.status(), StatusCode::CONFLICT);
    gateway.charge("k1", "o1", "9.00").await.unwrap();
    assert_eq!(gateway.refund("r1", "o1", "5.00").await.status(), StatusCode::CONFLICT);
    let refunded = gateway.refund("r1", "o1", "9.00").await;
    assert_eq!(refunded.status(), StatusCode::CREATED);
    let refunded = refunded.text().await.unwrap();
    assert_eq!(gateway.refund("r1", "o1", "9.00").await.text().await.unwrap(), refunded);
    assert_eq!(gateway.refund("r2", "o1", "9.00").await.status(), StatusCode::CONFLICT);
    let summary = gateway.get("/summary").await;
    assert_eq!((&summary["refunds"], &summary["net"]), (&json!(1), &json!(0.0)));
    assert_eq!(gateway.get("/charges?orderId=o1").await["charges"][0]["refunded"], true);
    gateway.stop().await;
}

#[tokio::test]
async fn lists_are_paged_to_the_end() {
    let gateway = TestGateway::start(Settings::default()).await;
    for n in 0..5 {
        gateway.charge(&format!("k{n}"), &format!("o{n}"), "9.00").await.unwrap();
        gateway.refund(&format!("k{n}"), &format!("o{n}"), "9.00").await;
    }
    for list in ["charges", "refunds"] {
        let (mut seen, mut after) = (vec![], String::new());
        loop {
            let page = gateway.get(&format!("/{list}?limit=2{after}")).await;
            seen.extend(page[list].as_array().unwrap().iter().map(|item| item["orderId"].as_str().unwrap().to_owned()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen, ["o0", "o1", "o2", "o3", "o4"], "{list}");
    }
    for bad in ["limit=0", "limit=1001", "after=ch-99", "after=rf-1"] {
        let answer = gateway.http.get(format!("{}/charges?{bad}", gateway.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn bad_charges_are_refused_and_leave_nothing_behind() {
    let gateway = TestGateway::start(Settings::default()).await;
    for body in [
        "{",
        "{}",
        r#"{"orderId":"o","amount":"1.00","currency":"EUR","customer":"c"}"#,
        r#"{"orderId":"o","amount":1.001,"currency":"EUR","customer":"c"}"#,
        r#"{"orderId":"o","amount":0,"currency":"EUR","customer":"c"}"#,
        r#"{"orderId":"","amount":1,"currency":"EUR","customer":"c"}"#,
        r#"{"orderId":"o","amount":1,"currency":"euro","customer":"c"}"#,
    ] {
        assert_eq!(
            gateway.post("/charges", "k", body.into()).await.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
    assert_eq!(gateway.charge("", "o1", "1.00").await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(gateway.captures().await, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn faults_are_switched_by_no_page_on_the_web() {
    let gateway = TestGateway::start(Settings::default()).await;
    let set = async |host: &str| {
        let request = gateway.http.put(format!("{}/faults", gateway.url)).header("host", host);
        request.body(r#"{"down": true}"#).send().await.unwrap().status()
    };
    for host in ["evil.example", "evil.example:8090", "127.0.0.1.evil.example"] {
        assert_eq!(set(host).await, StatusCode::FORBIDDEN, "{host}");
    }
    assert_eq!(gateway.get("/faults").await["down"], false);
    for host in ["localhost:8090", "127.0.0.1", "[::1]:8090", "gateway:8090"] {
        assert_eq!(set(host).await, StatusCode::OK, "{host}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn faults_are_switched_while_it_runs() {
    let gateway = TestGateway::start(Settings::default()).await;
    assert_eq!(gateway.set(r#"{"down": true}"#).await, StatusCode::OK);
    assert_eq!(gateway.charge("k1", "o1", "9.00").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(gateway.set(r#"{"decline": 2}"#).await, StatusCode::BAD_REQUEST);
    assert_eq!(gateway.get("/faults").await["down"], true, "a refused setting changes nothing");

    assert_eq!(gateway.set(r#"{"decline": 1}"#).await, StatusCode::OK);
    assert_eq!(gateway.charge("k1", "o1", "9.00").await.unwrap().status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(gateway.set(r#"{"error": 1}"#).await, StatusCode::OK);
    assert_eq!(gateway.charge("k2", "o2", "9.00").await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(gateway.captures().await, 0);

    assert_eq!(gateway.set(r#"{"captureThenFail": 1}"#).await, StatusCode::OK);
    assert!(gateway.charge("k3", "o3", "9.00").await.is_err());
    assert_eq!(gateway.charge("k3", "o3", "9.00").await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(gateway.captures().await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn captures_refunds_and_keys_survive_a_restart_with_a_torn_last_line() {
    let path = fresh_file();
    let gateway = TestGateway::start(with_ledger(&path)).await;
    let first = gateway.charge("k1", "o1", "9.00").await.unwrap().text().await.unwrap();
    gateway.charge("k2", "o2", "7.00").await.unwrap();
    gateway.charge("k3", "o3", "7.13").await.unwrap();
    gateway.refund("r2", "o2", "7.00").await;
    let summary = gateway.get("/summary").await;
    gateway.stop().await;
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"captured":{"at":"2026-01-01T0"#).unwrap();
    drop(file);

    let gateway = TestGateway::start(with_ledger(&path)).await;
    assert_eq!(gateway.get("/summary").await, summary);
    assert_eq!(gateway.charge("k1", "o1", "9.00").await.unwrap().text().await.unwrap(), first);
    assert_eq!(gateway.refund("again", "o2", "7.00").await.status(), StatusCode::CONFLICT);
    gateway.charge("k4", "o4", "1.00").await.unwrap();
    gateway.stop().await;

    let gateway = TestGateway::start(with_ledger(&path)).await;
    assert_eq!(gateway.captures().await, 3, "what is written after a torn line is readable");
    gateway.stop().await;
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_damaged_ledger_or_one_in_use_is_an_error_that_names_it() {
    let path = fresh_file();
    std::fs::write(&path, "{}\n").unwrap();
    let error = format!("{:#}", Books::open(&with_ledger(&path)).err().unwrap());
    assert!(error.contains("line 1") && error.contains(path.to_str().unwrap()), "{error}");
    std::fs::write(&path, "").unwrap();
    let _held = Books::open(&with_ledger(&path)).unwrap();
    let error = format!("{:#}", Books::open(&with_ledger(&path)).err().unwrap());
    assert!(error.contains("in use"), "{error}");
    std::fs::remove_file(path).unwrap();
}
