//! Events that two services gave up: each has its own dead letter, and both have the event's id.

use millstream::dead_letter::subject_token;
use millstream::engine::timing::Timing;
use millstream::operator::dead::{DeadFilter, DeadLetter, LetterState, Letters, Outcome, Redrive, Report};
use millstream::operator::{By, Operator};
use millstream::retry::Retry;
use millstream::store::{Wanted, open};
use millstream::testing::{Bench, TestService};
use millstream::{Id, Meta};

use crate::bank::*;

const READERS: [&str; 2] = ["ledger", "branch"];

fn by() -> By {
    By { who: "ada@bench".into(), why: "the bank is open again".into() }
}

async fn operator(bench: &Bench) -> Operator {
    Operator::new(async_nats::connect(bench.broker.url()).await.unwrap())
}

async fn record(operator: &Operator, service: &str, id: Id) -> DeadLetter {
    let mut letters = Letters::default();
    letters.update(operator).await.unwrap();
    letters.get(service, id).cloned().unwrap()
}

async fn until_record(operator: &Operator, service: &str, id: Id, state: LetterState) {
    until(&format!("{service}'s record of {id} to say {state:?}"), async || {
        record(operator, service, id).await.state == state
    })
    .await;
}

fn done(report: &Report) -> u64 {
    report.counts.get(&Outcome::Done).copied().unwrap_or_default()
}

/// Two services that have both given up this many events.
async fn closed(count: usize) -> (Bench, World, Vec<TestService>, Vec<Meta>) {
    let bench = bench().await;
    let world = World::default();
    let retry = Retry { attempts: 2, ..short().message_retry };
    let mut services = vec![];
    for name in READERS {
        let timing = Timing { message_retry: retry, ..short() };
        services.push(bench.run(ledger_named(name, &world), timing).await);
    }
    let mut metas = vec![];
    for at in 0..count {
        metas.push(publish(&bench, "a", &format!("n{at}"), Act::WhenOpen).await);
    }
    for name in READERS {
        bench.expect_dead_letters(name, count).await;
    }
    world.open.store(true, std::sync::atomic::Ordering::Release);
    (bench, world, services, metas)
}

async fn stop(services: Vec<TestService>) {
    for service in services {
        service.stop().await;
    }
}

async fn last_in_the_queue(bench: &Bench) -> u64 {
    bench.jetstream().get_stream("REDRIVE").await.unwrap().cached_info().state.last_sequence
}

#[tokio::test]
async fn what_two_services_gave_up_goes_back_to_both() {
    let (bench, _world, services, metas) = closed(20).await;
    let operator = operator(&bench).await;
    let report = operator.redrive(&DeadFilter::default(), &Redrive::default(), &by(), |_| ()).await.unwrap();
    assert_eq!((done(&report), report.counts.len()), (40, 1), "{report:?}");
    for meta in &metas {
        for name in READERS {
            until_record(&operator, name, meta.id, LetterState::Resolved).await;
        }
    }
    for service in &services {
        assert_eq!(service.get::<Account>("a").await.unwrap().log.len(), 20);
    }
    assert_eq!(last_in_the_queue(&bench).await, 40);
    stop(services).await;
}

#[tokio::test]
async fn what_two_services_gave_up_and_is_edited_alike_goes_to_both() {
    let (bench, _world, services, metas) = closed(1).await;
    let operator = operator(&bench).await;
    let body = serde_json::to_vec(&moved("a", "mended", Act::Add(3))).unwrap();
    for name in READERS {
        operator.edit(name, metas[0].id, body.clone().into(), &by()).await.unwrap();
    }
    for (name, service) in READERS.iter().zip(&services) {
        until(&format!("{name} to handle the copy"), async || {
            service.get::<Account>("a").await.is_some_and(|account| account.log == ["mended"])
        })
        .await;
        until_record(&operator, name, metas[0].id, LetterState::Edited).await;
    }
    assert_eq!(last_in_the_queue(&bench).await, 2);
    stop(services).await;
}

