//! Dead letters go back to the service that gave them up: once, to nobody else, and their records say what became of it.

use std::sync::atomic::Ordering;

use async_nats::HeaderMap;
use async_nats::jetstream::stream;
use millstream::engine::timing::Timing;
use millstream::event::Emitted;
use millstream::operator::audit::AuditEntry;
use millstream::operator::dead::{DeadFilter, DeadLetter, LetterState, Letters, Outcome, Redrive, Report};
use millstream::operator::{By, Operator, OperatorError};
use millstream::retry::Retry;
use millstream::testing::{Bench, TestService, fresh_meta};
use millstream::{Id, Meta, Received};

use crate::bank::*;

/// Gives up what is to be tried again after the second attempt.
pub(crate) fn impatient() -> Timing {
    let retry = short().message_retry;
    Timing { message_retry: Retry { attempts: 2, ..retry }, ..short() }
}

pub(crate) async fn operator(bench: &Bench) -> Operator {
    Operator::new(async_nats::connect(bench.broker.url()).await.unwrap())
}

pub(crate) fn by() -> By {
    By { who: "ada@bench".into(), why: "the bank is open again".into() }
}

pub(crate) fn fast() -> Redrive {
    Redrive { per_second: 100_000, ..Redrive::default() }
}

pub(crate) fn only(id: Id) -> DeadFilter {
    DeadFilter { id: Some(id), ..DeadFilter::default() }
}

pub(crate) async fn redrive(operator: &Operator, filter: &DeadFilter) -> Report {
    operator.redrive(filter, &fast(), &by(), |_| ()).await.unwrap()
}

pub(crate) fn counted(report: &Report, outcome: Outcome) -> u64 {
    report.counts.get(&outcome).copied().unwrap_or_default()
}

async fn record(operator: &Operator, id: Id) -> Option<DeadLetter> {
    let mut letters = Letters::default();
    letters.update(operator).await.unwrap();
    letters.get(SERVICE, id).cloned()
}

pub(crate) async fn until_record(operator: &Operator, id: Id, state: LetterState, redrives: u32) -> DeadLetter {
    let mut found = None;
    until(&format!("the record of {id} to say {state:?} {redrives}"), async || {
        found = record(operator, id).await;
        found.as_ref().is_some_and(|letter| letter.state == state && letter.redrives == redrives)
    })
    .await;
    found.unwrap()
}

/// Waits until nothing is left in the work queue.
pub(crate) async fn until_queue_is_empty(bench: &Bench) {
    let empty = async || messages_in(bench, "REDRIVE").await == Some(0);
    until("the work queue to be empty", empty).await;
}

async fn messages_in(bench: &Bench, stream: &str) -> Option<u64> {
    Some(bench.jetstream().get_stream(stream).await.ok()?.cached_info().state.messages)
}

pub(crate) async fn last_in(bench: &Bench, stream: &str) -> Option<u64> {
    Some(bench.jetstream().get_stream(stream).await.ok()?.cached_info().state.last_sequence)
}

/// A bench with a service and dead letters of it, which it will handle once the world is open.
pub(crate) async fn closed(count: usize) -> (Bench, World, TestService, Vec<Meta>) {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), impatient()).await;
    let metas: Vec<Meta> = (0..count).map(|_| fresh_meta()).collect();
    let acts: Vec<Moved> = (0..count).map(|at| moved("a", &format!("n{at}"), Act::WhenOpen)).collect();
    bench.publish_all(metas.iter().cloned().zip(&acts)).await;
    bench.expect_dead_letters(SERVICE, count).await;
    bench.until_handled(&BANK, SERVICE).await;
    (bench, world, service, metas)
}

pub(crate) fn open(world: &World) {
    world.open.store(true, Ordering::Release);
}

