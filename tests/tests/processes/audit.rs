//! What the ledger has done, as seen with a NATS client and a database connection of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt;
use millstream::event::{Emitted, Meta, header};
use millstream::operator::dead::{DeadFilter, Redrive, Report};
use millstream::operator::{By, Operator};
use millstream::testing::Broker;
use millstream::{Id, Timestamp};
use rusqlite::Connection;

use super::books::Books;
use super::ledger::{ASKED, Asked, Errand, How, NAME, Slip, TOLD, Told, calls};

/// A broker, a folder, and everything that was asked of the ledgers there.
pub(super) struct Place {
    pub(super) broker: Broker,
    books: Books,
    jetstream: jetstream::Context,
    /// How many numbers were given out.
    numbers: u64,
    /// How each entry was asked for. A command is [`How::AtOnce`].
    asked: BTreeMap<u64, How>,
    /// The entries that may be booked or not: commands without an answer.
    perhaps: BTreeSet<u64>,
}

/// Hands back all that was given up, so many a second.
pub(super) async fn redrive_all(operator: &Operator, per_second: u32) -> Report {
    let by = By { who: "test".into(), why: "it is mended".into() };
    let how = Redrive { per_second, limit: usize::MAX, ..Redrive::default() };
    operator.redrive(&DeadFilter::default(), &how, &by, |_| ()).await.unwrap()
}

/// An event as the test's own client has it.
struct Seen {
    id: String,
    n: u64,
}

impl Place {
    pub(super) async fn new() -> Self {
        Self::with(Books::in_a_file()).await
    }

    /// A place whose database is on the MongoDB for tests; `None` if there is none.
    pub(super) async fn on_mongo() -> Option<Self> {
        Some(Self::with(Books::on_mongo()?).await)
    }

