//! Incidents staged with the real parts: the one sentence names the right cause first, and is gone when the incident is.

use std::fmt::Display;
use std::time::{Duration, Instant};

use millstream::Timestamp;
use millstream::operator::dead::{DeadFilter, Letters};
use millstream::operator::verdict::{Kind, State, Verdict};
use millstream::operator::{By, Operator};
use millstream::testing::eventually;

use crate::harness::{Apart, SOON, jetstream, line, order_of};

/// A shop with a console, and what is said of it.
struct Watched {
    shop: Apart,
    operator: Operator,
}

impl Watched {
    async fn start() -> Self {
        let mut shop = Apart::new().await;
        shop.start_all().await;
        shop.start("console").await;
        shop.stock("mug", 1000).await;
        let operator = Operator::new(async_nats::connect(shop.broker.url()).await.unwrap());
        let watched = Self { shop, operator };
        watched.well("the start").await;
        watched
    }

    /// What the console says.
    async fn shown(&self) -> Option<Verdict> {
        let answer = self.shop.get(format!("{}/api/verdict", self.shop.urls.console)).await;
        (answer.status == 200).then(|| serde_json::from_value(answer.json()).unwrap())
    }

    /// What the command line says.
    async fn told(&self) -> Verdict {
        match self.operator.examine(&mut Letters::default()).await {
            Ok(seen) => seen.verdict(Timestamp::system()),
            Err(error) => Verdict::blind(&error.to_string()),
        }
    }

    /// Waits until both say that all is well.
    async fn well(&self, after: impl Display) {
        let began = Instant::now();
        let both = async || {
            let shown = self.shown().await.is_some_and(|shown| shown.state == State::Well);
            shown && self.told().await.state == State::Well
        };
        eventually(&format!("all to be well after {after}"), SOON * 2, both).await;
        println!("all is well {:.1} s after {after}", began.elapsed().as_secs_f64());
    }

    /// Waits until both name this cause first; gives the sentence.
    async fn names(&self, kind: Kind, about: &str) -> String {
        let began = Instant::now();
        let first = |verdict: &Verdict| {
            let cause = verdict.causes.first()?;
            let fits = cause.kind == kind && verdict.sentence.starts_with(&format!("{about}: "));
            fits.then(|| verdict.sentence.clone())
        };
        let said = async || {
            let told = first(&self.told().await)?;
            self.shown().await.as_ref().and_then(first).map(|_| told)
        };
        let said = eventually(&format!("{kind:?} of {about} to be named first"), SOON * 2, said).await;
        println!("{kind:?} of {about} is named {:.1} s after it began: {said}", began.elapsed().as_secs_f64());
        said
    }
}