/// What goes to the service from an operator's hand.
async fn send_redrive(bench: &Bench, letter: &DeadLetter, number: u32) {
    let mut headers = HeaderMap::new();
    letter.headers.iter().filter(|(name, _)| name.starts_with("ce-")).for_each(|(name, value)| {
        headers.append(name.as_str(), millstream::event::encode_header(value).as_str());
    });
    headers.insert("Millstream-Redrive", number.to_string());
    headers.insert("Millstream-Stream", letter.stream.as_str());
    headers.insert("Millstream-Sequence", letter.sequence.to_string());
    headers.insert("Millstream-Subject", letter.subject.as_str());
    let subject = letter.record.replacen("dlq.", "redrive.", 1);
    let sent = bench.jetstream().publish_with_headers(subject, headers, letter.payload.clone()).await.unwrap();
    sent.await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_that_is_redriven_is_handled_once_as_what_it_was_and_its_record_says_resolved() {
    let (bench, world, service, metas) = closed(3).await;
    let operator = operator(&bench).await;
    open(&world);
    let report = redrive(&operator, &only(metas[1].id)).await;
    assert_eq!((report.counts.len(), counted(&report, Outcome::Done)), (1, 1), "{report:?}");
    let letter = until_record(&operator, metas[1].id, LetterState::Resolved, 1).await;
    assert_eq!((letter.reason.as_str(), letter.error.as_str()), ("exhausted", "the bank is closed"));
    assert_eq!((letter.stream.as_str(), letter.sequence), ("BANK", 2));
    until_queue_is_empty(&bench).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["n1"]);
    let told: Vec<Received<Noted>> = bench.expect(1).await;
    assert_eq!((told.len(), told[0].body.note.as_str()), (1, "n1"));
    assert_eq!(told[0].meta.correlation, metas[1].correlation);
    assert_eq!(told[0].meta.causation, Some(metas[1].id.to_string()), "the event is caused by the message itself");
    // The others stay as they are, and a second run sends what is left.
    assert_eq!(record(&operator, metas[0].id).await.unwrap().state, LetterState::Dead);
    let report = redrive(&operator, &DeadFilter::default()).await;
    assert_eq!(report.fates.len(), 2);
    for meta in [&metas[0], &metas[2]] {
        until_record(&operator, meta.id, LetterState::Resolved, 1).await;
    }
    assert_eq!(bench.events::<Noted>().await.len(), 3);
    // The one that was dealt with is told about when it is named.
    let report = redrive(&operator, &only(metas[1].id)).await;
    assert_eq!(report.fates[0].outcome, Outcome::Held);
    assert!(report.fates[0].why.as_ref().unwrap().contains("handled"), "{report:?}");
    service.stop().await;
}

#[tokio::test]
async fn one_that_fails_again_is_a_dead_letter_again_with_attempts_counted_anew() {
    let (bench, _, service, metas) = closed(1).await;
    let operator = operator(&bench).await;
    let first = record(&operator, metas[0].id).await.unwrap();
    redrive(&operator, &DeadFilter::default()).await;
    let again = until_record(&operator, metas[0].id, LetterState::Dead, 1).await;
    assert_eq!((again.attempts, again.reason.as_str()), (2, "exhausted"));
    assert_eq!(
        (&again.record, &again.fingerprint, again.first_failure),
        (&first.record, &first.fingerprint, first.first_failure)
    );
    assert_eq!((&again.stream, again.sequence, &again.subject), (&first.stream, first.sequence, &first.subject));
    assert_eq!((again.who, &again.payload), (None, &first.payload));
    assert!(again.last_failure > first.last_failure);
    assert_eq!(messages_in(&bench, "DLQ_LEDGER").await, Some(1), "one record of one message");
    until_queue_is_empty(&bench).await;
    service.stop().await;
}

#[tokio::test]
async fn one_that_has_come_back_three_times_is_held_unless_it_is_forced() {
    let (bench, world, service, metas) = closed(1).await;
    let operator = operator(&bench).await;
    for count in 1..=3 {
        assert_eq!(counted(&redrive(&operator, &DeadFilter::default()).await, Outcome::Done), 1);
        until_record(&operator, metas[0].id, LetterState::Dead, count).await;
    }
    let report = redrive(&operator, &DeadFilter::default()).await;
    assert_eq!((report.fates.len(), report.fates[0].outcome), (1, Outcome::Held));
    assert!(report.fates[0].why.as_ref().unwrap().contains("failed again after 3 redrives"), "{report:?}");
    open(&world);
    let how = Redrive { force: true, ..fast() };
    let report = operator.redrive(&DeadFilter::default(), &how, &by(), |_| ()).await.unwrap();
    assert_eq!((report.fates[0].outcome, report.fates[0].redrive), (Outcome::Done, 4));
    until_record(&operator, metas[0].id, LetterState::Resolved, 4).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redrives_that_overlap_do_the_work_once() {
    let (bench, world, service, metas) = closed(40).await;
    open(&world);
    let (one, two) = (operator(&bench).await, operator(&bench).await);
    let all = DeadFilter::default();
    // In several windows.
    let slow = Redrive { per_second: 16, ..fast() };
    let me = by();
    let (first, second) = tokio::join!(one.redrive(&all, &slow, &me, |_| ()), two.redrive(&all, &slow, &me, |_| ()));
    let (first, second) = (first.unwrap(), second.unwrap());
    for meta in &metas {
        until_record(&one, meta.id, LetterState::Resolved, 1).await;
    }
    let done = counted(&first, Outcome::Done) + counted(&second, Outcome::Done);
    assert!(done >= 40, "{first:?} {second:?}");
    until_queue_is_empty(&bench).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log.len(), 40);
    assert_eq!(bench.events::<Noted>().await.len(), 40);
    service.stop().await;
}

