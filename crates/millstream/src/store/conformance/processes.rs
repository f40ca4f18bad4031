//! What must hold for processes that are killed at any moment, and for several on one database.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Database, Subject, Writer, entry, prepared, put, runtime};
use crate::ids::{Id, Timestamp};
use crate::store::{CommitError, open};

/// The URL of the database that a child process works on.
const URL: &str = "MILLSTREAM_CONFORMANCE_URL";
/// The name that keeps apart what it writes.
const NAME: &str = "MILLSTREAM_CONFORMANCE_NAME";
/// How long a child goes on if nobody kills it.
const CHILD_LIVES: Duration = Duration::from_secs(60);
/// How many commits a child has announced when it is killed.
const COMMITS: u64 = 100;

const ANNOUNCED: &str = "committed ";

/// The process dies without a chance to clean up; a store opened afterwards has all that was announced, and of the commit that
/// was going on either everything or nothing.
pub async fn what_was_committed_before_a_kill_is_there_after_it(subject: Subject) {
    start(&subject).await;
    let announced = kill_after_commits(&mut spawn(&subject, "one"));
    assert_eq!(total(&subject).await, committed(&subject, "one", announced).await);
}

/// Each sees what the other does: the number that both raise is the sum of their commits.
pub async fn two_processes_share_a_database(subject: Subject) {
    start(&subject).await;
    let (mut one, mut other) = (spawn(&subject, "one"), spawn(&subject, "other"));
    let reader = std::thread::spawn(move || kill_after_commits(&mut one));
    let other_announced = kill_after_commits(&mut other);
    let one_announced = reader.join().unwrap();
    let sum = committed(&subject, "one", one_announced).await + committed(&subject, "other", other_announced).await;
    assert_eq!(total(&subject).await, sum);
}

async fn start(subject: &Subject) {
    subject.writer().await.commit(vec![put("total", None, "0")], vec![]).await.unwrap();
}

fn spawn(subject: &Subject, name: &str) -> Child {
    let Database::At { url, .. } = &subject.database else {
        panic!("no other process can open this database: its suite is `conformance_suite!(.., in_process)`")
    };
    // A test is found by its path without the name of the crate.
    let (_, test) = subject.child.split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(URL, url)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the child once it has announced enough; returns the last commit that it announced.
fn kill_after_commits(child: &mut Child) -> u64 {
    let mut last = 0;
    let output = BufReader::new(child.stdout.take().unwrap());
    for line in output.lines() {
        let line = line.unwrap();
        // The test harness writes its own words in front of the first.
        if let Some((_, number)) = line.split_once(ANNOUNCED) {
            last = number.parse().unwrap();
        }
        if last == COMMITS {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success() && last >= COMMITS, "the child ended by itself after {last} commits");
    last
}

/// How many commits of a child are there, all of which must be whole; those that it announced must be among them.
async fn committed(subject: &Subject, name: &str, announced: u64) -> u64 {
    let reader = subject.writer().await;
    let mut count = 0;
    for n in 1..=announced + 2 {
        let parts = [
            reader.doc(&format!("{name}-{n}-a")).await.is_some(),
            reader.doc(&format!("{name}-{n}-z")).await.is_some(),
            reader.entry(id(name, n)).await.is_some(),
        ];
        assert!(parts == [true; 3] || parts == [false; 3] && n > announced, "commit {n} of {announced}: {parts:?}");
        count += u64::from(parts[0]);
    }
    assert!(count <= announced + 1, "a commit begins after the one before is announced");
    count
}

async fn total(subject: &Subject) -> u64 {
    let total = subject.writer().await.doc("total").await.unwrap();
    std::str::from_utf8(&total.body).unwrap().parse().unwrap()
}

fn id(name: &str, n: u64) -> Id {
    Id::derived(Timestamp::from_millis(1_700_000_000_000 + n), name, &n.to_be_bytes(), 0)
}

/// What a child process does, if this is one: commits until it is killed, and announces each commit after it.
pub fn child() {
    let (Ok(url), Ok(name)) = (std::env::var(URL), std::env::var(NAME)) else { return };
    let end = Instant::now() + CHILD_LIVES;
    runtime().block_on(async {
        let mut writer = Writer::new(prepared(open(&url).unwrap()).await).await;
        let mut n = 1;
        while Instant::now() < end {
            let total = writer.doc("total").await.unwrap();
            let raised = std::str::from_utf8(&total.body).unwrap().parse::<u64>().unwrap() + 1;
            let docs = vec![
                put(&format!("{name}-{n}-a"), None, "{}"),
                put(&format!("{name}-{n}-z"), None, "{}"),
                put("total", Some(total.version), raised.to_string()),
            ];
            match writer.commit(docs, vec![entry(id(&name, n))]).await {
                Ok(()) => {
                    println!("{ANNOUNCED}{n}");
                    n += 1;
                }
                Err(CommitError::Version | CommitError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}
