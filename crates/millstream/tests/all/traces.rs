//! What one order set off: who emitted it, who has handled it and when, what is missing.

use std::time::Duration;

use millstream::operator::dead::{DeadFilter, LetterState};
use millstream::operator::trace::{Handled, Look, Trace, TracedEvent};
use millstream::operator::{By, OperatorError};
use millstream::telemetry::Metric;
use millstream::testing::Bench;
use millstream::{Document, Fault, Handler, Id, Keys, Received, Service, Start, Timestamp, Unit};
use serde::{Deserialize, Serialize};

use crate::bank::*;
use crate::status::operator;

/// A second service behind the first: it counts what was noted of an account.
#[derive(Clone, Serialize, Deserialize)]
struct Count {
    id: String,
    count: u32,
}

impl Document for Count {
    const COLLECTION: &'static str = "counts";
    fn id(&self) -> &str {
        &self.id
    }
}

struct CountNotes(World);

impl Handler<Noted> for CountNotes {
    fn touches(&self, event: &Received<Noted>) -> Keys {
        Keys::one::<Count>(&event.account)
    }
    fn handle(&self, event: &Received<Noted>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        if !self.0.open.load(std::sync::atomic::Ordering::Acquire) {
            return Err(Fault::Retry("not open yet".into()));
        }
        let count = unit.get::<Count>(&event.account)?.map_or(0, |count| count.count);
        unit.put(Count { id: event.account.clone(), count: count + 1 });
        Ok(())
    }
}

fn counter(world: &World) -> Service {
    let none: [&Metric; 0] = [];
    Service::new("counter").keeps::<Count>().reads(LEDGER, Start::Beginning).on(CountNotes(world.clone())).metrics(none)
}

async fn trace(bench: &Bench, id: &str) -> Trace {
    operator(bench).await.trace(id, Look::default()).await.unwrap()
}

fn shape(trace: &Trace) -> Vec<(u32, &str, &str)> {
    trace
        .events
        .iter()
        .map(|event| (event.depth, event.event.event().unwrap(), event.event.source.as_deref().unwrap()))
        .collect()
}

