//! Streams that are deleted while their owner runs.

use async_nats::jetstream::stream::Config;
use millstream::Timestamp;
use millstream::event::Emitted;
use millstream::store::open;
use millstream::testing::{Bench, TestService, fresh_meta};

use crate::bank::*;

const GOOD: usize = 3000;

async fn delete(bench: &Bench, stream: &str) {
    bench.jetstream().delete_stream(stream).await.unwrap();
}

/// Publishes this many acts, one of them bad, and waits until the events of the good ones are out.
async fn one_bad_among(bench: &Bench, service: &TestService, good: usize) {
    publish(bench, "a", "bad", Act::Reject).await;
    let act = |at| moved(&format!("a{}", at % 50), &format!("m{at}"), Act::Add(1));
    let acts: Vec<_> = (0..good).map(|at| (fresh_meta(), act(at))).collect();
    bench.publish_all(acts.iter().map(|(meta, moved)| (meta.clone(), moved))).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(bench.expect::<Noted>(good).await.len(), good);
    let published = async || service.metric("millstream_journal_unpublished", &[]) == Some(0.0);
    until("the watermark to pass all of it", published).await;
}

#[tokio::test]
async fn a_deleted_stream_of_dead_letters_is_made_again_and_all_events_go_out_meanwhile() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    delete(&bench, "DLQ_LEDGER").await;
    one_bad_among(&bench, &service, GOOD).await;
    assert_eq!(bench.expect_dead_letters(SERVICE, 1).await.len(), 1);
    service.until_ready().await;
    service.stop().await;
}

/// Has the service wait for a dead letter whose stream is there and takes none, by a limit of a newer release, which is not
/// this one's to lift; gives the stream's settings.
async fn refuses_a_letter(bench: &Bench, service: &TestService) -> Config {
    let mut letters = bench.jetstream().get_stream("DLQ_LEDGER").await.unwrap().cached_info().config.clone();
    letters.max_message_size = 10;
    letters.metadata.insert("millstream.release".into(), "99.0.0".into());
    bench.jetstream().update_stream(letters.clone()).await.unwrap();
    publish(bench, "a", "bad", Act::Reject).await;
    service.until_waits_for("the broker refuses dlq.ledger.bank-moved.").await;
    letters
}

#[tokio::test]
async fn a_subject_that_the_broker_goes_on_refusing_is_named_and_holds_up_nothing_else() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let mut letters = refuses_a_letter(&bench, &service).await;
    for at in 0..1500 {
        publish(&bench, &format!("a{}", at % 50), &format!("m{at}"), Act::Add(1)).await;
    }
    assert_eq!(bench.expect::<Noted>(1500).await.len(), 1500);
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    letters.max_message_size = -1;
    bench.jetstream().update_stream(letters).await.unwrap();
    assert_eq!(bench.expect_dead_letters(SERVICE, 1).await.len(), 1);
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn a_limit_that_this_release_does_not_declare_is_lifted_and_the_dead_letter_goes_out() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let mut letters = bench.jetstream().get_stream("DLQ_LEDGER").await.unwrap().cached_info().config.clone();
    letters.max_message_size = 10;
    bench.jetstream().update_stream(letters).await.unwrap();
    publish(&bench, "a", "bad", Act::Reject).await;
    assert_eq!(bench.expect_dead_letters(SERVICE, 1).await.len(), 1);
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn what_dead_instances_have_left_goes_out_whatever_the_others_wait_for() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let mut letters = refuses_a_letter(&bench, &service).await;

    let store = open(&bench.store.url(SERVICE)).unwrap();
    let noted = |note: &str| Emitted::event(SERVICE, &fresh_meta(), &Noted { account: "a".into(), note: note.into() });
    let refused =
        Emitted { subject: "dlq.ledger.bank-moved.left".into(), headers: vec![], payload: "too large for it".into() };
    dead_instance(&*store, Timestamp::system(), 0, &[refused, noted("beside").unwrap()]).await;
    dead_instance(&*store, Timestamp::system(), 0, &[noted("alone").unwrap()]).await;
    assert_eq!(bench.expect::<Noted>(2).await.len(), 2);
    // Its own, and the one with something that is refused.
    until("the other's row to go", async || store.instances().await.unwrap().len() == 2).await;
    letters.max_message_size = -1;
    bench.jetstream().update_stream(letters).await.unwrap();
    until("the last row to go", async || store.instances().await.unwrap().len() == 1).await;
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn a_deleted_stream_of_events_is_made_again_and_what_waits_goes_out() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    delete(&bench, LEDGER.name).await;
    one_bad_among(&bench, &service, 100).await;
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn streams_that_were_deleted_while_nothing_was_published_are_there_again_after_a_reconnect() {
    let mut bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    for stream in ["DLQ_LEDGER", "REDRIVE"] {
        delete(&bench, stream).await;
    }
    bench.broker.restart().await;
    for stream in ["DLQ_LEDGER", "REDRIVE"] {
        until(&format!("{stream} to be there"), async || bench.jetstream().get_stream(stream).await.is_ok()).await;
    }
    service.until_ready().await;
    service.stop().await;
}
