//! A service whose task panics or ends does not live on: it stops, says which task it was, and the next instance loses nothing.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use millstream::service::{RunError, TaskEnd};
use millstream::testing::{Bench, fresh_meta};

use crate::bank::*;

const TASKS: [&str; 15] = [
    "engine",
    "lifecycle",
    "http",
    "telemetry",
    "watchers",
    "publisher",
    "acker",
    "discovery",
    "wake sweep",
    "instance sweep",
    "trimmer of LEDGER",
    "consumer of BANK",
    "consumer of REDRIVE",
    "watch of the durable on BANK",
    "watch of the durable on REDRIVE",
];
const MESSAGES: i64 = 200;

/// Fails a task of a service at work, and gives back how the service ended.
async fn fail_task(bench: &Bench, task: &str, action: &str) -> (RunError, String) {
    let name = format!("ledger-{}-{action}", task.to_lowercase().replace(' ', "-")).replace(['(', ')'], "");
    let name: &'static str = name.leak();
    let world = World::default();
    let service = bench.run(ledger_named(name, &world), short()).await;
    let account = async || service.get::<Account>("a").await.map_or(0, |account| account.balance);
    until("some messages to be handled", async || account().await > 0).await;
    let (failpoint, failed) = (format!("task {task} of {name}"), Instant::now());
    fail::cfg(&failpoint, action).unwrap();
    service.until_waits_for("the service is stopping").await;
    let error = service.ended().await.unwrap_err();
    fail::remove(&failpoint);
    assert!(failed.elapsed() < Duration::from_secs(20), "{task}: {:?}", failed.elapsed());

    let next = bench.run(ledger_named(name, &world), short()).await;
    bench.until_handled(&BANK, name).await;
    assert_eq!(next.get::<Account>("a").await.unwrap().balance, MESSAGES, "{task}: each message is handled once");
    next.stop().await;
    (error, name.into())
}

async fn each_task_fails(action: &str, expected: TaskEnd) {
    let bench = bench().await;
    let messages: Vec<_> = (0..MESSAGES).map(|at| moved("a", &format!("m{at}"), Act::Add(1))).collect();
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    let failing = futures_util::stream::iter(TASKS);
    let failing = failing.map(async |failed| (failed, fail_task(&bench, failed, action).await));
    let ended: Vec<_> = failing.buffer_unordered(4).collect().await;
    assert_eq!(ended.len(), TASKS.len());
    for (failed, (error, name)) in ended {
        assert_eq!(error.to_string(), format!("`{name}` stopped because its task `{failed}` {expected}"));
        let RunError::Task { service, task, end } = error else { panic!("{failed}: {error}") };
        assert_eq!((service, task.as_str(), &end), (name.as_str(), failed, &expected));
    }
}

#[tokio::test]
async fn a_service_whose_task_panics_stops_and_names_the_task_and_the_panic() {
    each_task_fails("panic(boom)", TaskEnd::Panicked("boom".into())).await;
}

#[tokio::test]
async fn a_service_whose_task_ends_stops_and_names_the_task() {
    each_task_fails("return", TaskEnd::Returned).await;
}
