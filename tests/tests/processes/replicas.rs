//! Two replicas on one database, under load throughout, while one of them is killed or stopped again and again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream::testing::eventually;
use tokio::task::JoinHandle;

use super::audit::Place;
use super::child::Child;
use super::ledger::How;

/// For a command to be answered, and after the last kill for all that is left to be handled.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_lose_and_double_nothing_while_one_is_killed_again_and_again() {
    kill_one_again_and_again(Place::new().await, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn two_replicas_on_mongo_lose_and_double_nothing_while_one_is_killed_again_and_again() {
    let Some(place) = Place::on_mongo().await else { return };
    // What the dead one has left open is in the others' way for a second, and three deaths in that time with the same message in
    // hand, alone, would park it.
    kill_one_again_and_again(place, 1500).await;
}

async fn kill_one_again_and_again(mut place: Place, shortest_ms: u64) {
    let errand = place.errand();
    let mut replicas = [Child::start(&errand), Child::start(&errand)];
    for replica in &replicas {
        replica.ready().await;
    }
    let callers = Callers::start(&replicas);
    let mut dice = Dice::new();
    for round in 0..8 {
        let life = Duration::from_millis(shortest_ms + dice.roll(1000));
        load(&mut place, life).await;
        // Mostly one, and now and then the other: the survivor is not always the same.
        let which = usize::from(dice.roll(4) == 0);
        println!("round {round}: {which} is killed after {life:?}");
        replicas[which].signal("KILL");
        replicas[which].end("a process that was killed").await;
        load(&mut place, Duration::from_millis(dice.roll(300))).await;
        replicas[which] = Child::start(&errand);
        callers.turn_to(&replicas);
        replicas[which].ready().await;
    }
    callers.end(&mut place).await;
    place.balances(2, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_doubles_and_parks_nothing() {
    restart_one_after_the_other(Place::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_rolling_restart_on_mongo_under_load_loses_doubles_and_parks_nothing() {
    let Some(place) = Place::on_mongo().await else { return };
    restart_one_after_the_other(place).await;
}

async fn restart_one_after_the_other(mut place: Place) {
    let errand = place.errand();
    let mut replicas = [Child::start(&errand), Child::start(&errand)];
    for replica in &replicas {
        replica.ready().await;
    }
    let callers = Callers::start(&replicas);
    for round in 0..6 {
        load(&mut place, Duration::from_millis(500)).await;
        let which = round % 2;
        let before = Instant::now();
        replicas[which].signal("TERM");
        load(&mut place, Duration::from_millis(100)).await;
        let status = replicas[which].end("a process that was told to stop").await;
        let took = before.elapsed();
        let said = replicas[which].said();
        assert!(status.success(), "round {round}: {status}\n{said}");
        assert!(took < Duration::from_secs(10), "round {round}: stopping took {took:?}\n{said}");
        assert_eq!(place.instances().len(), 1, "round {round}: only the other's instance row is left\n{said}");
        replicas[which] = Child::start(&errand);
        callers.turn_to(&replicas);
        replicas[which].ready().await;
    }
    callers.end(&mut place).await;
    place.balances(2, PATIENCE).await;
    for mut replica in replicas {
        replica.signal("TERM");
        let status = replica.end("a process that was told to stop").await;
        assert!(status.success(), "{status}\n{}", replica.said());
    }
    place.balances(0, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_single_writer_is_killed_under_load_a_replica_that_stands_by_goes_on_within_seconds() {
    let mut place = Place::new().await;
    let errand = super::ledger::Errand { pin_ms: Some(1000), ..place.errand() };
    let mut replicas = [Child::start(&errand), Child::start(&errand)];
    for replica in &replicas {
        replica.ready().await;
    }
    for round in 0..3 {
        load(&mut place, Duration::from_millis(500)).await;
        let what = "one to stand by, which is ready";
        let standby = eventually(what, PATIENCE, async || {
            let stands = [replicas[0].stands_by().await, replicas[1].stands_by().await];
            stands.iter().position(|stands| *stands)
        })
        .await;
        replicas[standby].ready().await;
        let active = 1 - standby;
        replicas[active].signal("KILL");
        replicas[active].end("a process that was killed").await;
        let before = Instant::now();
        place.publish(How::AtOnce).await;
        place.balances(1, PATIENCE).await;
        println!("round {round}: {active} was killed, and the other went on after {:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
        assert!(!replicas[standby].stands_by().await, "it reads");
        replicas[active] = Child::start(&errand);
        replicas[active].ready().await;
    }
}

/// Publishes messages of all kinds for a while, faster than one at a time and slower than would be a burst.
async fn load(place: &mut Place, time: Duration) {
    let until = Instant::now() + time;
    let mut mixed = [How::AtOnce; 20];
    mixed[3..6].fill(How::Outside);
    mixed[10..12].fill(How::Later);
    mixed[15] = How::Again;
    while Instant::now() < until {
        place.publish_all(&mixed).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clients that give commands to both replicas, each under a key of its own until it is answered.
struct Callers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<BTreeSet<u64>>>,
}

struct Shared {
    urls: Mutex<Vec<String>>,
    stop: AtomicBool,
}

const CALLERS: u64 = 4;

impl Callers {
    fn start(replicas: &[Child]) -> Self {
        let shared = Arc::new(Shared { urls: Mutex::default(), stop: AtomicBool::new(false) });
        let tasks = (0..CALLERS).map(|caller| tokio::spawn(call(caller, shared.clone()))).collect();
        let callers = Self { shared, tasks };
        callers.turn_to(replicas);
        callers
    }

    /// From now on these replicas are called.
    fn turn_to(&self, replicas: &[Child]) {
        *self.shared.urls.lock().unwrap() = replicas.iter().map(|replica| replica.url("/entries")).collect();
    }

    /// Lets each command that was given come to its answer; all of them are booked then.
    async fn end(self, place: &mut Place) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let answered = task.await.unwrap();
            assert!(!answered.is_empty(), "a caller was never answered");
            for n in answered {
                place.commanded(n);
            }
        }
    }
}

async fn call(caller: u64, shared: Arc<Shared>) -> BTreeSet<u64> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let mut answered = BTreeSet::new();
    let mut tries = caller;
    for count in 0.. {
        // Numbers that no message has.
        let n = (caller + 1) * 1_000_000 + count;
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "waited {PATIENCE:?} in vain for an answer to command {n}");
            if tries.is_multiple_of(8) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tries += 1;
            let urls = shared.urls.lock().unwrap().clone();
            let Some(url) = urls.get(usize::try_from(tries).unwrap() % urls.len().max(1)) else { continue };
            let request = client.post(url).header("Idempotency-Key", format!("entry-{n}"));
            let answer = request.json(&serde_json::json!({ "n": n })).send().await;
            match answer {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => {
                    let status = answer.status();
                    assert!(status.is_server_error(), "{n}: {status}: {}", answer.text().await.unwrap_or_default());
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answered.insert(n);
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    answered
}

/// Random enough for times; says its seed, so that a run can be told from another.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
        println!("the dice begin with {seed}");
        Self(seed)
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