fn handled<'a>(trace: &'a Trace, event: &str) -> &'a Handled {
    let of = |traced: &&TracedEvent| traced.event.event() == Some(event);
    let [handled] = &trace.events.iter().find(of).unwrap().handled[..] else { panic!("{trace:?}") };
    handled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_shows_who_emitted_and_who_handled_what_and_when() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(counter(&world), short()).await);
    let key = Id::random(Timestamp::system()).to_string();
    let begun = Timestamp::system();
    let first = publish(&bench, &key, "first", Act::Deadline(3_600_000)).await;
    // Others' events beside it, of the same partition too.
    for at in 0..50 {
        publish(&bench, &format!("other{at}"), "other", Act::Add(1)).await;
    }
    bench.expect::<Noted>(51).await;

    // Tried in vain so far.
    let open = async || {
        let trace = trace(&bench, &key).await;
        let attempts = handled(&trace, "ledger.noted").attempts;
        Some(trace).filter(|_| attempts >= 2)
    };
    let tried = millstream::testing::eventually("two attempts", LONG, open).await;
    let noted = handled(&tried, "ledger.noted");
    assert_eq!((noted.state.as_str(), noted.error.as_deref()), ("open", Some("not open yet")));
    let [gap] = &tried.gaps[..] else { panic!("{:?}", tried.gaps) };
    assert!(gap.starts_with("`counter` has not handled ledger.noted.v1 (LEDGER "), "{gap}");
    assert!(gap.contains("times and is tried again (not open yet)"), "{gap}");

    world.open.store(true, std::sync::atomic::Ordering::Release);
    bench.until_handled(&LEDGER, "counter").await;
    let done = trace(&bench, &key).await;
    assert_eq!(shape(&done), [(0, "bank.moved", "bench"), (1, "ledger.noted", SERVICE)]);
    for event in ["bank.moved", "ledger.noted"] {
        let Handled { state, at, instance, .. } = handled(&done, event);
        assert_eq!(state, "done");
        assert!(at.unwrap() >= begun && at.unwrap() <= Timestamp::system() && instance.is_some(), "{done:?}");
    }
    assert!(handled(&done, "ledger.noted").at >= handled(&done, "bank.moved").at);
    assert!(handled(&done, "ledger.noted").attempts >= 2 && handled(&done, "bank.moved").attempts == 0);
    let [wake] = &done.wakes[..] else { panic!("{:?}", done.wakes) };
    assert_eq!(
        (wake.service.as_str(), wake.kind.as_str(), wake.document.as_str()),
        (SERVICE, "deadline", key.as_str())
    );
    assert_eq!(done.gaps, [""; 0]);

    // By any of its ids it is the same.
    let noted = done.events[1].event.id.unwrap().to_string();
    for id in [first.id.to_string(), noted, first.correlation] {
        let same = trace(&bench, &id).await;
        assert_eq!(shape(&same), shape(&done), "{id}");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_service_has_not_handled_waits_and_what_it_has_is_unknown() {
    let bench = bench().await;
    let world = World::default();
    world.open.store(true, std::sync::atomic::Ordering::Release);
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(counter(&world), short()).await);
    let key = Id::random(Timestamp::system()).to_string();
    publish(&bench, &key, "before", Act::Add(1)).await;
    bench.expect::<Noted>(1).await;
    bench.until_handled(&LEDGER, "counter").await;
    two.stop().await;
    publish(&bench, &key, "after", Act::Add(1)).await;
    bench.expect::<Noted>(2).await;
    bench.until_handled(&BANK, SERVICE).await;

    let found = trace(&bench, &key).await;
    let silent = "`counter` does not answer: what it has handled, and what of it waits there, is not known";
    let state = |note: &str| {
        let of =
            |traced: &&TracedEvent| traced.event.stream == "LEDGER" && traced.event.payload.value()["note"] == note;
        found.events.iter().find(of).unwrap().handled[0].state.clone()
    };
    // The other service's part is there.
    assert_eq!(handled(&found, "bank.moved").state, "done");
    assert_eq!((state("before"), state("after")), ("silent".into(), "silent".into()));
    assert_eq!(found.gaps, [silent]);

    // One that answers, and is not given anything.
    let pause = serde_json::json!({ "pause_until": Timestamp::system() + Duration::from_secs(600) });
    let paused: Result<serde_json::Value, _> = bench.jetstream().request("CONSUMER.PAUSE.LEDGER.counter", &pause).await;
    assert_eq!(paused.unwrap()["paused"], true);
    let two = bench.launch(counter(&world), short()).await;
    let answers = async || trace(&bench, &key).await.events.iter().all(|traced| traced.handled[0].state != "silent");
    until("it to answer", answers).await;
    let found = trace(&bench, &key).await;
    let states: Vec<&str> = found.events.iter().map(|traced| traced.handled[0].state.as_str()).collect();
    assert_eq!(states, ["done", "done", "done", "waiting"]);
    assert_eq!(found.gaps, ["`counter` has not handled ledger.noted.v1 (LEDGER 2) yet"]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cause_outside_of_the_time_looked_at_is_found_and_a_lost_one_is_missed() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    // The correlation id holds no time, and neither does the key.
    let meta = millstream::Meta { correlation: "request 1".into(), ..millstream::testing::fresh_meta() };
    bench.publish(&meta, &moved("a", "one", Act::Add(1))).await;
    bench.expect::<Noted>(1).await;
    bench.until_handled(&BANK, SERVICE).await;
    let found = trace(&bench, "request 1").await;
    assert_eq!(shape(&found), [(0, "bank.moved", "bench"), (1, "ledger.noted", SERVICE)]);
    assert_eq!(found.gaps, [""; 0]);
    // Found by its own id alone, an event leads to its correlation and so to its cause.
    bench.jetstream().get_stream("BANK").await.unwrap().purge().await.unwrap();
    let found = trace(&bench, "request 1").await;
    assert_eq!(shape(&found), [(0, "ledger.noted", SERVICE)]);
    assert_eq!(found.gaps, ["the cause of ledger.noted.v1 (LEDGER 1) is not there any more: it was BANK 1"]);

    // What a command has caused has no event before it.
    service.submit_to(&world, moved("c", "command", Act::Add(1))).await.unwrap();
    bench.expect::<Noted>(2).await;
    let found = trace(&bench, "c").await;
    assert_eq!((shape(&found), found.gaps.len()), (vec![(0, "ledger.noted", SERVICE)], 0));
    let error = operator(&bench).await.trace("nothing", Look::default()).await.unwrap_err();
    assert!(matches!(&error, OperatorError::NotFound(why) if why.starts_with("nothing in BANK, LEDGER has `nothing`")));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_is_missing_until_somebody_has_dealt_with_its_dead_letter() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let key = Id::random(Timestamp::system()).to_string();
    let bad = publish(&bench, &key, "bad", Act::Reject).await;
    bench.expect_dead_letters(SERVICE, 1).await;
    let found = trace(&bench, &key).await;
    let parked = handled(&found, "bank.moved");
    assert_eq!((parked.state.as_str(), parked.error.as_deref()), ("parked", Some("the bank refuses bad")));
    assert_eq!(found.dead.iter().map(|letter| letter.id).collect::<Vec<_>>(), [bad.id]);
    assert_eq!(found.gaps, ["`ledger` has given up bank.moved.v2 (BANK 1) (the bank refuses bad)"]);

    let by = By { who: "ada".into(), why: "a test".into() };
    let this = DeadFilter { id: Some(bad.id), ..DeadFilter::default() };
    operator(&bench).await.discard(&this, 1, false, &by, |_| ()).await.unwrap();
    let found = trace(&bench, &key).await;
    assert_eq!((found.dead.len(), found.dead[0].state), (1, LetterState::Discarded));
    assert_eq!(found.gaps, [""; 0]);
    service.stop().await;
}
