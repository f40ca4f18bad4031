//! Where an event comes from: correlation and causation through every kind of hop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream::commands::Caller;
use millstream::testing::fresh_meta;
use millstream::{
    Document, Effect, Event, Fault, Handler, Id, Keys, Kind, Meta, Outage, Received, Service, Start, Stream, Unit, Wake,
};
use serde::{Deserialize, Serialize};

use crate::bank::*;

const AUDIT: Stream = Stream::new("AUDIT", "audit");

/// What the second service says, when it was told and when it has looked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Audited {
    account: String,
    step: String,
}

impl Event for Audited {
    const TYPE: &'static str = "audit.audited";
    const STREAM: Stream = AUDIT;
    fn key(&self) -> &str {
        &self.account
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct File {
    account: String,
}

impl Document for File {
    const COLLECTION: &'static str = "files";
    fn id(&self) -> &str {
        &self.account
    }
}

struct Open;

impl Handler<Noted> for Open {
    fn touches(&self, event: &Received<Noted>) -> Keys {
        Keys::one::<File>(&event.account)
    }
    fn handle(&self, event: &Received<Noted>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        unit.put_with_wake(File { account: event.account.clone() }, Look::KIND, unit.now());
        unit.emit(&Audited { account: event.account.clone(), step: "told".into() });
        Ok(())
    }
}

/// Fails once, so that the second attempt has to carry what the first had.
struct Look(Arc<AtomicBool>);

impl Effect for Look {
    type Document = File;
    type Outcome = ();
    const KIND: Kind<File> = Kind::new("look");
    async fn run(&self, _: &File, _: &Wake) -> Result<(), Outage> {
        if self.0.swap(true, Ordering::AcqRel) { Ok(()) } else { Err(Outage::new("not now")) }
    }
    fn settle(&self, file: &mut File, (): (), unit: &mut Unit<'_>) {
        unit.emit(&Audited { account: file.account.clone(), step: "looked".into() });
    }
}

fn auditor() -> Service {
    Service::new("auditor").publishes(AUDIT).reads(LEDGER, Start::Beginning).on(Open).effect(Look(Arc::default()))
}

#[tokio::test]
async fn correlation_and_causation_go_from_a_command_through_events_and_a_wake_as_they_came_in() {
    let bench = bench().await;
    let world = World::default();
    let ledger = bench.run(ledger(&world), short()).await;
    let auditor = bench.run(auditor(), short()).await;
    for (at, correlation) in
        ["plain", "Zoë & 日本", "\"quoted\", 100 %", " padded ", "%41%", "a\r\nb: c"].into_iter().enumerate()
    {
        let account = format!("a{at}");
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let caller = Caller { correlation: correlation.into(), traceparent: Some(trace.into()), ..Caller::default() };
        let command = moved(&account, "note", Act::Add(1));
        let accepted = ledger.context().submit_to(&caller, &world, command).await.unwrap();
        let audited = bench.expect::<Audited>(2 * (at + 1)).await;
        let noted = bench.events::<Noted>().await.into_iter().find(|noted| noted.account == account).unwrap();
        let step = |step: &str| {
            let found = audited.iter().find(|audited| audited.account == account && audited.step == step);
            found.unwrap_or_else(|| panic!("no `{step}` of {account}")).meta.clone()
        };
        let (told, looked) = (step("told"), step("looked"));
        for meta in [&noted.meta, &told, &looked] {
            assert_eq!((meta.correlation.as_str(), meta.traceparent.as_deref()), (correlation, Some(trace)));
        }
        assert_eq!(noted.meta.causation, Some(accepted.id.to_string()));
        assert_eq!(told.causation, Some(noted.meta.id.to_string()));
        assert_eq!(looked.causation, told.causation, "a wake is caused by what set it");
        assert_ne!(looked.id, told.id);
    }
    ledger.stop().await;
    auditor.stop().await;
}

/// The ids that a service with a database of its own gives to what it emits because of `meta`.
async fn ids_of_what_follows(meta: &Meta) -> Vec<Id> {
    let bench = bench().await;
    bench.publish(meta, &moved("a", "n", Act::Add(1))).await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let ids = bench.expect::<Noted>(1).await.iter().map(|noted| noted.meta.id).collect();
    service.stop().await;
    ids
}

#[tokio::test]
async fn what_follows_from_a_message_has_the_same_ids_however_often_it_is_handled() {
    let meta = fresh_meta();
    let (one, two) = (ids_of_what_follows(&meta).await, ids_of_what_follows(&meta).await);
    assert_eq!(one, two);
    assert_eq!(one[0].time(), Some(meta.time), "its time is the cause's");
}
