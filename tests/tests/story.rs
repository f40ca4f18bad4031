//! The sixty seconds of somebody who has just started the shop and opened its console.

use std::time::Duration;

use millstream::testing::eventually;
use serde_json::Value;
use shop::check;

use crate::browser::Browser;
use crate::harness::{SOON, TestApp};

/// The id of the order whose trace the page shows.
async fn followed(browser: &Browser) -> String {
    browser.click("Follow it").await;
    let place = browser.value("location.hash").await;
    place.as_str().unwrap().strip_prefix("#/trace/").expect("the page of a trace").to_owned()
}

async fn invariants_hold(browser: &Browser) {
    browser.click("Live").await;
    browser.until_shows("All 12 invariants hold").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_minute_one_sees_an_order_cross_breaks_the_gateway_repairs_it_and_mends_a_poisoned_event() {
    let Some(browser) = Browser::start("the sixty seconds with the console").await else { return };
    let app = TestApp::start_with(|plan| plan.demo = true).await;
    shop::stock::seed(&app.http, &app.urls.inventory).await.unwrap();
    // As `shop up` has it: an order may wait for its gateway for a while before that is told as wrong.
    let options = check::Options { older_than: Duration::from_secs(2), ..app.check_options() };
    let options = check::Options { patience: Duration::from_secs(1200), ..options };
    let checking = tokio::spawn(check::watch(options, std::future::pending()));
    browser.open(&app.urls.console).await;

    // It moves, and an order is seen to cross.
    browser.click("Place an order").await;
    let first = followed(&browser).await;
    for event in ["orders.created", "inventory.reserved", "payments.processed", "orders.confirmed"] {
        browser.until_shows(event).await;
    }
    assert_eq!(app.ended(&first).await["status"], "CONFIRMED");
    browser.click("Live").await;
    browser.until_shows("orders.confirmed").await;

    // With the gateway broken an order waits, its charge is tried again, and nothing is wrong.
    browser.click("Break the card company").await;
    eventually("the gateway to be broken", SOON, async || {
        let faults: Value = app.send(app.http.get(format!("{}/faults", app.urls.gateway))).await.json();
        faults["down"] == true
    })
    .await;
    browser.click("Place an order").await;
    let second = followed(&browser).await;
    eventually("its trace to tell of tries", SOON, async || {
        browser.value("location.reload()").await;
        browser.until_shows("inventory.reserved").await;
        let page = browser.value("document.body.innerText").await;
        page.as_str().is_some_and(|page| page.contains("payments: charge") && page.contains("attempt"))
    })
    .await;
    invariants_hold(&browser).await;

    // Repaired, poisoned, and what was poisoned is mended.
    browser.click("Repair the card company").await;
    assert_eq!(app.ended(&second).await["status"], "CONFIRMED");
    browser.click("Poison an event").await;
    eventually("a dead letter on the page", SOON, async || {
        browser.value("document.querySelector('#dead-count').innerText").await == "1"
    })
    .await;
    invariants_hold(&browser).await;
    browser.value("location.hash = '#/dead'").await;
    browser.click("orders inventory.rejected").await;
    browser.until_shows("requested").await;
    browser.click("Redrive…").await;
    browser.until_shows("1 eligible").await;
    browser.fill("who", "ada").await;
    browser.fill("why", "to see what becomes of it").await;
    browser.click("Redrive 1").await;
    browser.until_shows("1 done").await;
    browser.click("Close").await;
    eventually("it to come back, for it is what it was", SOON, async || {
        let url = format!("{}/api/dead/list?service=orders", app.urls.console);
        let answer: Value = app.send(app.http.get(url)).await.json();
        answer["letters"][0]["redrives"] == 1 && answer["letters"][0]["state"] == "dead"
    })
    .await;
    browser.value("location.reload()").await;
    browser.until_shows("Last failed").await;
    browser.value("document.querySelector('tbody a').click()").await;
    browser.click("Edit and redrive…").await;
    let body = browser.value("document.querySelector('dialog [name=payload]').value").await;
    let mended = body.as_str().unwrap().replace("\"one\"", "1");
    browser.fill("payload", &mended).await;
    browser.fill("why", "a quantity is a number").await;
    browser.click("Send the edited copy").await;
    browser.until_shows("Sent as").await;
    browser.click("Close").await;
    browser.value("location.hash = '#/dead'").await;
    browser.until_shows("No dead letters.").await;

    invariants_hold(&browser).await;
    checking.abort();
    assert_eq!(browser.errors().await, [""; 0]);
    let here =
        |url: &String| url.starts_with(&app.urls.console) || url.starts_with("about:") || url.starts_with("data:");
    let elsewhere: Vec<String> = browser.requests().await.into_iter().filter(|url| !here(url)).collect();
    assert_eq!(elsewhere, [""; 0], "no request leaves the console");
    tokio::time::timeout(Duration::from_secs(60), app.close()).await.expect("the shop to stop");
}