fn a_mug(user: usize) -> String {
    order_of(&format!("user-{user}"), &[line("mug", 1, 1000)])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_named_with_its_cause_first_by_the_console_and_the_command_line_until_it_is_over() {
    let mut watched = Watched::start().await;
    let url = watched.shop.broker.url();
    let client = async_nats::connect(&url).await.unwrap();

    watched.shop.stop("gateway").await;
    watched.shop.place_many(5, 5, a_mug).await;
    let said = watched.names(Kind::OutsideUnanswered, "payments").await;
    assert!(
        said.contains("no answer to `charge` for ") && said.contains("none is lost. See the runbook \"Outside"),
        "{said}"
    );
    // Each attempt makes the charges due later; that they are overdue for as long as the outage lasts is what an alert needs.
    let page = watched.shop.metrics("payments").await.text;
    let overdue =
        page.lines().find_map(|line| line.strip_prefix(r#"millstream_wake_oldest_overdue_seconds{kind="charge"} "#));
    assert!(overdue.is_some_and(|overdue| overdue.parse::<f64>().unwrap() >= 10.0), "{overdue:?}");
    watched.shop.start("gateway").await;
    watched.well("the gateway's return").await;

    client.publish("inventory.rejected.0", "{}".into()).await.unwrap();
    let said = watched.names(Kind::DeadLetters, "orders").await;
    assert!(said.starts_with("orders: 1 dead letter, the oldest for "), "{said}");
    let by = By { who: "ada".into(), why: "it was a test".into() };
    watched.operator.discard(&DeadFilter::default(), 10, false, &by, |_| ()).await.unwrap();
    watched.well("the discard").await;

    watched.shop.stop("inventory").await;
    watched.shop.place_many(3, 3, a_mug).await;
    let said = watched.names(Kind::ServiceDown, "inventory").await;
    assert!(said.contains("no instance answers; "), "{said}");
    watched.shop.start("inventory").await;
    watched.well("the service's return").await;

    let stream = jetstream(&url).await.get_stream("ORDERS").await.unwrap();
    let until = std::time::SystemTime::now() + Duration::from_secs(3600);
    stream.pause_consumer("inventory", until.into()).await.unwrap();
    watched.shop.place_many(3, 3, a_mug).await;
    let said = watched.names(Kind::ConsumerPaused, "inventory").await;
    assert!(said.contains("its consumer on ORDERS is paused, for 5") && said.contains("none is lost"), "{said}");
    stream.resume_consumer("inventory").await.unwrap();
    watched.well("the resumption").await;

    // The service makes it again within a moment, which is told for a while if it has run for some.
    let runs = async || {
        let instances = watched.operator.status().await.unwrap().instances;
        let started = instances.iter().find(|one| one.service == "inventory").and_then(|one| one.started);
        started.is_some_and(|started| Timestamp::system().since(started) > Duration::from_secs(6))
    };
    eventually("inventory to have run for a while", SOON, runs).await;
    stream.delete_consumer("inventory").await.unwrap();
    let said = watched.names(Kind::ConsumerRemade, "inventory").await;
    assert!(said.contains("its consumer on ORDERS was recreated "), "{said}");
    watched.well("the deletion").await;

    let file = watched.shop.database("payments");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    let said = watched.names(Kind::StoreDown, "payments").await;
    assert!(said.contains("its store has not answered for "), "{said}");
    std::fs::rename(&aside, &file).unwrap();
    watched.well("the store's return").await;

    watched.shop.all_ended(11).await;
    watched.shop.stop("console").await;
    watched.shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_named_alone_and_a_replica_that_vanishes_is_missed_until_another_comes() {
    let mut watched = Watched::start().await;
    watched.shop.broker.stop().await;
    let said = watched.names(Kind::BrokerDown, "broker").await;
    assert!(said.contains("nothing that was accepted is lost"), "{said}");
    let shown = watched.shown().await.unwrap();
    assert_eq!(shown.causes.len(), 1, "what it drags with it is not known: {shown:?}");
    watched.shop.broker.restart().await;
    watched.well("the broker's return").await;

    // A row that lives for a while as that of a replica does, and then stands still.
    let sql = rusqlite::Connection::open(watched.shop.database("inventory")).unwrap();
    sql.busy_timeout(SOON).unwrap();
    sql.execute("INSERT INTO instances (id, version, published) VALUES (?, 0, 0)", [vec![1_u8; 16]]).unwrap();
    let until = Instant::now() + watched.shop.timing.dead_after;
    while Instant::now() < until {
        sql.execute("UPDATE instances SET version = version + 1 WHERE id = ?", [vec![1_u8; 16]]).unwrap();
        tokio::time::sleep(watched.shop.timing.instance_sweep / 2).await;
    }
    let said = watched.names(Kind::ReplicaMissing, "inventory").await;
    assert!(said.contains("1 replica ended without a clean stop"), "{said}");
    drop(sql);
    watched.shop.start("inventory-2").await;
    watched.well("another replica").await;
    watched.shop.stop("console").await;
    watched.shop.close().await;
}

#[test]
fn each_cause_has_its_section_in_the_runbooks_with_a_command() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks.md");
    let text = std::fs::read_to_string(path).unwrap();
    for kind in Kind::ALL {
        let section = text.split_once(&format!("\n## {}\n", kind.runbook())).map(|(_, rest)| rest);
        let section = section.unwrap_or_else(|| panic!("{kind:?} has no section {}", kind.runbook()));
        assert!(section.split("\n## ").next().unwrap().contains("```sh"), "{kind:?} has no command");
    }
    // What is not among the containers is not at hand. What puts files back runs beside them, and has a test of its own.
    let (before, restore) = text.split_once("\n## Restore\n").unwrap();
    let text = format!("{before}{}", restore.split_once("\n## ").unwrap().1);
    let commands: Vec<&str> = text.split("```sh").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    for command in commands.iter().flat_map(|block| block.lines()).flat_map(|line| line.split(['|', ';', '&'])) {
        let tool = command.split_whitespace().next().unwrap_or_default();
        assert!(["", "docker", "curl", "grep", "for", "do", "echo", "done"].contains(&tool), "`{tool}` in {command}");
    }
}
