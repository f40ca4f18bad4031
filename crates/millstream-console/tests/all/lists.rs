//! Messages of a stream, pending wakes and the audit log, as the page is given them.

use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::audit::AuditEntry;
use millstream::testing::{Bench, fresh_meta};
use serde_json::{Value, json};

use crate::Console;
use crate::browser::Browser;
use crate::redrive::{BANK, Ordered, closed};

async fn get(console: &Console, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
    let answer = reqwest::Client::new().get(format!("{}{path}", console.url())).query(query).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The keys of the messages of an answer.
fn keys(answer: &(u16, Value)) -> Vec<&str> {
    let messages = answer.1["messages"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    messages.iter().map(|message| message["key"].as_str().unwrap()).collect()
}

/// A stream with so many orders, of which each hundredth goes to Main Street.
async fn orders(count: usize) -> Bench {
    let bench = Bench::start().await;
    bench.declare(&BANK).await;
    let order = |at: usize| Ordered {
        parcel: format!("p-{at}"),
        address: if at.is_multiple_of(100) { "Main Street" } else { "Mill Lane" }.into(),
    };
    let all: Vec<_> = (0..count).map(|at| (fresh_meta(), order(at))).collect();
    bench.publish_all(all.iter().map(|(meta, order)| (meta.clone(), order))).await;
    bench
}

#[tokio::test]
async fn messages_are_given_the_newest_first_page_by_page_without_gaps_or_repeats() {
    let bench = orders(1200).await;
    let console = Console::start(&bench.broker.url(), false).await;
    let mut all: Vec<String> = vec![];
    let mut before = String::new();
    loop {
        let paging = [("stream", "BANK"), ("limit", "500"), ("before", &before)];
        let answer = get(&console, "/api/messages", &paging[..if before.is_empty() { 2 } else { 3 }]).await;
        all.extend(keys(&answer).into_iter().map(str::to_owned));
        match answer.1["older"].as_u64() {
            Some(older) => before = older.to_string(),
            None => break,
        }
    }
    let expected: Vec<_> = (0..1200).rev().map(|at| format!("p-{at}")).collect();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn messages_are_found_by_subject_header_field_and_time_and_never_by_what_is_personal() {
    let bench = orders(1200).await;
    let between = Timestamp::system();
    bench.publish(&fresh_meta(), &Ordered { parcel: "late".into(), address: "Main Street".into() }).await;
    let console = Console::start(&bench.broker.url(), false).await;
    let of_bank = async |name: &str, value: &str| {
        get(&console, "/api/messages", &[("stream", "BANK"), ("limit", "3"), (name, value)]).await
    };
    assert_eq!(keys(&of_bank("having", "/parcel=p-7").await), ["p-7"], "a field, far from the end");
    assert_eq!(keys(&of_bank("having", "CE-Subject=p-8").await), ["p-8"], "a header, whatever its case");
    assert_eq!(keys(&of_bank("until", &between.to_string()).await)[0], "p-1199");
    let found = of_bank("subject", "bank.moved.*").await;
    assert_eq!(keys(&found).len(), 3, "{found:?}");
    assert!(!found.1.to_string().contains("Street"), "{found:?}");
    assert_eq!(keys(&of_bank("having", "/address=Main Street").await), [""; 0], "that would tell where p-100 lives");
    for (name, value, code, said) in [
        ("having", "parcel", 400, "/status=CONFIRMED"),
        ("subject", "two words", 409, "no subject"),
        ("before", "soon", 400, "before"),
        ("from", "1", 400, "from"),
    ] {
        let (status, problem) = of_bank(name, value).await;
        assert!(
            status == code && problem["detail"].as_str().unwrap().contains(said),
            "{name}={value}: {status} {problem}"
        );
    }
    let (status, problem) = get(&console, "/api/messages", &[("stream", "AUDIT")]).await;
    assert!(status == 404 && problem["detail"].as_str().unwrap().contains("BANK"), "{problem}");
}

#[tokio::test]
async fn what_waits_is_summed_up_by_service_and_kind_and_who_does_not_answer_is_named() {
    let (bench, _open, service, _) = closed().await;
    let console = Console::start(&bench.broker.url(), false).await;
    let none = json!({ "sums": [], "wakes": [], "total": 0, "more": [], "silent": [] });
    assert_eq!(get(&console, "/api/wakes", &[]).await, (200, none));
    let (_, silent) = get(&console, "/api/wakes", &[("service", "nobody")]).await;
    assert_eq!(silent["silent"], json!(["nobody"]));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_on_many_is_one_row_of_the_audit_and_names_its_targets_on_demand() {
    let Some(browser) = Browser::start("the audit's page").await else { return };
    let bench = orders(1).await;
    let operator = Operator::new(async_nats::connect(bench.broker.url()).await.unwrap());
    let entry = |what: String, who: &str| AuditEntry {
        at: Timestamp::system(),
        who: who.into(),
        action: "redrive".into(),
        service: "parcels".into(),
        what,
        why: "mended".into(),
        details: Value::Null,
    };
    let entries: Vec<_> = (0..120).map(|at| entry(format!("target-{at}"), "ada")).collect();
    operator.audit(&entries).await.unwrap();
    operator.audit(&[entry("alone".into(), "bob")]).await.unwrap();
    let console = Console::start(&bench.broker.url(), false).await;
    let (_, all) = get(&console, "/api/audit", &[]).await;
    let counts: Vec<_> = all["acts"].as_array().unwrap().iter().map(|act| act["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 120], "{all}");
    let (_, found) = get(&console, "/api/audit", &[("who", "bo")]).await;
    assert_eq!(found["acts"][0]["what"], json!(["alone"]), "{found}");

    browser.open(&format!("{}/#/audit", console.url())).await;
    browser.until_shows("2 acts, among the last 121 entries").await;
    browser.click("120 targets").await;
    browser.until_shows("target-119").await;
    browser.until_shows("and 70 more").await;
    assert_eq!(browser.errors().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_stream_are_browsed_opened_and_followed_on_the_page() {
    let Some(browser) = Browser::start("the messages' page").await else { return };
    let bench = orders(120).await;
    let console = Console::start(&bench.broker.url(), false).await;
    browser.open(&format!("{}/#/messages/BANK", console.url())).await;
    browser.until_shows("#120").await;
    browser.click("Older than #71").await;
    browser.until_shows("#21").await;
    browser.click("#120").await;
    browser.until_shows("personal fields are masked").await;
    browser.click("#120").await;
    browser.click("Follow").await;
    bench.publish(&fresh_meta(), &Ordered { parcel: "late".into(), address: "Mill Lane".into() }).await;
    browser.until_shows("#121").await;
    browser.fill("having", "/parcel=p-3").await;
    browser.click("Search").await;
    browser.until_shows("p-3").await;
    assert_eq!(browser.value("document.querySelectorAll('tbody tr:not([hidden])').length").await, json!(1));
    assert_eq!(browser.errors().await, [""; 0]);
}
