//! Intents: what others may do with a document whose effect is still to come, or under way.

use millstream::engine::timing::Timing;

use crate::bank::*;

#[tokio::test]
async fn an_open_intent_may_be_marked_and_not_moved_or_cleared_by_another_message() {
    let bench = bench().await;
    let world = World::default();
    world.answer("a", [Answer::Hang, Answer::Paid]);
    let timing = Timing { effect_timeout: LONG, effect_grace: std::time::Duration::ZERO, ..short() };
    let service = bench.run(ledger(&world), timing).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    until("the charge to run", async || !world.calls_of("a").is_empty()).await;
    publish(&bench, "a", "mark", Act::Mark).await;
    publish(&bench, "a", "cancel", Act::Cancel).await;
    publish(&bench, "a", "move", Act::Deadline(0)).await;
    publish(&bench, "a", "again", Act::Charge).await;
    let letters = bench.expect_dead_letters(SERVICE, 3).await;
    for letter in &letters {
        assert_eq!(letter.header("Millstream-Reason").unwrap(), "misuse");
        let error = letter.header("Millstream-Error").unwrap();
        assert!(error.contains("open `charge`: only its outcome may move or clear it"), "{error}");
    }
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(letters.len(), 3);
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["charge", "mark"]);
    // Stopping gives the effect back; the next instance runs it again, and what was marked is still there.
    service.stop().await;
    let service = bench.run(ledger(&world), short()).await;
    let log = async || service.get::<Account>("a").await.unwrap().log;
    until("the charge to be settled", async || log().await == ["charge", "mark", "paid"]).await;
    assert_eq!(world.calls_of("a").len(), 2);
    assert!(world.outside().overlaps.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn an_intent_that_found_no_free_slot_has_not_begun_and_can_be_cancelled() {
    let bench = bench().await;
    let world = World::default();
    world.answer("busy", [Answer::Hang, Answer::Paid]);
    let timing = Timing { effect_slots: 1, ..short() };
    let service = bench.run(ledger(&world), timing).await;
    publish(&bench, "busy", "charge", Act::Charge).await;
    until("the only slot to be taken", async || !world.calls_of("busy").is_empty()).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    publish(&bench, "b", "charge", Act::Charge).await;
    publish(&bench, "a", "cancel", Act::Cancel).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["charge", "cancel"]);
    let log = async |account| service.get::<Account>(account).await.unwrap().log;
    until("the others to be paid", async || log("b").await.len() == 2 && log("busy").await.len() == 2).await;
    assert!(world.calls_of("a").is_empty());
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn an_intent_and_its_cancellation_in_one_batch_never_reach_the_outside() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), Timing { ack_wait: LONG * 2, ..short() }).await;
    let received = |count| service.metric("messaging_client_consumed_messages_total", &[]) == Some(count);
    // The loop is held in a commit while the others come in.
    let lock = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    lock.busy_timeout(LONG).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    publish(&bench, "other", "first", Act::Add(1)).await;
    until("the first to be taken", async || received(1.0)).await;
    for (note, act) in [("charge", Act::Charge), ("cancel", Act::Cancel), ("add", Act::Add(1))] {
        publish(&bench, "a", note, act).await;
    }
    until("the others to be there", async || received(4.0)).await;
    lock.execute_batch("ROLLBACK").unwrap();
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["charge", "cancel", "add"]);
    assert!(world.calls_of("a").is_empty());
    service.stop().await;
}