#[tokio::test]
async fn a_redrive_that_comes_again_after_its_end_is_acked_and_its_outcome_is_told_again() {
    let (bench, world, service, metas) = closed(1).await;
    let operator = operator(&bench).await;
    let id = metas[0].id;
    redrive(&operator, &DeadFilter::default()).await;
    let letter = until_record(&operator, id, LetterState::Dead, 1).await;
    until_queue_is_empty(&bench).await;
    // The broker has forgotten the outcome, as one that lost the end of its stream would.
    let forget = async || {
        let stream = bench.jetstream().get_stream("DLQ_LEDGER").await.unwrap();
        stream.purge().await.unwrap();
        // Also which messages it has had.
        let mut config = stream.cached_info().config.clone();
        config.duplicate_window = std::time::Duration::from_millis(100);
        bench.jetstream().update_stream(&config).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    };
    forget().await;
    send_redrive(&bench, &letter, 1).await;
    let told = until_record(&operator, id, LetterState::Dead, 1).await;
    assert_eq!((told.payload, told.attempts), (letter.payload.clone(), letter.attempts));
    until_queue_is_empty(&bench).await;
    assert_eq!(world.attempts()["n0"].len(), 4, "it was not handled for that");

    open(&world);
    redrive(&operator, &DeadFilter::default()).await;
    until_record(&operator, id, LetterState::Resolved, 2).await;
    // Whatever its number, what is done is not handled again.
    for number in [1, 2, 7] {
        forget().await;
        send_redrive(&bench, &letter, number).await;
        until_record(&operator, id, LetterState::Resolved, 2.max(number)).await;
        until_queue_is_empty(&bench).await;
    }
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["n0"]);
    assert_eq!(world.attempts()["n0"].len(), 5);
    service.stop().await;
}

#[tokio::test]
async fn a_redrive_of_what_the_service_does_not_know_is_not_handled_and_says_that_it_is_unknown() {
    let (bench, world, service, metas) = closed(1).await;
    open(&world);
    let operator = operator(&bench).await;
    let mut letter = record(&operator, metas[0].id).await.unwrap();
    let stranger = Id::random(millstream::Timestamp::system());
    letter.record = letter.record.replace(&metas[0].id.to_string(), &stranger.to_string());
    send_redrive(&bench, &letter, 1).await;
    until_record(&operator, stranger, LetterState::Dead, 1).await;
    let told = record(&operator, stranger).await.unwrap();
    assert_eq!((told.reason.as_str(), &told.payload), ("unknown", &letter.payload), "its body is kept");
    until_queue_is_empty(&bench).await;
    assert!(service.get::<Account>("a").await.is_none());
    // What is no redrive at all is in nobody's way.
    let sent = bench.jetstream().publish("redrive.ledger.nonsense", "?".into()).await.unwrap();
    sent.await.unwrap();
    until_queue_is_empty(&bench).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_sent_does_not_hold_up_the_rest() {
    let (bench, world, service, metas) = closed(5).await;
    open(&world);
    let operator = operator(&bench).await;
    let letter = record(&operator, metas[0].id).await.unwrap();
    let cut = Id::random(millstream::Timestamp::system());
    let headers = [("Millstream-Cut", "999"), ("ce-type", "bank.moved.v2")];
    bench.publish_raw(&format!("dlq.ledger.bank-moved.{cut}"), &headers, "{").await;
    bench.publish_raw("dlq.ledger.odd", &[], "{}").await;
    // Somebody changes one record after it was read, and before it is claimed.
    let meanwhile = |progress: millstream::operator::dead::Progress| {
        if progress.dealt_with == 0 {
            let change = bench.publish_raw(&letter.record, &[("Millstream-State", "discarded")], "{}");
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(change));
        }
    };
    let report = operator.redrive(&DeadFilter::default(), &fast(), &by(), meanwhile).await.unwrap();
    let of = |id: Id| report.fates.iter().find(|fate| fate.id == id).unwrap();
    assert_eq!(of(metas[0].id).outcome, Outcome::Taken);
    assert_eq!(of(cut).outcome, Outcome::Held);
    assert!(of(cut).why.as_ref().unwrap().contains("1 of 999 bytes"), "{report:?}");
    assert_eq!((counted(&report, Outcome::Done), counted(&report, Outcome::Held)), (4, 2), "{report:?}");
    for meta in &metas[1..] {
        until_record(&operator, meta.id, LetterState::Resolved, 1).await;
    }
    assert_eq!(record(&operator, metas[0].id).await.unwrap().state, LetterState::Discarded);
    assert_eq!(service.get::<Account>("a").await.unwrap().log.len(), 4);
    service.stop().await;
}

