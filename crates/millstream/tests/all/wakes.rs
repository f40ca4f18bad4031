//! What waits in services is listed, moved, fired and cancelled by an operator.

use std::time::Duration;

use async_nats::Client;
use millstream::Timestamp;
use millstream::operator::audit::AuditEntry;
use millstream::operator::wakes::{PendingWake, WakeAct, WakeFilter};
use millstream::operator::{By, OperatorError};
use millstream::testing::{Bench, TestService};
use serde_json::{Value, json};

use crate::bank::*;
use crate::status::operator;

const HOUR: u64 = 3_600_000;

/// What a service answers to a question, or why it does not.
async fn ask(client: &Client, endpoint: &str, question: &Value) -> Result<Value, String> {
    let subject = format!("millstream.{endpoint}.{SERVICE}");
    let answer = client.request(subject, question.to_string().into()).await.unwrap();
    let header = |name: &str| Some(answer.headers.as_ref()?.get(name)?.to_string());
    match (header("Nats-Service-Error-Code"), header("Nats-Service-Error")) {
        (Some(code), Some(error)) => Err(format!("{code} {error}")),
        _ => Ok(serde_json::from_slice(&answer.payload).unwrap()),
    }
}

async fn act(client: &Client, wake: &PendingWake, act: WakeAct) -> Result<PendingWake, String> {
    let PendingWake { collection, document, kind, generation, attempt, .. } = wake;
    let question = json!({
        "collection": collection, "document": document, "kind": kind, "generation": generation, "attempt": attempt,
        "act": act, "who": "ada", "why": "a test",
    });
    ask(client, "act", &question).await.map(|left| serde_json::from_value(left).unwrap())
}

async fn wakes(bench: &Bench, filter: WakeFilter) -> Vec<PendingWake> {
    operator(bench).await.wakes(&WakeFilter { service: Some(SERVICE.into()), ..filter }, 100).await.unwrap().0
}

async fn wake_of(bench: &Bench, document: &str) -> Option<PendingWake> {
    wakes(bench, WakeFilter { document: Some(document.into()), ..WakeFilter::default() }).await.pop()
}