#[tokio::test]
async fn what_one_of_two_services_gave_up_is_discarded_for_good_and_goes_back_to_the_other() {
    let (bench, _world, services, metas) = closed(1).await;
    let operator = operator(&bench).await;
    let of = |name: &str| DeadFilter { service: Some(name.into()), ..DeadFilter::default() };
    let report = operator.discard(&of(READERS[0]), 10, false, &by(), |_| ()).await.unwrap();
    assert_eq!(done(&report), 1, "{report:?}");
    let report = operator.redrive(&DeadFilter::default(), &Redrive::default(), &by(), |_| ()).await.unwrap();
    assert_eq!((done(&report), report.fates.len()), (1, 1), "{report:?}");
    until_record(&operator, READERS[1], metas[0].id, LetterState::Resolved).await;
    assert_eq!(record(&operator, READERS[0], metas[0].id).await.state, LetterState::Discarded);
    assert!(services[0].get::<Account>("a").await.is_none());
    stop(services).await;
}

#[tokio::test]
async fn a_redrive_that_the_broker_takes_for_another_message_has_failed_and_says_so() {
    let (bench, _world, services, metas) = closed(1).await;
    let operator = operator(&bench).await;
    let id = metas[0].id;
    // Whoever sends to the queue may use any id; nobody takes this message, so it stays there.
    let subject = format!("redrive.nobody.{}.{id}", subject_token("bank.moved"));
    bench.publish_raw(&subject, &[("Nats-Msg-Id", &format!("ledger:{id}:1"))], "?").await;
    let report = operator.redrive(&DeadFilter::default(), &Redrive::default(), &by(), |_| ()).await.unwrap();
    assert_eq!(done(&report), 1, "{report:?}");
    let failed = report.fates.iter().find(|fate| fate.outcome == Outcome::Failed).unwrap();
    assert_eq!((failed.service.as_str(), failed.id), ("ledger", id));
    assert!(failed.why.as_ref().unwrap().contains("took it for a repeat of message 1 of REDRIVE"), "{failed:?}");
    until_record(&operator, READERS[1], id, LetterState::Resolved).await;
    assert_eq!(record(&operator, READERS[0], id).await.state, LetterState::Redriving);
    stop(services).await;
}

/// As a process leaves it that was killed between a publish and its watermark: what it has published last is published again.
#[tokio::test]
async fn a_letter_that_is_published_again_after_an_operator_has_dealt_with_it_changes_nothing() {
    let (bench, _world, services, metas) = closed(3).await;
    let operator = operator(&bench).await;
    let ids: Vec<Id> = metas.iter().map(|meta| meta.id).collect();
    let only = |id: Id| DeadFilter { service: Some(SERVICE.into()), id: Some(id), ..DeadFilter::default() };
    let body = serde_json::to_vec(&moved("a", "mended", Act::Add(3))).unwrap();
    operator.edit(SERVICE, ids[0], body.into(), &by()).await.unwrap();
    operator.discard(&only(ids[1]), 10, false, &by(), |_| ()).await.unwrap();
    stop(services).await;
    operator.redrive(&only(ids[2]), &Redrive::default(), &by(), |_| ()).await.unwrap();

    let store = open(&bench.store.url(SERVICE)).unwrap();
    let wanted = Wanted { journal: ids.clone(), ..Wanted::default() };
    let entries = store.load(wanted).await.unwrap().journal;
    let instance = entries[0].instance;
    assert!(entries.len() == 3 && entries.iter().all(|entry| entry.instance == instance));
    store.insert_instance(instance).await.unwrap();
    // The broker has forgotten by then which messages it has had.
    let mut config = bench.jetstream().get_stream("DLQ_LEDGER").await.unwrap().cached_info().config.clone();
    config.duplicate_window = std::time::Duration::from_millis(100);
    bench.jetstream().update_stream(&config).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;

    let service = bench.run(ledger(&World::default()), short()).await;
    until("the sweep of what was left", async || store.instances().await.unwrap().iter().all(|row| row.id != instance))
        .await;
    assert_eq!(record(&operator, SERVICE, ids[0]).await.state, LetterState::Edited);
    assert_eq!(record(&operator, SERVICE, ids[1]).await.state, LetterState::Discarded);
    // Its redrive has failed again, and that is what the record says, with its number.
    until("the outcome of the redrive", async || record(&operator, SERVICE, ids[2]).await.redrives == 1).await;
    until_record(&operator, SERVICE, ids[2], LetterState::Dead).await;
    service.stop().await;
}