#[tokio::test]
async fn a_redrive_that_comes_with_repeats_of_its_message_is_not_lost_among_them() {
    let (bench, world, service, metas) = closed(1).await;
    service.stop().await;
    open(&world);
    let operator = operator(&bench).await;
    // The messages of both streams come into the same batches, and the first of each is a repeat.
    let event = moved("a", "n0", Act::WhenOpen);
    bench.publish_all((0..3000).map(|_| (metas[0].clone(), &event))).await;
    redrive(&operator, &DeadFilter::default()).await;
    let service = bench.run(ledger(&world), impatient()).await;
    until_record(&operator, metas[0].id, LetterState::Resolved, 1).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["n0"]);
    service.stop().await;
}

#[tokio::test]
async fn an_edited_copy_is_handled_as_a_new_message_and_the_original_is_kept_and_says_so() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let meta = publish(&bench, "a", "bad", Act::Reject).await;
    bench.expect_dead_letters(SERVICE, 1).await;
    let operator = operator(&bench).await;
    let before = record(&operator, meta.id).await.unwrap();
    let refused = async |payload: String| match operator.edit(SERVICE, meta.id, payload.into(), &by()).await {
        Err(OperatorError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused("no json".into()).await.contains("new one is not"));
    let same = String::from_utf8(before.payload.to_vec()).unwrap();
    assert!(refused(same).await.contains("nothing differs"));
    let large = moved("a", &"x".repeat(1 << 20), Act::Add(3));
    assert!(refused(serde_json::to_string(&large).unwrap()).await.contains("bytes"));
    assert!(operator.audited(10).await.unwrap().is_empty(), "what is refused is no act");
    assert_eq!(record(&operator, meta.id).await.unwrap().state, LetterState::Dead);

    let good = serde_json::to_vec(&moved("a", "bad", Act::Add(3))).unwrap();
    let edited = operator.edit(SERVICE, meta.id, good.clone().into(), &by()).await.unwrap();
    assert_eq!(edited.difference.len(), 1);
    assert_eq!((edited.difference[0].0.as_str(), &edited.difference[0].1), ("/act", &"Reject".into()));
    let told: Vec<Received<Noted>> = bench.expect(1).await;
    assert_eq!(told[0].meta.causation, Some(edited.id.to_string()));
    assert_eq!(told[0].meta.correlation, meta.correlation);
    let original = until_record(&operator, meta.id, LetterState::Edited, 0).await;
    assert_eq!((original.edited_to, &original.payload), (Some(edited.id), &before.payload));
    assert_eq!((original.who, original.why), (Some(by().who), Some(by().why)));
    until_queue_is_empty(&bench).await;
    let about = operator.audited_about(meta.id).await.unwrap();
    assert_eq!((about.len(), about[0].action.as_str()), (1, "edit"));
    assert_eq!(about[0].details["difference"][0][0], "/act");
    assert_eq!(about[0].details["id"], edited.id.to_string());

    // The same edit again is the same, another one comes too late, and neither does anything.
    let again = operator.edit(SERVICE, meta.id, good.into(), &by()).await.unwrap();
    assert_eq!(again.id, edited.id);
    assert!(refused("{}".into()).await.contains("edited, as"));
    assert_eq!(counted(&redrive(&operator, &DeadFilter::default()).await, Outcome::Done), 0);
    until_queue_is_empty(&bench).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 3);
    let unknown = operator.edit(SERVICE, edited.id, "{}".into(), &by()).await;
    assert!(matches!(unknown, Err(OperatorError::NotFound(_))), "{unknown:?}");
    service.stop().await;
}

