//! A dead letter becomes a test: it compiles, fails with the service that gave the event up, and passes with the one that is mended.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use millstream::event::header;
use millstream::operator::Operator;
use millstream::operator::as_test::as_test;
use millstream::operator::trace::Look;
use millstream::testing::Bench;
use millstream::{Document, Event, Fault, Handler, Id, Meta, Received, Service, Start, Stream, Timestamp, Unit};
use serde::{Deserialize, Deserializer, Serialize};

use crate::bank::{bench, short};

const DEEDS: Stream = Stream::new("DEEDS", "deeds");
const CLERK: Stream = Stream::new("CLERK", "clerk");
const ELSEWHERE: Stream = Stream::new("ELSEWHERE", "elsewhere");

thread_local! {
    /// Whether the service in the generated tests is the mended one.
    static MENDED: Cell<bool> = const { Cell::new(true) };
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Deed {
    account: String,
    customer: String,
    #[serde(default)]
    does: String,
    #[serde(default, deserialize_with = "amount")]
    amount: i64,
}

/// The mended service reads numbers in quotes, too.
fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let quoted = || value.as_str().filter(|_| MENDED.get()).and_then(|text| text.parse().ok());
    value.as_i64().or_else(quoted).ok_or_else(|| serde::de::Error::custom("`amount` is not an integer"))
}

