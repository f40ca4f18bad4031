//! Operators that die while they redrive, and what is redriven and deadly.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millstream::Id;
use millstream::operator::dead::{DeadFilter, Edited, Letters, Outcome};
use millstream::operator::{By, Operator};
use millstream::testing::{crash_at, eventually};
use serde::{Deserialize, Serialize};

use super::audit::{Place, redrive_all};
use super::child::Child;
use super::ledger::{Asked, How, NAME};

const SOON: Duration = Duration::from_secs(60);

/// What an operator's process is told, in the variable that is named by [`OPERATOR`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Orders {
    nats: String,
    per_second: u32,
    /// The one dead letter that is edited instead, and its new body.
    edit: Option<(Id, String)>,
    /// Where to die, and at which time of being there.
    crash: Option<(String, u64)>,
}

const OPERATOR: &str = "MILLSTREAM_OPERATOR";

/// Not a test: the process of an operator who redrives all.
#[test]
fn an_operator_process() {
    let Ok(orders) = std::env::var(OPERATOR) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    if let Some((point, nth)) = &orders.crash {
        crash_at(point, *nth);
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let operator = Operator::new(async_nats::connect(&orders.nats).await.unwrap());
        match orders.edit {
            Some((id, body)) => drop(edit(&operator, id, body).await),
            None => drop(redrive_all(&operator, orders.per_second).await),
        }
    });
}

async fn edit(operator: &Operator, id: Id, body: String) -> Edited {
    let by = By { who: "test".into(), why: "it was wrong".into() };
    operator.edit(NAME, id, body.into(), &by).await.unwrap()
}

/// A running operator; killed when dropped.
struct Process(std::process::Child);

impl Process {
    fn start(orders: &Orders) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::redrive::an_operator_process", "--nocapture"])
            .env(OPERATOR, serde_json::to_string(orders).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(process.unwrap())
    }

    /// Waits until it has ended, and says by which signal.
    async fn end(&mut self) -> Option<i32> {
        let process = &mut self.0;
        eventually("an operator's process that has ended", SOON, async || process.try_wait().unwrap()).await.signal()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// So many dead letters that will be booked when they are redriven, and the process that has given them up.
async fn dead_letters(place: &mut Place, count: usize) -> Child {
    let child = Child::start(&place.errand());
    child.ready().await;
    for window in vec![How::Mended; count].chunks(500) {
        // As many as the client lets wait for their acks.
        place.publish_all(window).await;
    }
    let dead = async || place.stored("DLQ_LEDGER").await == count;
    eventually(&format!("{count} dead letters"), SOON, dead).await;
    assert_eq!(place.dead_letters().await.len(), count);
    child
}

async fn audited(operator: &Operator) -> Vec<String> {
    operator.audited(usize::MAX >> 1).await.unwrap().into_iter().map(|entry| entry.what).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn wherever_an_operator_dies_another_run_goes_on_and_each_dead_letter_is_handled_once() {
    for (point, nth) in [
        ("after_audit", 1),
        ("before_claim", 1),
        ("before_claim", 4),
        ("after_claim", 1),
        ("before_send", 1),
        ("before_send", 4),
        ("after_send", 1),
    ] {
        println!("{point}, time {nth}");
        let mut place = Place::new().await;
        let _ledger = dead_letters(&mut place, 6).await;
        let crash = Some((point.to_owned(), nth));
        let mut first = Process::start(&Orders { nats: place.broker.url(), per_second: 100_000, edit: None, crash });
        assert_eq!(first.end().await, Some(6), "{point}");
        let operator = place.operator().await;
        assert_eq!(audited(&operator).await.len(), 6, "{point}: all of the window is audited before anything is done");
        let report = place.redrive().await;
        assert_eq!(report.counts.keys().copied().filter(|outcome| *outcome != Outcome::Done).count(), 0, "{report:?}");
        place.balances(1, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn wherever_an_operator_dies_while_editing_the_same_edit_goes_on_and_the_copy_is_handled_once() {
    for point in ["after_audit", "before_claim", "after_claim", "before_send", "after_send"] {
        println!("{point}");
        let mut place = Place::new().await;
        let ledger = Child::start(&place.errand());
        ledger.ready().await;
        place.publish(How::Refused).await;
        eventually("a dead letter", SOON, async || !place.dead_letters().await.is_empty()).await;
        let operator = place.operator().await;
        let mut letters = Letters::default();
        letters.update(&operator).await.unwrap();
        let id = letters.list(&DeadFilter::default())[0].id;
        let body = serde_json::to_string(&Asked { n: 1, how: How::AtOnce }).unwrap();
        place.edited(1, How::AtOnce);
        let (nats, crash) = (place.broker.url(), Some((point.to_owned(), 1)));
        let mut first = Process::start(&Orders { nats, per_second: 1, edit: Some((id, body.clone())), crash });
        assert_eq!(first.end().await, Some(6), "{point}");
        edit(&operator, id, body).await;
        place.balances(1, SOON).await;
        assert_eq!(audited(&operator).await, [id.to_string(), id.to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_kills_the_process_when_it_is_redriven_is_parked_again_and_those_beside_it_are_handled() {
    let mut place = Place::new().await;
    let errand = place.errand();
    let mut child = dead_letters(&mut place, 20).await;
    place.publish(How::RefusedThenDeadly).await;
    eventually("one more", SOON, async || place.dead_letters().await.len() == 21).await;
    place.redrive().await;
    let mut deaths = 0;
    place
        .balances_while(1, SOON, async || {
            if let Some(status) = child.ended() {
                assert_eq!(status.signal(), Some(6), "{status}: {}", child.said());
                deaths += 1;
                child = Child::start(&errand);
            }
        })
        .await;
    assert!((3..=8).contains(&deaths), "{deaths} deaths");
}

/// How many dead letters an operator who is killed redrives: on a slow machine `MILLSTREAM_REDRIVES` may say fewer.
fn many() -> usize {
    std::env::var("MILLSTREAM_REDRIVES").map_or(10_000, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn ten_thousand_redriven_by_an_operator_who_is_killed_three_times_are_each_handled_once_and_audited() {
    let count = many();
    let mut place = Place::new().await;
    let started = Instant::now();
    let ledger = dead_letters(&mut place, count).await;
    println!("{count} dead letters after {:?}", started.elapsed());
    let operator = place.operator().await;
    let orders =
        Orders { nats: place.broker.url(), per_second: u32::try_from(count / 2).unwrap(), edit: None, crash: None };
    let started = Instant::now();
    for quarter in 1..=3 {
        let mut process = Process::start(&orders);
        let far = async || place.stored("AUDIT").await >= count * quarter / 4;
        eventually("an operator who is in the midst of it", SOON, far).await;
        process.0.kill().unwrap();
        assert_eq!(process.end().await, Some(9));
    }
    let report = place.redrive().await;
    println!("the last run: {:?}, {:?} in all", report.counts, started.elapsed());
    place.balances(1, SOON * 3).await;
    println!("all handled {:?} after the first redrive", started.elapsed());
    let known: BTreeSet<String> = audited(&operator).await.into_iter().collect();
    assert_eq!(known.len(), count, "each is audited");
    drop(ledger);
}