async fn log(service: &TestService, account: &str) -> Vec<String> {
    service.get::<Account>(account).await.map_or(vec![], |account| account.log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_listed_the_earliest_first_and_who_does_not_answer_is_named() {
    let bench = bench().await;
    let world = World::default();
    world.outside().otherwise = Some(Answer::Down);
    let service = bench.run(ledger(&world), short()).await;
    let sent = publish(&bench, "late", "d", Act::Deadline(2 * HOUR)).await;
    publish(&bench, "soon", "d", Act::Deadline(HOUR)).await;
    publish(&bench, "outside", "c", Act::Charge).await;
    bench.until_handled(&BANK, SERVICE).await;
    until("the charge to be tried", async || !world.calls_of("outside").is_empty()).await;

    let found = wakes(&bench, WakeFilter::default()).await;
    let waits: Vec<_> =
        found.iter().map(|wake| (wake.document.as_str(), wake.kind.as_str(), wake.cancellable)).collect();
    assert_eq!(waits, [("outside", "charge", false), ("soon", "deadline", true), ("late", "deadline", true)]);
    assert!(found[0].attempt > 0 && found[1].attempt == 0, "{found:?}");
    assert_eq!((found[2].correlation.as_str(), found[2].collection.as_str()), (sent.correlation.as_str(), "accounts"));
    assert_eq!(found[2].at, found[2].opened + Duration::from_millis(2 * HOUR));
    let kind = WakeFilter { kind: Some("charge".into()), ..WakeFilter::default() };
    assert_eq!(wakes(&bench, kind).await.len(), 1);
    assert_eq!(wake_of(&bench, "soon").await.as_ref(), Some(&found[1]));
    assert_eq!(wake_of(&bench, "nobody").await, None);

    // One that has been there and is not, as its durable shows, beside one that answers.
    let operator = operator(&bench).await;
    let all = async || operator.wakes(&WakeFilter::default(), 2).await.unwrap();
    until("the instance to be found", async || all().await.0.len() == 2).await;
    let missing = WakeFilter { service: Some("nowhere".into()), ..WakeFilter::default() };
    assert_eq!(operator.wakes(&missing, 2).await.unwrap(), (vec![], vec!["nowhere".to_owned()]));
    service.stop().await;
    until("it to be missed", async || all().await == (vec![], vec![SERVICE.to_owned()])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_moved_fired_and_cancelled_and_the_journal_knows() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let client = async_nats::connect(bench.broker.url()).await.unwrap();
    for account in ["moved", "fired", "cancelled", "other"] {
        publish(&bench, account, "d", Act::Deadline(HOUR)).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    let wake = async |account: &str| wake_of(&bench, account).await.unwrap();

    let journalled = || rows(&bench);
    let before = journalled();
    let to = Timestamp::system() + Duration::from_millis(2 * HOUR);
    let seen = wake("moved").await;
    let left = act(&client, &seen, WakeAct::Move { to }).await.unwrap();
    assert_eq!(left, PendingWake { at: to, ..seen });
    assert_eq!(wake("moved").await, left);
    assert_eq!(act(&client, &wake("cancelled").await, WakeAct::Cancel).await.unwrap().document, "cancelled");
    assert_eq!(wake_of(&bench, "cancelled").await, None);
    assert_eq!(journalled(), before + 2);
    let fired = wake("fired").await;
    assert!(act(&client, &fired, WakeAct::Fire).await.unwrap().at <= Timestamp::system());
    until("it to fire", async || log(&service, "fired").await == ["d", "expired"]).await;
    let ended = bench.expect::<Ended>(2).await;
    let expired = ended.iter().find(|ended| ended.how == "expired").unwrap();
    assert_eq!(expired.meta.correlation, fired.correlation);
    until("the account to know", async || log(&service, "cancelled").await == ["d", "cancelled"]).await;
    for account in ["moved", "other"] {
        assert_eq!(log(&service, account).await, ["d"]);
    }
    let refused = act(&client, &fired, WakeAct::Fire).await.unwrap_err();
    assert!(refused.starts_with("404 the `deadline` of accounts/fired is no longer pending"), "{refused}");
    service.stop().await;
}

/// How many entries the journal has.
fn rows(bench: &Bench) -> i64 {
    let store = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    store.query_row("SELECT count(*) FROM journal", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_changed_since_it_was_seen_is_left_alone() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let client = async_nats::connect(bench.broker.url()).await.unwrap();
    publish(&bench, "a", "d", Act::Deadline(HOUR)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let seen = wake_of(&bench, "a").await.unwrap();
    publish(&bench, "a", "again", Act::Deadline(2 * HOUR)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let standing = wake_of(&bench, "a").await.unwrap();
    for what in [WakeAct::Move { to: Timestamp::system() }, WakeAct::Fire, WakeAct::Cancel] {
        let refused = act(&client, &seen, what).await.unwrap_err();
        let said = format!("409 the `deadline` of accounts/a has been replaced: it was set at {}", standing.opened);
        assert!(refused.starts_with(&said), "{refused}");
    }
    // A document that changes and keeps its wake is no obstacle.
    publish(&bench, "a", "mark", Act::Mark).await;
    bench.until_handled(&BANK, SERVICE).await;
    act(&client, &standing, WakeAct::Cancel).await.unwrap();
    assert_eq!(log(&service, "a").await, ["d", "again", "mark", "cancelled"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_is_not_touched_while_it_runs_tried_at_once_when_fired_and_never_cancelled() {
    let bench = bench().await;
    let world = World::default();
    world.answer("a", [Answer::Hold]);
    world.outside().otherwise = Some(Answer::Hold);
    let mut timing = short();
    timing.effect_retry.first = Duration::from_secs(3600);
    timing.effect_retry.longest = Duration::from_secs(3600);
    timing.effect_timeout = LONG;
    let service = bench.run(ledger(&world), timing).await;
    let client = async_nats::connect(bench.broker.url()).await.unwrap();
    publish(&bench, "a", "c", Act::Charge).await;
    until("it to run", async || world.calls_of("a").len() == 1).await;
    let running = wake_of(&bench, "a").await.unwrap();
    let until_then = running.lease.unwrap();
    for what in [WakeAct::Fire, WakeAct::Move { to: Timestamp::system() }, WakeAct::Cancel] {
        let refused = act(&client, &running, what).await.unwrap_err();
        let said = "409 the `charge` of accounts/a is running now (attempt 1): an instance holds it until ";
        assert_eq!(refused, format!("{said}{until_then} at the latest"));
    }
    world.answer("a", [Answer::Paid]);
    world.outside().otherwise = Some(Answer::Down);
    let waits = async || wake_of(&bench, "a").await.filter(|wake| wake.lease.is_none());
    let waiting = millstream::testing::eventually("the outage to be written down", LONG, waits).await;
    assert_eq!((waiting.attempt, waiting.generation), (1, running.generation));
    let refused = act(&client, &waiting, WakeAct::Cancel).await.unwrap_err();
    assert!(refused.starts_with("409 a `charge` cannot be cancelled"), "{refused}");
    act(&client, &waiting, WakeAct::Fire).await.unwrap();
    until("it to be tried again and paid", async || log(&service, "a").await == ["c", "paid"]).await;
    assert_eq!(world.calls_of("a").iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 2]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_stands_in_the_audit_also_one_that_is_refused() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    publish(&bench, "a", "d", Act::Deadline(HOUR)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let operator = operator(&bench).await;
    let by = By { who: "ada@laptop".into(), why: "the customer asked".into() };
    let seen = wake_of(&bench, "a").await.unwrap();
    let to = Timestamp::system() + Duration::from_millis(2 * HOUR);
    assert_eq!(operator.act_on(&seen, WakeAct::Move { to }, &by).await.unwrap().at, to);
    operator.act_on(&seen, WakeAct::Cancel, &by).await.unwrap();
    let refused = operator.act_on(&seen, WakeAct::Fire, &by).await.unwrap_err();
    assert!(matches!(&refused, OperatorError::NotFound(why) if why.contains("is no longer pending")), "{refused}");
    let audited = operator.audited(10).await.unwrap();
    assert_eq!(audited.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["fire", "cancel", "move"]);
    let AuditEntry { who, why, service: of, what, details, .. } = &audited[2];
    assert_eq!((who, why, of.as_str(), what.as_str()), (&by.who, &by.why, SERVICE, "accounts/a"));
    assert_eq!((&details["from"], &details["to"]), (&json!(seen.at), &json!(to)));
    // Nothing is done that cannot be written down.
    bench.jetstream().delete_stream("AUDIT").await.unwrap();
    let claimed = async_nats::jetstream::stream::Config {
        name: "OTHER".into(),
        subjects: vec!["audit.>".into()],
        ..Default::default()
    };
    bench.jetstream().create_stream(claimed).await.unwrap();
    publish(&bench, "b", "d", Act::Deadline(HOUR)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let seen = wake_of(&bench, "b").await.unwrap();
    operator.act_on(&seen, WakeAct::Cancel, &by).await.unwrap_err();
    assert_eq!(wake_of(&bench, "b").await, Some(seen));
    service.stop().await;
}

#[tokio::test]
async fn a_question_that_is_not_understood_is_answered_with_what_would_be_right() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let client = async_nats::connect(bench.broker.url()).await.unwrap();
    let refused = async |endpoint: &str, question: Value| ask(&client, endpoint, &question).await.unwrap_err();
    let journal = refused("journal", json!({ "id": "x" })).await;
    assert!(journal.starts_with(r#"400 millstream.journal.ledger takes {"ids": ["<uuid>", "#), "{journal}");
    let many: Vec<_> = (0..257).map(|_| millstream::testing::fresh_meta().id).collect();
    assert_eq!(refused("journal", json!({ "ids": many })).await, "400 at most 256 ids at once, not 257");
    let wakes = refused("wakes", json!({ "kinds": [] })).await;
    assert!(wakes.contains("unknown field `kinds`"), "{wakes}");
    let unknown = json!({
        "collection": "accounts", "document": "a", "kind": "nap", "generation": 1, "attempt": 0,
        "act": { "action": "fire" }, "who": "ada", "why": "to see",
    });
    let said = r#"404 `ledger` has no wakes of kind `nap` in `accounts`; its kinds are ["charge", "deadline"]"#;
    assert_eq!(refused("act", unknown.clone()).await, said);
    let mut nobody = unknown;
    nobody["why"] = " ".into();
    assert!(refused("act", nobody).await.starts_with("400 `who` and `why` are to be said"));
    let known = publish(&bench, "a", "n", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let stranger = millstream::testing::fresh_meta().id;
    let found = ask(&client, "journal", &json!({ "ids": [known.id, stranger] })).await.unwrap();
    let [entry] = &found["entries"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&entry["id"], &entry["state"], &entry["seq"]), (&json!(known.id), &json!("done"), &json!(1)));
    service.stop().await;
}
