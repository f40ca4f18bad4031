//! What all readers have is taken away in time, what one has not stays, and a full stream is felt at the edge.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use millstream::commands::CommandError;
use millstream::engine::timing::Timing;
use millstream::testing::{Bench, TestService};
use millstream::{Document, Fault, Handler, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

use crate::bank::*;

/// The ledger's stream, so small that it can be filled.
const SMALL: Stream = Stream { max_bytes: 256 << 10, ..LEDGER };
const READER: &str = "statistics";

/// How many notes there were.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Total {
    count: u64,
}

impl Document for Total {
    const COLLECTION: &'static str = "totals";
    fn id(&self) -> &str {
        "all"
    }
}

struct Fold;

impl Handler<SmallNoted> for Fold {
    fn touches(&self, _: &Received<SmallNoted>) -> Keys {
        Keys::one::<Total>("all")
    }
    fn handle(&self, _: &Received<SmallNoted>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let total = unit.get::<Total>("all")?.unwrap_or_default();
        unit.put(Total { count: total.count + 1 });
        Ok(())
    }
}

/// A note, on the small stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SmallNoted {
    account: String,
    note: String,
}

impl millstream::Event for SmallNoted {
    const TYPE: &'static str = "ledger.noted";
    const STREAM: Stream = SMALL;
    fn key(&self) -> &str {
        &self.account
    }
}

/// Emits a note with some weight.
#[derive(Serialize)]
struct Say(String);

impl millstream::Command for Say {
    type Reply = ();
    fn touches(&self, _: millstream::Id) -> Keys {
        Keys::none()
    }
    fn handle(&self, _: millstream::Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        unit.emit(&SmallNoted { account: self.0.clone(), note: "x".repeat(400) });
        Ok(())
    }
}

fn speaker() -> Service {
    Service::new("speaker").publishes(SMALL)
}

fn statistics() -> Service {
    Service::new(READER).keeps::<Total>().reads(SMALL, Start::Beginning).on(Fold)
}

fn quick() -> Timing {
    Timing { trim_every: Duration::from_millis(10), ..short() }
}

async fn say(service: &TestService, what: usize) -> Result<(), CommandError> {
    service.submit(Say(format!("s{what}"))).await.map(drop)
}

async fn state(bench: &Bench) -> async_nats::jetstream::stream::State {
    bench.jetstream().get_stream(SMALL.name).await.unwrap().cached_info().state.clone()
}

async fn until_counted(service: &TestService, count: usize) {
    let all = async || service.get::<Total>("all").await.is_some_and(|total| total.count >= count as u64);
    until(&format!("{count} to be counted"), all).await;
    assert_eq!(service.get::<Total>("all").await.unwrap().count, count as u64, "each once");
}

