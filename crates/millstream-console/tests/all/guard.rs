//! Who may not act, and who may not even look.

use millstream::testing::Broker;
use reqwest::{Method, RequestBuilder};

use crate::Console;

const WRITES: [&str; 6] =
    ["/api/dead/redrive", "/api/dead/discard", "/api/dead/edit", "/api/wakes", "/api/reveal", "/api/demo/0"];

fn post(url: &str, path: &str) -> RequestBuilder {
    reqwest::Client::new().request(Method::POST, format!("{url}{path}")).json(&serde_json::json!({}))
}

async fn refused(request: RequestBuilder, why: &str) {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let text = answer.text().await.unwrap();
    assert!(text.contains(why), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_page_may_not_act_nor_may_one_without_our_header_or_on_a_read_only_console() {
    let broker = Broker::start().await;
    let (acts, looks) = (Console::start(&broker.url(), true).await, Console::start(&broker.url(), false).await);
    for path in WRITES {
        refused(post(&acts.url(), path), "X-Millstream").await;
        let ours = || post(&acts.url(), path).header("X-Millstream", "1");
        refused(ours().header("Origin", "https://evil.example"), "other origins").await;
        refused(ours().header("Origin", "null"), "other origins").await;
        for site in ["cross-site", "same-site", "none"] {
            refused(ours().header("Sec-Fetch-Site", site), "other origins").await;
        }
        refused(post(&looks.url(), path).header("X-Millstream", "1"), "--allow-actions").await;
        // What is no browser, and the page itself, get as far as to what they sent.
        for request in [ours(), ours().header("Origin", acts.url()).header("Sec-Fetch-Site", "same-origin")] {
            let status = request.send().await.unwrap().status();
            assert!([400, 404, 422].contains(&status.as_u16()), "{path}: {status}");
        }
    }
    for path in ["/", "/api/system", "/api/live", "/dead-letters"] {
        let rebound = reqwest::Client::new().get(format!("{}{path}", looks.url())).header("Host", "evil.example:8080");
        refused(rebound, "unknown host name").await;
    }
    let scrape = reqwest::Client::new().get(format!("{}/metrics", looks.url())).header("Host", "console:8080");
    assert_eq!(scrape.send().await.unwrap().status(), 200, "metrics are for whoever collects them by any name");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let broker = Broker::start().await;
    let console = Console::start(&broker.url(), false).await;
    for path in ["/", "/assets/main.js", "/api/dead", "/api/trace/nothing"] {
        let answer = reqwest::get(format!("{}{path}", console.url())).await.unwrap();
        let headers = answer.headers();
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self';"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
}

const KEY: &str = "a key that nobody guesses";

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_nobody_acts_without_it_or_from_another_page_and_reading_stays_open() {
    let broker = Broker::start().await;
    let console = Console::start_with_key(&broker.url(), KEY).await;
    let url = console.url();
    let ours = |path| post(&url, path).header("X-Millstream", "1");
    let log_in = |key: &str| ours("/api/login").json(&serde_json::json!({ "key": key }));
    refused(log_in("a key that nobody guesses."), "not the console's key").await;
    refused(log_in(""), "not the console's key").await;
    refused(log_in(KEY).header("Origin", "https://evil.example"), "other origins").await;
    let answer = log_in(KEY).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let (login, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");
    assert!(!cookie.contains(KEY));
    for path in WRITES {
        let without = [
            ours(path),
            ours(path).bearer_auth("a key that somebody guesses"),
            ours(path).header("Cookie", "millstream-console=0123456789abcdef"),
            ours(path).header("Cookie", format!("millstream-console={KEY}")),
            // As the page of another origin would get it sent, were it not for SameSite.
            ours(path).header("Origin", &url),
        ];
        for request in without {
            let answer = request.send().await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["www-authenticate"]),
                (401, &"Bearer".parse().unwrap())
            );
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
        refused(ours(path).header("Cookie", login).header("Origin", "https://evil.example"), "other origins").await;
        refused(post(&url, path).header("Cookie", login), "X-Millstream").await;
        for request in [ours(path).header("Cookie", login), ours(path).bearer_auth(KEY)] {
            let status = request.send().await.unwrap().status();
            assert!([400, 404, 422].contains(&status.as_u16()), "{path}: {status}");
        }
    }
    for path in ["/", "/api/system", "/dead-letters", "/api/verdict", "/metrics"] {
        assert_eq!(reqwest::get(format!("{url}{path}")).await.unwrap().status(), 200, "{path}");
    }
    let another = Console::start_with_key(&broker.url(), KEY).await;
    let elsewhere = post(&another.url(), WRITES[0]).header("X-Millstream", "1").header("Cookie", login);
    assert_eq!(elsewhere.send().await.unwrap().status(), 401, "a login is with one process, and ends with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_others_can_reach_acts_only_with_a_key_or_if_anyone_may_and_names_the_remedy() {
    let broker = Broker::start().await;
    let console = Console::start_at(&broker.url(), true, vec![], ([0, 0, 0, 0], 0).into()).await;
    let url = format!("http://127.0.0.1:{}", console.address.port());
    for path in WRITES {
        refused(post(&url, path).header("X-Millstream", "1"), "CONSOLE_KEY").await;
    }
    let anyone = Console::start_for_anyone(&broker.url()).await;
    let url = format!("http://127.0.0.1:{}", anyone.address.port());
    let status = post(&url, WRITES[0]).header("X-Millstream", "1").send().await.unwrap().status();
    assert!([400, 422].contains(&status.as_u16()), "{status}");
}
