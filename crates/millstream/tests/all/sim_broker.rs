//! The model of the broker says what a real one says: the same histories are given to both, and after each step everything that
//! can be seen of them is compared.
//!
//! No step is taken close to a moment at which something happens by itself (a redelivery is due, a pin runs out): it is waited
//! until that has happened on both. If the machine was too slow for that, the history begins anew on a fresh stream; and if they
//! differ it does, too, a few times: what is due within a millisecond comes in either order.

mod histories;
mod sides;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use millstream::testing::Broker;

use self::histories::{histories, random_history};
use self::sides::{Model, Real, Side, Step};

/// How far a step keeps away from what is to happen by itself, in milliseconds.
const AHEAD: u64 = 150;
const BEHIND: u64 = 50;
/// How close it may have come in the end, in milliseconds.
const CLOSE: u64 = 20;

/// Why a history did not come to its end.
enum Stopped {
    /// The machine was too slow for what was to be compared; what was compared last.
    TooSlow(String),
    /// The two say different things.
    Differ(String),
}

async fn run(history: &[Step], real: &mut Real, model: &mut Model) -> Result<(), Stopped> {
    let started = Instant::now();
    // The model's time begins with something to subtract from.
    let clock = |at: Instant| u64::try_from((at - started).as_millis()).unwrap() + 1_000_000;
    let mut lag = 0;
    let mut done = vec![];
    for step in history {
        if let Step::Wait(ms) = step {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
        }
        loop {
            let now = clock(Instant::now());
            model.state(now).await;
            let Some(change) = model.broker.next_change().filter(|change| *change <= now + AHEAD) else { break };
            tokio::time::sleep(Duration::from_millis(change + BEHIND + lag - now.min(change))).await;
        }
        let now = clock(Instant::now());
        let expected = model.step(now, step, None).await;
        let seen = real.step(now, step, Some(&expected)).await;
        lag = lag.max(clock(real.acted) - now);
        done.push(format!("{step:?} -> {expected:?}"));
        // What the step itself has set off at once is no matter.
        let soon = now + 12..=clock(Instant::now()) + CLOSE;
        if model.broker.next_change().is_some_and(|change| soon.contains(&change)) {
            return Err(Stopped::TooSlow(format!("after {done:#?}\nserver {seen:?}\nmodel  {expected:?}")));
        }
        if seen != expected {
            return Err(Stopped::Differ(format!("after {done:#?}\nserver {seen:?}\nmodel  {expected:?}")));
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        let before = model.state(now).await;
        loop {
            let have = real.state(now).await;
            if have == before {
                break;
            }
            if model.broker.next_change().is_some_and(|change| change <= clock(Instant::now()) + CLOSE) {
                return Err(Stopped::TooSlow(format!("after {done:#?}\nserver {have}\nmodel  {before}")));
            }
            if Instant::now() > deadline {
                return Err(Stopped::Differ(format!("after {done:#?}\nserver {have}\nmodel  {before}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Gives histories to both, some at a time.
async fn compare(histories: Vec<(String, Vec<Step>)>) {
    let broker = Broker::start().await;
    let client = async_nats::connect(broker.url()).await.unwrap();
    let runs = histories.into_iter().enumerate().map(|(nth, (name, history))| {
        let client = client.clone();
        async move {
            let mut last = String::new();
            let mut differed = 0;
            for attempt in 0..10 {
                let stream = format!("S{nth:02}_{attempt}");
                let (mut real, mut model) = (Real::new(client.clone(), &stream), Model::new(&stream));
                match run(&history, &mut real, &mut model).await {
                    Ok(()) => return None,
                    Err(Stopped::TooSlow(how)) => last = how,
                    Err(Stopped::Differ(how)) if differed == 2 => return Some(format!("{name}: {how}")),
                    Err(Stopped::Differ(how)) => (last, differed) = (how, differed + 1),
                }
            }
            Some(format!("{name}: the machine is too slow, or {last}"))
        }
    });
    let runs = futures_util::stream::iter(runs).buffer_unordered(16);
    let failures: Vec<String> = runs.filter_map(async |failure| failure).collect().await;
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_of_the_broker_says_what_a_server_says() {
    compare(histories().into_iter().map(|(name, history)| (name.to_owned(), history)).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_of_the_broker_says_what_a_server_says_of_random_histories() {
    compare((0..20).map(|seed| (format!("seed {seed}"), random_history(seed))).collect()).await;
}