impl Event for Deed {
    const TYPE: &'static str = "deeds.done";
    const STREAM: Stream = DEEDS;
    const PERSONAL: &'static [&'static str] = &["customer"];
    fn key(&self) -> &str {
        &self.account
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Scan {}

impl Event for Scan {
    const TYPE: &'static str = "deeds.scanned";
    const STREAM: Stream = DEEDS;
    fn key(&self) -> &str {
        "scan"
    }
}

#[derive(Serialize, Deserialize)]
struct Said {
    text: String,
}

impl Event for Said {
    const TYPE: &'static str = "clerk.said";
    const STREAM: Stream = CLERK;
    fn key(&self) -> &str {
        "clerk"
    }
}

#[derive(Serialize, Deserialize)]
struct Foreign {}

impl Event for Foreign {
    const TYPE: &'static str = "elsewhere.said";
    const STREAM: Stream = ELSEWHERE;
    fn key(&self) -> &str {
        "foreign"
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    id: String,
    balance: i32,
}

impl Document for Account {
    const COLLECTION: &'static str = "accounts";
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Secret {}

impl Document for Secret {
    const COLLECTION: &'static str = "secrets";
    fn id(&self) -> &'static str {
        "one"
    }
}

struct Clerk {
    mended: bool,
}

impl Handler<Deed> for Clerk {
    fn handle(&self, deed: &Received<Deed>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let known = unit.get::<Account>(&deed.account)?;
        let mut account = known.clone().unwrap_or_else(|| Account { id: deed.account.clone(), balance: 0 });
        match deed.does.as_str() {
            _ if self.mended => {}
            "reject" => return Err(Fault::conflict("not\non Sundays")),
            "panic" => panic!("a \"bug\""),
            "retry" => return Err(Fault::Retry("the vault is shut".into())),
            "shout" => unit.emit(&Said { text: "x".repeat(2 << 20) }),
            "elsewhere" => unit.emit(&Foreign {}),
            "hide" => unit.put(Secret {}),
            "twice" if known.is_some() => return Err(Fault::conflict("the account is open already")),
            "sum" => account.balance = i32::try_from(deed.amount).unwrap(),
            _ => {}
        }
        unit.put(account);
        Ok(())
    }
}

impl Handler<Scan> for Clerk {
    fn handle(&self, _: &Received<Scan>, _: &mut Unit<'_>) -> Result<(), Fault> {
        Ok(())
    }
}

fn service() -> Service {
    let mended = MENDED.get();
    let service = Service::new("clerk").publishes(CLERK).keeps::<Account>();
    let service = service.reads(DEEDS, Start::Beginning).on::<Deed>(Clerk { mended });
    if mended { service.ignores::<Scan>() } else { service.on::<Scan>(Clerk { mended }) }
}

/// As they were printed.
mod parked {
    use super::service;

    include!("incidents/parked.rs");

    pub(super) const ALL: [fn(); 10] = [
        what_clerk_parked_as_019b76da_a800_8154_9a0e_1758385877c0_is_handled,
        what_clerk_parked_as_019b76da_a800_89ac_bc85_650e8ad0af56_is_handled,
        what_clerk_parked_as_019b76da_a800_833b_b5ef_a934094a2c3d_is_handled,
        what_clerk_parked_as_019b76da_a800_859c_9adc_92d4abb9cb04_is_handled,
        what_clerk_parked_as_019b76da_a800_894a_bdde_2bbaebbb9804_is_handled,
        what_clerk_parked_as_019b76da_a800_8b23_a869_469de3cf66e5_is_handled,
        what_clerk_parked_as_019b76da_a800_8e12_adf8_5de73f32435b_is_handled,
        what_clerk_parked_as_019b76da_a800_865a_8c27_9ccd2a6dc2ef_is_handled,
        what_clerk_parked_as_019b76da_a800_83bd_9935_e7a0dd6ec47f_is_handled,
        what_clerk_parked_as_019b76da_a800_8115_be08_6d8175c5bb50_is_handled,
    ];
}

const POISONS: [&str; 10] =
    ["reject", "panic", "retry", "shout", "elsewhere", "hide", "twice", "sum", "not a number", "not JSON"];

async fn publish(bench: &Bench, number: usize, second: bool, does: &str) -> Id {
    let at = Timestamp::from_millis(1_767_225_600_000);
    let id = Id::derived(at, does, &[u8::from(second)], u32::try_from(number).unwrap());
    let correlation = format!("incident-{number}");
    let meta = Meta { id, time: at, correlation, causation: None, traceparent: None };
    let (account, customer) = (format!("a-{number}"), "Ada Lovelace, 12 St James's Square".to_owned());
    match does {
        "not a number" => {
            let headers = meta_headers(&meta, "deeds.done.v1");
            let body = format!(r#"{{"account":"{account}","customer":"{customer}","amount":"12"}}"#);
            raw(bench, &headers, body.into()).await;
        }
        "not JSON" => raw(bench, &meta_headers(&meta, "deeds.scanned.v1"), b"\xff\xfe\"scan\"\n".to_vec()).await,
        _ => bench.publish(&meta, &Deed { account, customer, does: does.into(), amount: 1 << 40 }).await,
    }
    id
}

fn meta_headers(meta: &Meta, kind: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ce-id", meta.id.to_string()),
        ("ce-type", kind.to_owned()),
        ("ce-source", "elsewhere".to_owned()),
        ("ce-correlationid", meta.correlation.clone()),
        (header::PERSONAL, "customer".to_owned()),
    ]
}

async fn raw(bench: &Bench, headers: &[(&'static str, String)], body: Vec<u8>) {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    bench.publish_raw("deeds.done.0", &headers, body).await;
}

#[tokio::test]
async fn what_is_printed_for_ten_dead_letters_is_the_code_that_the_tests_below_run() {
    let bench = bench().await;
    bench.declare(&DEEDS).await;
    MENDED.set(false);
    let running = bench.run(service(), short()).await;
    for (number, does) in POISONS.into_iter().enumerate() {
        if does == "twice" {
            publish(&bench, number, true, does).await;
            bench.until_handled(&DEEDS, "clerk").await;
        }
        publish(&bench, number, false, does).await;
    }
    bench.expect_dead_letters("clerk", POISONS.len()).await;
    let operator = Operator::new(async_nats::connect(bench.broker.url()).await.unwrap());
    let mut printed = String::new();
    for number in 0..POISONS.len() {
        let traced = operator.trace(&format!("incident-{number}"), Look::default()).await.unwrap();
        assert_eq!(traced.dead.len(), 1, "{traced:?}");
        printed += &as_test(&traced, &traced.dead[0]);
        printed.push('\n');
    }
    running.stop().await;
    assert!(!printed.contains("Lovelace") && printed.contains("Xxx Xxxxxxxx"), "{printed}");
    let there = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("parked.rs");
    std::fs::write(&there, &printed).unwrap();
    // The size of a message depends on the digits of its time.
    let but_sizes =
        |text: &str| text.lines().filter(|line| !line.contains(" bytes, over ")).collect::<Vec<_>>().join("\n");
    let same = but_sizes(&printed) == but_sizes(include_str!("incidents/parked.rs"));
    assert!(same, "it is now as in {}", there.display());
}

#[test]
fn the_printed_tests_fail_with_the_service_that_gave_the_events_up_and_pass_with_the_mended_one() {
    for (does, test) in POISONS.into_iter().zip(parked::ALL) {
        for mended in [false, true] {
            MENDED.set(mended);
            let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
            assert_eq!(passed, mended, "{does}");
        }
    }
}