    async fn with(books: Books) -> Self {
        let broker = Broker::start().await;
        let client = async_nats::connect(broker.url()).await.unwrap();
        let jetstream = jetstream::context::ContextBuilder::new().max_ack_inflight(1000).build(client);
        Self { broker, books, jetstream, numbers: 0, asked: BTreeMap::new(), perhaps: BTreeSet::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        self.books.stores.folder()
    }

    pub(super) fn errand(&self) -> Errand {
        Errand {
            nats: self.broker.url(),
            store: self.books.stores.url(NAME),
            folder: self.folder().into(),
            crash: None,
            stop: None,
            stop_when_told: None,
            silent: false,
            sweeps: true,
            pin_ms: None,
            distrust_ms: 60_000,
        }
    }

    /// Asks for an entry by a message.
    pub(super) async fn publish(&mut self, how: How) {
        self.publish_all(&[how]).await;
    }

    /// Asks for entries by messages, a number each, and waits until the broker has them.
    pub(super) async fn publish_all(&mut self, how: &[How]) {
        let mut acks = Vec::new();
        for how in how {
            let n = self.number(*how);
            let now = Timestamp::system();
            let id = Id::random(now);
            let meta = Meta { id, time: now, correlation: format!("n-{n}"), causation: None, traceparent: None };
            let message = Emitted::event("test", &meta, &Asked { n, how: *how }).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in &message.headers {
                headers.insert(name.as_str(), value.as_str());
            }
            let sent = self.jetstream.publish_with_headers(message.subject, headers, message.payload).await;
            acks.push(sent.unwrap());
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }

    /// The number of a new entry.
    pub(super) fn number(&mut self, how: How) -> u64 {
        self.numbers += 1;
        self.asked.insert(self.numbers, how);
        self.numbers
    }

    /// Notes that an entry was asked for by a command and answered.
    pub(super) fn commanded(&mut self, n: u64) {
        self.asked.insert(n, How::AtOnce);
    }

    /// Notes that an entry is asked for in another way by now.
    pub(super) fn edited(&mut self, n: u64, how: How) {
        self.asked.insert(n, how);
    }

    /// Notes that nobody knows whether an entry was booked.
    pub(super) fn unanswered(&mut self, n: u64) {
        self.perhaps.insert(n);
    }

    /// Waits until everything is booked and quiet while `alive` ledgers run; then nothing may be lost or doubled.
    pub(super) async fn balances(&self, alive: usize, deadline: Duration) {
        self.balances_while(alive, deadline, async || ()).await;
    }

    /// The same, with something to be done between two looks.
    pub(super) async fn balances_while(&self, alive: usize, deadline: Duration, mut meanwhile: impl AsyncFnMut()) {
        let until = Instant::now() + deadline;
        while let Err(missing) = self.quiet(alive).await {
            assert!(Instant::now() < until, "waited {deadline:?} in vain for quiet: {missing}");
            meanwhile().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        self.assert_books().await;
    }

    /// The ids of the instance rows.
    pub(super) fn instances(&self) -> BTreeSet<Vec<u8>> {
        self.books.instances()
    }

    /// The sum of the versions of the instance rows.
    pub(super) fn instance_versions(&self) -> u64 {
        self.books.instance_versions()
    }

    /// Holds the lock of a database in a file for writing until it is dropped.
    pub(super) fn lock(&self) -> Connection {
        let conn = self.books.open();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        conn
    }

    /// How many messages are delivered to the ledgers and not acked.
    pub(super) async fn ack_pending(&self) -> usize {
        let stream = self.jetstream.get_stream(ASKED.name).await.unwrap();
        stream.consumer_info(NAME).await.unwrap().num_ack_pending
    }

    /// The calls to the outside, by entry.
    pub(super) fn calls(&self) -> Vec<u64> {
        let calls = std::fs::read_to_string(calls(self.folder())).unwrap_or_default();
        calls.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// What is still under way.
    async fn quiet(&self, alive: usize) -> Result<(), String> {
        let is = |what: &str, have: usize, want: usize| {
            if have == want { Ok(()) } else { Err(format!("{what}: {have}, not {want}")) }
        };
        let stream = self.jetstream.get_stream(ASKED.name).await.map_err(|error| error.to_string())?;
        let durable = stream.consumer_info(NAME).await.map_err(|error| error.to_string())?;
        is("messages not yet delivered", usize::try_from(durable.num_pending).unwrap(), 0)?;
        is("messages delivered and not acked", durable.num_ack_pending, 0)?;
        let redrives = self.jetstream.get_stream("REDRIVE").await.map_err(|error| error.to_string())?;
        is("redrives under way", usize::try_from(redrives.cached_info().state.messages).unwrap(), 0)?;
        is("open wakes", self.books.wakes(), 0)?;
        is("instance rows", self.instances().len(), alive)?;
        is("entries not known to be published", self.books.unpublished(), 0)
    }

    /// How many messages a stream has; none if there is no such stream yet.
    pub(super) async fn stored(&self, stream: &str) -> usize {
        let Ok(stream) = self.jetstream.get_stream(stream).await else { return 0 };
        usize::try_from(stream.cached_info().state.messages).unwrap()
    }

    async fn messages(&self, stream: &str) -> Vec<Message> {
        let stream = self.jetstream.get_stream(stream).await.unwrap();
        let count = usize::try_from(stream.cached_info().state.messages).unwrap();
        if count == 0 {
            return vec![];
        }
        let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
        let consumer = stream.create_consumer(config).await.unwrap();
        let batch = consumer.fetch().max_messages(count).expires(Duration::from_secs(20)).messages().await.unwrap();
        let messages: Vec<Message> = batch.map(|message| message.unwrap()).collect().await;
        assert_eq!(messages.len(), count, "the broker gives all that it has");
        messages
    }

    async fn told(&self) -> Vec<Seen> {
        let seen = |message: Message| {
            let id = message.headers.as_ref().unwrap().get(header::ID).unwrap().to_string();
            Seen { id, n: serde_json::from_slice::<Told>(&message.payload).unwrap().n }
        };
        self.messages(TOLD.name).await.into_iter().map(seen).collect()
    }

    /// The numbers of the entries that are told to be booked.
    pub(super) async fn events(&self) -> Vec<u64> {
        self.told().await.into_iter().map(|seen| seen.n).collect()
    }

    /// The reasons of the dead letters, by entry.
    pub(super) async fn dead_letters(&self) -> Vec<(u64, String)> {
        let dealt_with = |state: &str| ["resolved", "edited"].contains(&state);
        let letters = self.records().await.into_iter().filter(|(.., state)| !dealt_with(state));
        letters.map(|(n, reason, _)| (n, reason)).collect()
    }

    /// The records of what was given up, by entry: reason and state.
    async fn records(&self) -> Vec<(u64, String, String)> {
        let record = |message: Message| {
            let headers = message.headers.as_ref().unwrap();
            let get = |name: &str| headers.get(name).map(ToString::to_string).unwrap_or_default();
            let n = get(header::CORRELATION).strip_prefix("n-").unwrap().parse().unwrap();
            (n, get("Millstream-Reason"), get("Millstream-State"))
        };
        let mut records: Vec<_> = self.messages("DLQ_LEDGER").await.into_iter().map(record).collect();
        records.sort_unstable();
        records
    }

    /// Who redrives.
    pub(super) async fn operator(&self) -> Operator {
        Operator::new(async_nats::connect(self.broker.url()).await.unwrap())
    }

    /// Hands back all that was given up.
    pub(super) async fn redrive(&self) -> Report {
        redrive_all(&self.operator().await, u32::MAX).await
    }

    /// Documents, events, calls and dead letters say the same: each entry once.
    async fn assert_books(&self) {
        let slips = self.books.slips();
        let (mut booked, mut at_once, mut outside, mut dead) = (BTreeSet::new(), 0, BTreeSet::new(), vec![]);
        let mut mended = vec![];
        for (n, how) in &self.asked {
            match how {
                How::Refused => dead.push((*n, "rejected".to_owned())),
                How::Deadly | How::AgainThenDeadly | How::RefusedThenDeadly => dead.push((*n, "crash".to_owned())),
                _ if self.perhaps.contains(n) && !slips.contains_key(n) => {}
                How::AtOnce | How::Again | How::Outside | How::Later | How::Mended => {
                    booked.insert(*n);
                    mended.extend((*how == How::Mended).then_some(*n));
                    at_once += u64::from(matches!(how, How::AtOnce | How::Again | How::Mended));
                    outside.extend((*how == How::Outside).then_some(*n));
                }
            }
        }
        // First, because what is parked is not booked, and not lost either.
        assert_eq!(self.dead_letters().await, dead, "dead letters");
        let resolved = self.records().await.into_iter().filter(|(.., state)| state == "resolved");
        let resolved: Vec<u64> = resolved.map(|(n, ..)| n).collect();
        assert_eq!(resolved, mended, "what was redriven and booked");
        let lost: Vec<_> = booked.iter().filter(|n| !slips.contains_key(n)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let odd = |n: &u64, slip: &Slip| (slip.asked, slip.booked) != (1, 1) || !booked.contains(n);
        let odd: Vec<_> = slips.iter().filter(|(n, slip)| odd(n, slip)).collect();
        assert!(odd.is_empty(), "not booked exactly once: {odd:?}");
        let tallied = self.books.tallied();
        assert_eq!(tallied, at_once, "the tallies against the entries that were booked at once");

        let told = self.told().await;
        let numbers: BTreeSet<u64> = told.iter().map(|seen| seen.n).collect();
        assert_eq!(numbers, booked, "an event for each entry that is booked, and no other");
        let ids: BTreeSet<&str> = told.iter().map(|seen| seen.id.as_str()).collect();
        assert_eq!((ids.len(), told.len()), (booked.len(), booked.len()), "one event an entry, each with its own id");

        let called: BTreeSet<u64> = self.calls().into_iter().collect();
        assert_eq!(called, outside, "the outside was called for each entry that needs it");
        let open = self.books.open_entries();
        assert_eq!(open, 0, "every entry of the journal has come to its end");
    }
}
