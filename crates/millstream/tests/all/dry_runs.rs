//! Redriving many with care: a dry run first, step by step, in their order.

use std::collections::HashMap;

use millstream::Id;
use millstream::operator::dead::{DeadFilter, DryEnd, DryRun, LetterState, Outcome, Redrive};

use crate::bank::*;
use crate::redrives::{
    by, closed, counted, fast, impatient, last_in, only, open, operator, redrive, until_queue_is_empty, until_record,
};

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_what_not_and_changes_no_stream() {
    let (bench, _, service, metas) = closed(3).await;
    let operator = operator(&bench).await;
    let cut = Id::random(millstream::Timestamp::system());
    bench.publish_raw(&format!("dlq.ledger.bank-moved.{cut}"), &[("Millstream-Cut", "9")], "{").await;
    let state = async || (last_in(&bench, "DLQ_LEDGER").await, last_in(&bench, "REDRIVE").await);
    let before = state().await;
    let how = Redrive { dry_run: true, limit: 2, ..fast() };
    let report = operator.redrive(&DeadFilter::default(), &how, &by(), |_| ()).await.unwrap();
    assert_eq!((counted(&report, Outcome::WouldGo), counted(&report, Outcome::Held)), (2, 2), "{report:?}");
    let why = |id: Id| report.fates.iter().find(|fate| fate.id == id).unwrap().why.clone().unwrap_or_default();
    let over = metas.iter().filter(|meta| why(meta.id).contains("limit of 2")).count();
    assert!(why(cut).contains("was cut") && over == 1, "{report:?}");
    assert_eq!(state().await, before);
    assert_eq!(last_in(&bench, "AUDIT").await, None);
    service.stop().await;
}

#[tokio::test]
async fn a_dry_run_has_the_service_run_its_handlers_and_says_what_the_redrive_then_does() {
    let (bench, world, service, metas) = closed(2).await;
    let never = publish(&bench, "b", "never", Act::Reject).await;
    bench.expect_dead_letters(SERVICE, 3).await;
    let operator = operator(&bench).await;
    let dry_run = async || {
        let how = Redrive { dry_run: true, ..fast() };
        let report = operator.redrive(&DeadFilter::default(), &how, &by(), |_| ()).await.unwrap();
        let mut of = HashMap::new();
        of.extend(report.fates.into_iter().map(|fate| (fate.id, fate.dry_run.unwrap())));
        of
    };
    let ends = |of: &HashMap<Id, DryRun>| [metas[0].id, metas[1].id, never.id].map(|id| of[&id].end);

    let shut = dry_run().await;
    assert_eq!(ends(&shut), [DryEnd::Retried, DryEnd::Retried, DryEnd::Parked], "{shut:?}");
    assert!(shut[&never.id].error.as_ref().unwrap().starts_with("rejected: "), "{shut:?}");
    open(&world);
    let handled = dry_run().await;
    assert_eq!(ends(&handled), [DryEnd::Handled, DryEnd::Handled, DryEnd::Parked], "{handled:?}");
    let [first, second] = [0, 1].map(|at| &handled[&metas[at].id].changes[0]);
    assert_eq!((&*first.document, first.created, second.created), ("a", true, false), "one after the other");
    assert!(second.fields.contains(&"log".to_owned()), "{second:?}");
    assert_eq!(handled[&metas[0].id].events, ["ledger.noted"]);
    assert!(service.get::<Account>("a").await.is_none(), "nothing has been committed");

    redrive(&operator, &DeadFilter::default()).await;
    for at in [0, 1] {
        until_record(&operator, metas[at].id, LetterState::Resolved, 1).await;
    }
    until_record(&operator, never.id, LetterState::Dead, 1).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["n0", "n1"]);

    service.stop().await;
    let alone = dry_run().await;
    assert_eq!(alone[&never.id].end, DryEnd::Unknown, "nobody is there who could say: {alone:?}");
}

#[tokio::test]
async fn what_has_ended_the_process_is_not_run_for_a_dry_run() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), impatient()).await;
    let id = Id::random(millstream::Timestamp::system());
    let body = serde_json::to_vec(&moved("a", "deadly", Act::Add(1))).unwrap();
    let headers = [("ce-type", "bank.moved.v2"), ("Millstream-Reason", "crash"), ("Millstream-Service", SERVICE)];
    bench.publish_raw(&format!("dlq.ledger.bank-moved.{id}"), &headers, body).await;
    let how = Redrive { dry_run: true, ..fast() };
    let report = operator(&bench).await.redrive(&only(id), &how, &by(), |_| ()).await.unwrap();
    let dry_run = report.fates[0].dry_run.as_ref().unwrap();
    assert_eq!(dry_run.end, DryEnd::Unknown, "{dry_run:?}");
    assert!(dry_run.error.as_ref().unwrap().contains("ended the process"), "{dry_run:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_canary_goes_on_step_by_step_and_stops_at_the_first_that_fails_again() {
    let (bench, world, service, metas) = closed(6).await;
    let never = publish(&bench, "b", "never", Act::Reject).await;
    bench.expect_dead_letters(SERVICE, 7).await;
    let later = publish(&bench, "c", "later", Act::Reject).await;
    bench.expect_dead_letters(SERVICE, 8).await;
    let operator = operator(&bench).await;
    let canary = Redrive { canary: true, ..fast() };
    let shut = operator.redrive(&DeadFilter::default(), &canary, &by(), |_| ()).await.unwrap();
    assert_eq!((counted(&shut, Outcome::Done), counted(&shut, Outcome::Held)), (1, 7), "{shut:?}");
    assert!(shut.fates[1].why.as_ref().unwrap().contains("failed again (exhausted: the bank is closed)"), "{shut:?}");

    open(&world);
    let report = operator.redrive(&DeadFilter::default(), &canary, &by(), |_| ()).await.unwrap();
    // One, two, and five: the last two of these fail, and would have stopped what came after them.
    assert_eq!((counted(&report, Outcome::Done), counted(&report, Outcome::Held)), (8, 0), "{report:?}");
    for meta in &metas {
        let redrives = if meta.id == metas[0].id { 2 } else { 1 };
        until_record(&operator, meta.id, LetterState::Resolved, redrives).await;
    }
    for meta in [never, later] {
        until_record(&operator, meta.id, LetterState::Dead, 1).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_redriven_in_bulk_goes_in_the_order_of_its_stream() {
    let (bench, world, service, metas) = closed(40).await;
    open(&world);
    let operator = operator(&bench).await;
    let report = redrive(&operator, &DeadFilter::default()).await;
    assert_eq!(
        report.fates.iter().map(|fate| fate.id).collect::<Vec<_>>(),
        metas.iter().map(|meta| meta.id).collect::<Vec<_>>()
    );
    until_queue_is_empty(&bench).await;
    let log = async || service.get::<Account>("a").await.map_or(0, |account| account.log.len());
    until("all to be handled", async || log().await == 40).await;
    let account = service.get::<Account>("a").await.unwrap();
    assert_eq!(account.log, (0..40).map(|at| format!("n{at}")).collect::<Vec<_>>());
    service.stop().await;
}
