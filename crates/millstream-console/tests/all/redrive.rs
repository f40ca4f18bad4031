//! Acting from the page on a real service's dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream::engine::timing::Timing;
use millstream::testing::{Bench, TestService, eventually, fresh_meta};
use millstream::{Document, Event, Fault, Handler, Id, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::browser::Browser;
use crate::{Console, SOON};

pub(crate) const BANK: Stream = Stream::new("BANK", "bank");
const PARCELS: Stream = Stream::new("PARCELS", "parcels");

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ordered {
    pub(crate) parcel: String,
    pub(crate) address: String,
}

impl Event for Ordered {
    const TYPE: &'static str = "bank.moved";
    const STREAM: Stream = BANK;
    const PERSONAL: &'static [&'static str] = &["address"];
    fn key(&self) -> &str {
        &self.parcel
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shipped {
    parcel: String,
    address: String,
}

impl Event for Shipped {
    const TYPE: &'static str = "parcels.shipped";
    const STREAM: Stream = PARCELS;
    fn key(&self) -> &str {
        &self.parcel
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Parcel {
    id: String,
}

impl Document for Parcel {
    const COLLECTION: &'static str = "parcels";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Whether the service takes what comes.
#[derive(Clone, Default)]
pub(crate) struct Open(Arc<AtomicBool>);

impl Open {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Ship(Open);

impl Handler<Ordered> for Ship {
    fn touches(&self, event: &Received<Ordered>) -> Keys {
        Keys::one::<Parcel>(&event.parcel)
    }
    fn handle(&self, event: &Received<Ordered>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        if !self.0.0.load(Ordering::SeqCst) {
            return Err(Fault::conflict("nobody is there"));
        }
        unit.emit(&Shipped { parcel: event.parcel.clone(), address: event.address.clone() });
        Ok(())
    }
}

/// A service that is closed, and an event that it has given up.
pub(crate) async fn closed() -> (Bench, Open, TestService, Id) {
    let (bench, open) = (Bench::start().await, Open::default());
    bench.declare(&BANK).await;
    let service = Service::new("parcels").publishes(PARCELS).keeps::<Parcel>();
    let service = service.reads(BANK, Start::Beginning).on(Ship(open.clone()));
    let service = bench.run(service, Timing::short()).await;
    let meta = fresh_meta();
    bench.publish(&meta, &Ordered { parcel: "p-1".into(), address: "Mill Lane 1".into() }).await;
    bench.expect_dead_letters("parcels", 1).await;
    (bench, open, service, meta.id)
}

async fn record(console: &Console, id: Id) -> Value {
    let url = format!("{}/api/dead/parcels/{id}", console.url());
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_redriven_from_the_page_after_a_dry_run_and_the_audit_says_by_whom_and_why() {
    let Some(browser) = Browser::start("redriving from the page").await else { return };
    let (bench, open, service, id) = closed().await;
    let console = Console::start(&bench.broker.url(), true).await;
    browser.open(&format!("{}/#/dead", console.url())).await;
    browser.click("parcels bank.moved").await;
    browser.until_shows("nobody is there").await;
    browser.click("Redrive…").await;
    browser.until_shows("1 eligible").await;
    browser.until_shows("1 would be parked again").await;
    browser.click("Cancel").await;
    assert_eq!(record(&console, id).await["letter"]["state"], "dead", "a dry run touches nothing");

    open.set();
    browser.click("Redrive…").await;
    browser.until_shows("1 would be handled").await;
    browser.fill("who", "ada").await;
    browser.fill("why", "somebody is there").await;
    browser.click("Redrive 1").await;
    browser.until_shows("1 done").await;
    assert_eq!(bench.expect::<Shipped>(1).await[0].parcel, "p-1");
    let resolved = async || record(&console, id).await["letter"]["state"] == "resolved";
    eventually("the record to say that it is resolved", SOON, resolved).await;
    let audit = &record(&console, id).await["audit"];
    assert_eq!((&audit[0]["who"], &audit[0]["why"]), (&"ada (console)".into(), &"somebody is there".into()), "{audit}");
    assert_eq!(audit[0]["action"], "redrive");
    browser.click("Close").await;
    browser.until_shows("No dead letter with this cause is left").await;
    assert_eq!(browser.errors().await, [""; 0]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_the_key_before_it_acts_and_only_once() {
    let Some(browser) = Browser::start("the key of the console").await else { return };
    let (bench, open, service, id) = closed().await;
    let console = Console::start_with_key(&bench.broker.url(), "a key that nobody guesses").await;
    browser.open(&format!("{}/#/dead", console.url())).await;
    browser.click("parcels bank.moved").await;
    browser.until_shows("nobody is there").await;
    browser.click("Redrive…").await;
    browser.until_shows("Actions need the key").await;
    browser.click("Cancel").await;
    browser.until_shows("Failed: no action without the key").await;
    browser.click("Cancel").await;

    browser.click("Redrive…").await;
    browser.fill("key", "a key that somebody guesses").await;
    browser.click("Log in").await;
    browser.until_shows("this is not the console's key").await;
    browser.fill("key", "a key that nobody guesses").await;
    browser.click("Log in").await;
    browser.until_shows("1 eligible").await;
    assert_eq!(browser.value("document.cookie").await, "", "no script can read the cookie");
    open.set();
    browser.fill("who", "ada").await;
    browser.fill("why", "somebody is there").await;
    browser.click("Redrive 1").await;
    browser.until_shows("1 done").await;
    let resolved = async || record(&console, id).await["letter"]["state"] == "resolved";
    eventually("the record to say that it is resolved", SOON, resolved).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_fields_are_masked_until_they_are_revealed_and_an_edit_goes_to_the_service() {
    let Some(browser) = Browser::start("revealing and editing from the page").await else { return };
    let (bench, open, service, id) = closed().await;
    let console = Console::start(&bench.broker.url(), true).await;
    browser.open(&format!("{}/#/dead/parcels/{id}", console.url())).await;
    browser.until_shows("\"address\": \"•••\"").await;
    let answer = reqwest::get(format!("{}/api/trace/p-1", console.url())).await.unwrap().text().await.unwrap();
    assert!(answer.contains("•••") && !answer.contains("Mill Lane"), "{answer}");

    // Who edits has to see it: that is asked for first.
    browser.click("Edit and redrive…").await;
    browser.fill("who", "ada").await;
    browser.fill("why", "the address is wrong").await;
    browser.click("Reveal").await;
    browser.until_shows("Send the edited copy").await;
    browser.fill("payload", r#"{"parcel":"p-1","address":"Mill Lane 2"}"#).await;
    browser.fill("why", "the address is right").await;
    open.set();
    browser.click("Send the edited copy").await;
    browser.until_shows("Sent as").await;
    let shipped = bench.expect::<Shipped>(1).await;
    assert_eq!(shipped[0].address, "Mill Lane 2");
    let record = record(&console, id).await;
    assert_eq!(record["letter"]["state"], "edited");
    let audit: Vec<_> = record["audit"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(audit, ["reveal", "edit"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_discarded_by_keyboard_alone() {
    let Some(browser) = Browser::start("discarding by keyboard").await else { return };
    let (bench, _open, service, id) = closed().await;
    let console = Console::start(&bench.broker.url(), true).await;
    browser.open(&format!("{}/#/dead/parcels/{id}", console.url())).await;
    browser.until_shows("Discard…").await;
    browser.tab_to("Discard…").await;
    browser.keys("\u{e007}").await;
    browser.until_shows("1 eligible").await;
    // The name has the focus, for it is not known yet.
    browser.keys("ada\u{e004}not needed any more\u{e007}").await;
    browser.until_shows("1 done").await;
    browser.keys("\u{e007}").await;
    eventually("the dialog to be closed", SOON, async || {
        browser.value("!document.querySelector('dialog')").await == true
    })
    .await;
    assert_eq!(record(&console, id).await["letter"]["state"], "discarded");
    service.stop().await;
}