#[tokio::test]
async fn an_edited_copy_that_fails_is_a_dead_letter_of_its_own_and_can_be_redriven() {
    let (bench, world, service, metas) = closed(1).await;
    let operator = operator(&bench).await;
    let payload = serde_json::to_vec(&moved("a", "other", Act::WhenOpen)).unwrap();
    let edited = operator.edit(SERVICE, metas[0].id, payload.into(), &by()).await.unwrap();
    let letter = until_record(&operator, edited.id, LetterState::Dead, 0).await;
    assert_eq!((letter.edited_from, letter.stream.as_str(), letter.sequence), (Some(metas[0].id), "BANK", 1));
    assert_eq!(letter.causation, Some(metas[0].id.to_string()));
    open(&world);
    redrive(&operator, &DeadFilter::default()).await;
    until_record(&operator, edited.id, LetterState::Resolved, 1).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["other"]);
    service.stop().await;
}

#[tokio::test]
async fn what_is_discarded_is_kept_for_a_while_and_not_redriven() {
    let (bench, world, service, metas) = closed(2).await;
    open(&world);
    let operator = operator(&bench).await;
    let dry = operator.discard(&DeadFilter::default(), 10, true, &by(), |_| ()).await.unwrap();
    assert_eq!(counted(&dry, Outcome::WouldGo), 2);
    assert_eq!(last_in(&bench, "AUDIT").await, None);
    let report = operator.discard(&only(metas[0].id), 10, false, &by(), |_| ()).await.unwrap();
    assert_eq!((report.fates.len(), report.fates[0].outcome), (1, Outcome::Done));
    let letter = record(&operator, metas[0].id).await.unwrap();
    assert_eq!((letter.state, letter.who, letter.why), (LetterState::Discarded, Some(by().who), Some(by().why)));
    assert!(!letter.payload.is_empty());
    let ttl = letter.headers.iter().find(|(name, _)| name == "Nats-TTL").map(|(_, ttl)| ttl.as_str());
    assert_eq!(ttl, Some("2592000s"));
    let report = redrive(&operator, &DeadFilter::default()).await;
    assert_eq!(report.fates.len(), 1, "{report:?}");
    until_record(&operator, metas[1].id, LetterState::Resolved, 1).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["n1"]);
    let actions: Vec<String> = operator.audited(10).await.unwrap().into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["redrive", "discard"], "the newest first");
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_claimed_or_sent_that_the_audit_has_not_taken() {
    let (bench, world, service, metas) = closed(3).await;
    open(&world);
    let operator = operator(&bench).await;
    let full = stream::Config {
        name: "AUDIT".into(),
        subjects: vec!["audit.>".into()],
        // Nobody can change that.
        storage: stream::StorageType::Memory,
        allow_direct: true,
        ..Default::default()
    };
    bench.jetstream().create_stream(full.clone()).await.unwrap();
    let before = (last_in(&bench, "DLQ_LEDGER").await, last_in(&bench, "REDRIVE").await);
    let all = DeadFilter::default();
    let redriven = operator.redrive(&all, &fast(), &by(), |_| ()).await;
    let edited = operator.edit(SERVICE, metas[0].id, "{}".into(), &by()).await;
    let discarded = operator.discard(&all, 10, false, &by(), |_| ()).await;
    for error in [redriven.unwrap_err(), edited.unwrap_err(), discarded.unwrap_err()] {
        assert!(error.to_string().contains("the audit cannot be written"), "{error}");
    }
    assert_eq!((last_in(&bench, "DLQ_LEDGER").await, last_in(&bench, "REDRIVE").await), before);
    bench.jetstream().delete_stream("AUDIT").await.unwrap();
    redrive(&operator, &all).await;
    let entries: Vec<AuditEntry> = operator.audited(10).await.unwrap();
    assert_eq!(entries.len(), 3);
    for entry in &entries {
        assert_eq!((entry.who.as_str(), entry.why.as_str()), (by().who.as_str(), by().why.as_str()));
        assert_eq!((entry.service.as_str(), entry.details["redrive"].as_u64()), (SERVICE, Some(1)));
    }
    service.stop().await;
}