/// Speaks until it is refused; gives how often it was heard.
async fn fill(service: &TestService) -> usize {
    let mut said = 0;
    loop {
        match say(service, said).await {
            Ok(()) => said += 1,
            Err(CommandError::Unavailable(why)) => {
                assert_eq!(why, "the stream LEDGER is nearly full: its readers are behind");
                return said;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(said < 5000, "nobody was ever refused");
    }
}

#[tokio::test]
async fn a_reader_that_stands_still_is_felt_at_the_edge_and_then_catches_up_with_all_of_it() {
    let bench = Bench::start().await;
    // Old is everything at once: age alone takes nothing away that a reader has not got.
    let timing = Timing { trim_older_than: Duration::ZERO, admit_below: 0.5, ..quick() };
    let speaker = bench.run(speaker(), timing).await;
    let reader = bench.run(statistics(), short()).await;
    say(&speaker, 0).await.unwrap();
    until_counted(&reader, 1).await;
    reader.stop().await;

    let said = 1 + fill(&speaker).await;
    until("all of it to be published", async || state(&bench).await.last_sequence == said as u64).await;
    let full = state(&bench).await;
    assert!(full.bytes < SMALL.max_bytes, "there is room left for what is under way");
    assert!(full.first_sequence <= 2, "what the reader has not got is there: {full:?}");
    assert!(say(&speaker, 0).await.is_err(), "and so it stays");

    let reader = bench.run(statistics(), short()).await;
    until_counted(&reader, said).await;
    until("commands to be taken again", async || say(&speaker, said).await.is_ok()).await;
    until_counted(&reader, said + 1).await;
    until("all to be trimmed", async || state(&bench).await.messages == 0).await;
    // Counted once the broker has said that they are gone.
    let trimmed = async || speaker.metric("millstream_stream_trimmed_messages_total", &[]) == Some(said as f64 + 1.0);
    until("what was trimmed to be counted", trimmed).await;
    reader.stop().await;
    speaker.stop().await;
}

#[tokio::test]
#[ignore = "long"]
async fn ten_times_the_limit_goes_through_healthy_readers_and_nobody_is_refused() {
    let bench = Bench::start().await;
    // So small a stream leaves room for a busy machine only if its trimming begins early.
    let speaker = bench.run(speaker(), Timing { trim_above: 0.4, ..quick() }).await;
    let reader = bench.run(statistics(), short()).await;
    let (mut said, mut bytes) = (0, 0);
    while bytes < 10 * SMALL.max_bytes {
        say(&speaker, said).await.unwrap();
        said += 1;
        bytes += 700;
        if said % 20 == 0 {
            // A healthy reader is not far behind, also on a busy machine.
            until_counted(&reader, said).await;
        }
    }
    until_counted(&reader, said).await;
    let left = state(&bench).await;
    assert!(left.messages >= 50, "what is young is kept as long as there is room: {left:?}");
    reader.stop().await;
    speaker.stop().await;
}

#[tokio::test]
async fn what_is_old_goes_once_it_is_handled_and_what_is_young_stays() {
    let bench = Bench::start().await;
    let timing = Timing { trim_older_than: Duration::from_secs(2), ..quick() };
    let speaker = bench.run(speaker(), timing).await;
    let reader = bench.run(statistics(), short()).await;
    for at in 0..5 {
        say(&speaker, at).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for at in 0..5 {
        say(&speaker, at).await.unwrap();
    }
    until_counted(&reader, 10).await;
    until("the old half to go", async || state(&bench).await.first_sequence == 6).await;
    until("the rest to go when it is old", async || state(&bench).await.messages == 0).await;
    reader.stop().await;
    speaker.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_missing_holds_the_stream_and_is_named_also_after_a_restart_of_the_owner() {
    let bench = Bench::start().await;
    let timing = Timing { trim_older_than: Duration::ZERO, ..quick() };
    let service = bench.run(speaker(), timing.clone()).await;
    let reader = bench.run(statistics(), short()).await;
    say(&service, 0).await.unwrap();
    until_counted(&reader, 1).await;
    until("it to be trimmed", async || state(&bench).await.messages == 0).await;
    reader.stop().await;
    let stream = bench.jetstream().get_stream(SMALL.name).await.unwrap();
    stream.delete_consumer(READER).await.unwrap();
    let held = async |service: &TestService, held: f64| {
        let shown = async || service.metric("millstream_stream_trim_held", &[("stream_name", "LEDGER")]) == Some(held);
        until(&format!("the gauge to show {held}"), shown).await;
    };
    held(&service, 1.0).await;
    service.stop().await;
    let service = bench.run(speaker(), timing).await;
    held(&service, 1.0).await;
    say(&service, 1).await.unwrap();
    until("it to be published", async || state(&bench).await.messages == 1).await;

    // It comes back, and has missed nothing.
    let reader = bench.run(statistics(), short()).await;
    until_counted(&reader, 2).await;
    held(&service, 0.0).await;
    until("it to be trimmed", async || state(&bench).await.messages == 0).await;
    reader.stop().await;

    // Gone for good: made best effort, its durable may be deleted.
    let config = pull::Config {
        durable_name: Some(READER.into()),
        ack_policy: AckPolicy::Explicit,
        metadata: [("millstream.best_effort".into(), "true".into())].into(),
        ..pull::Config::default()
    };
    stream.delete_consumer(READER).await.unwrap();
    held(&service, 1.0).await;
    stream.create_consumer(config).await.unwrap();
    held(&service, 0.0).await;
    stream.delete_consumer(READER).await.unwrap();
    say(&service, 2).await.unwrap();
    until("it to be trimmed without a reader", async || {
        let state = state(&bench).await;
        state.last_sequence == 3 && state.messages == 0
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_best_effort_reader_holds_nothing_and_reads_on_from_what_is_there() {
    let bench = Bench::start().await;
    let timing = Timing { trim_older_than: Duration::ZERO, ..quick() };
    let speaker = bench.run(speaker(), timing).await;
    let statistics = || Service::new(READER).keeps::<Total>().reads(SMALL, Start::Beginning).best_effort().on(Fold);
    let reader = bench.run(statistics(), short()).await;
    reader.stop().await;
    for at in 0..500 {
        say(&speaker, at).await.unwrap();
    }
    until("all to be trimmed", async || {
        let state = state(&bench).await;
        state.last_sequence == 500 && state.messages == 0
    })
    .await;
    let reader = bench.run(statistics(), short()).await;
    // What it has missed stays missed; what comes now may go again before it has it.
    until("something to be counted", async || {
        say(&speaker, 0).await.unwrap();
        reader.get::<Total>("all").await.is_some_and(|total| total.count > 0)
    })
    .await;
    reader.stop().await;
    speaker.stop().await;
}

#[tokio::test]
async fn what_nobody_has_read_yet_is_not_trimmed_however_late_the_first_reader_comes() {
    let bench = Bench::start().await;
    let timing = Timing { trim_older_than: Duration::ZERO, ..quick() };
    let speaker = bench.run(speaker(), timing).await;
    for at in 0..20 {
        say(&speaker, at).await.unwrap();
    }
    let held = async || speaker.metric("millstream_stream_trim_held", &[("stream_name", "LEDGER")]) == Some(1.0);
    until("trimming to be held", held).await;
    let reader = bench.run(statistics(), short()).await;
    until_counted(&reader, 20).await;
    assert_eq!(reader.metric("millstream_messages_gone_total", &[]), Some(0.0));
    until("all to be trimmed", async || state(&bench).await.messages == 0).await;
    reader.stop().await;
    speaker.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_named_holds_the_stream_before_its_first_start_and_an_empty_list_lets_it_go() {
    let bench = Bench::start().await;
    let timing = || Timing { trim_older_than: Duration::ZERO, ..quick() };
    let named = bench.run(speaker().read_by([READER, "archive"]), timing()).await;
    let reader = bench.run(statistics(), short()).await;
    for at in 0..20 {
        say(&named, at).await.unwrap();
    }
    until_counted(&reader, 20).await;
    let held = async || named.metric("millstream_stream_trim_held", &[("stream_name", "LEDGER")]) == Some(1.0);
    until("trimming to be held for the other", held).await;
    assert_eq!(state(&bench).await.first_sequence, 1);
    let archive = Service::new("archive").keeps::<Total>().reads(SMALL, Start::Beginning).on(Fold);
    let archive = bench.run(archive, short()).await;
    until_counted(&archive, 20).await;
    until("all to be trimmed", async || state(&bench).await.messages == 0).await;
    for service in [named, reader, archive] {
        service.stop().await;
    }

    let bench = Bench::start().await;
    let alone = bench.run(speaker().read_by([]), timing()).await;
    say(&alone, 0).await.unwrap();
    until("it to be trimmed without a reader", async || {
        let state = state(&bench).await;
        state.last_sequence == 1 && state.messages == 0
    })
    .await;
    alone.stop().await;
}

const HELD: Stream = Stream::new("HELD", "held");

#[derive(Serialize, Deserialize)]
struct Told(String);

impl millstream::Event for Told {
    const TYPE: &'static str = "held.told";
    const STREAM: Stream = HELD;
    fn key(&self) -> &str {
        &self.0
    }
}

struct Listen;

impl Handler<Told> for Listen {
    fn touches(&self, _: &Received<Told>) -> Keys {
        Keys::none()
    }
    fn handle(&self, _: &Received<Told>, _: &mut Unit<'_>) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_published_between_the_reads_of_a_tick_survives_it() {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    let bench = Bench::start().await;
    let ((reached, stops), (go, goes)) = (channel::<()>(), channel::<()>());
    let (reached, goes) = (Mutex::new(reached), Mutex::new(goes));
    fail::cfg_callback("stream_read_HELD", move || {
        let _ = reached.lock().unwrap().send(());
        let _ = tokio::task::block_in_place(|| goes.lock().unwrap().recv());
    })
    .unwrap();
    let stops = Mutex::new(stops);
    let stopped = || tokio::task::block_in_place(|| stops.lock().unwrap().recv_timeout(LONG).unwrap());
    let held = async || bench.jetstream().get_stream(HELD.name).await.unwrap().cached_info().state.clone();

    let timing = Timing { trim_older_than: Duration::ZERO, ..quick() };
    let owner = bench.run(Service::new("owner").publishes(HELD), timing).await;
    let reader = bench.run(Service::new("listener").reads(HELD, Start::Beginning).on(Listen), short()).await;
    for at in 0..3 {
        bench.publish(&millstream::testing::fresh_meta(), &Told(at.to_string())).await;
    }
    bench.until_handled(&HELD, "listener").await;
    stopped();
    go.send(()).unwrap();
    stopped();
    // The stream has been read up to here; nobody reads what comes now, so every durable is idle.
    bench.publish_raw("held.other.0", &[], "{}").await;
    for _ in 0..2 {
        go.send(()).unwrap();
        stopped();
    }
    let state = held().await;
    assert_eq!((state.first_sequence, state.messages), (4, 1), "{state:?}");
    go.send(()).unwrap();
    stopped();
    assert_eq!(held().await.messages, 0, "in the end it goes");
    fail::remove("stream_read_HELD");
    drop(go);
    reader.stop().await;
    owner.stop().await;
}