#[tokio::test]
async fn an_event_of_somebody_else_without_an_id_is_redriven_as_the_message_that_it_was() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), impatient()).await;
    let body = serde_json::to_vec(&moved("a", "foreign", Act::WhenOpen)).unwrap();
    for headers in [&[("ce-type", "bank.moved.v2")][..], &[("ce-type", "bank.moved.v2"), ("ce-id", "1")]] {
        bench.publish_raw("bank.moved.0", headers, body.clone()).await;
    }
    let letters: Vec<Emitted> = bench.expect_dead_letters(SERVICE, 2).await;
    open(&world);
    let operator = operator(&bench).await;
    redrive(&operator, &DeadFilter::default()).await;
    for letter in letters {
        let id = letter.header("Millstream-Id").unwrap().parse().unwrap();
        until_record(&operator, id, LetterState::Resolved, 1).await;
    }
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["foreign", "foreign"]);
    assert_eq!(messages_in(&bench, "DLQ_LEDGER").await, Some(2));
    service.stop().await;
}

#[tokio::test]
async fn the_work_queue_as_a_newer_release_has_declared_it_is_left_as_it_is() {
    let bench = bench().await;
    let newer = stream::Config {
        name: "REDRIVE".into(),
        subjects: vec!["redrive.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        max_messages_per_subject: 2,
        metadata: [("millstream.release".to_owned(), "99.0.0".to_owned())].into(),
        ..Default::default()
    };
    bench.jetstream().create_stream(newer).await.unwrap();
    let service = bench.run(ledger(&World::default()), short()).await;
    let operator = operator(&bench).await;
    let meta = publish(&bench, "a", "bad", Act::Reject).await;
    bench.expect_dead_letters(SERVICE, 1).await;
    redrive(&operator, &DeadFilter::default()).await;
    until_record(&operator, meta.id, LetterState::Dead, 1).await;
    let config = bench.jetstream().get_stream("REDRIVE").await.unwrap().cached_info().config.clone();
    assert_eq!(config.max_messages_per_subject, 2);
    service.stop().await;
}

#[tokio::test]
async fn a_redrive_of_a_type_that_is_ignored_by_now_is_done_with() {
    let (bench, _, service, metas) = closed(1).await;
    service.stop().await;
    let operator = operator(&bench).await;
    redrive(&operator, &DeadFilter::default()).await;
    let later = millstream::Service::new(SERVICE).publishes(LEDGER).keeps::<Account>();
    let later = later.reads(BANK, millstream::Start::Beginning).ignores::<Moved>();
    let service = bench.run(later, short()).await;
    until_record(&operator, metas[0].id, LetterState::Resolved, 1).await;
    until_queue_is_empty(&bench).await;
    assert!(service.get::<Account>("a").await.is_none());
    service.stop().await;
}

#[tokio::test]
async fn one_that_is_ahead_of_its_release_may_wait_again_when_it_is_redriven() {
    let bench = bench().await;
    let timing = Timing { ahead_patience: std::time::Duration::from_millis(300), ..short() };
    let service = bench.run(ledger(&World::default()), timing.clone()).await;
    let body = serde_json::to_vec(&moved("a", "n", Act::Add(1))).unwrap();
    let id = Id::random(millstream::Timestamp::system());
    let headers = [("ce-type", "bank.moved.v3"), ("ce-id", &id.to_string())];
    bench.publish_raw("bank.moved.0", &headers, body).await;
    let operator = operator(&bench).await;
    let first = until_record(&operator, id, LetterState::Dead, 0).await;
    assert_eq!(first.reason, "ahead");
    let started = std::time::Instant::now();
    redrive(&operator, &DeadFilter::default()).await;
    let again = until_record(&operator, id, LetterState::Dead, 1).await;
    assert!(started.elapsed() >= timing.ahead_patience, "a newer release had its time to take it");
    assert_eq!((again.reason.as_str(), again.first_failure), ("ahead", first.first_failure));
    service.stop().await;
}

#[tokio::test]
async fn the_work_queue_that_somebody_deletes_is_made_again() {
    let (bench, world, service, metas) = closed(1).await;
    open(&world);
    bench.jetstream().delete_stream("REDRIVE").await.unwrap();
    let operator = operator(&bench).await;
    redrive(&operator, &DeadFilter::default()).await;
    until_record(&operator, metas[0].id, LetterState::Resolved, 1).await;
    service.until_ready().await;
    service.stop().await;
}
