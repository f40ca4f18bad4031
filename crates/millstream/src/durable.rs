//! Declaring a durable: what the broker says is held against what the database has recorded, the mark is written, and then the
//! durable is brought to its place. The one on the work queue of redrives has no mark: what lies there is to be handled, or the
//! journal answers it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, PriorityPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::Stream;
pub use millstream_core::position::Start;
use millstream_core::position::{Decision, Durable, Found, Known, Note, Place, decide};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::dead_letter::REDRIVE;
use crate::declare::{BEST_EFFORT, DeclareError, redrives};
use crate::engine::timing::Timing;
use crate::ids::Timestamp;
use crate::progress::Progress;
use crate::release::Release;
use crate::store::{Instance, Settled, Store, StoreError};

/// The group that the pulls of a single writer belong to: the broker pins one of those that pull.
pub(crate) const GROUP: &str = "writer";

/// A durable as the service declares it.
pub(crate) struct Declared {
    pub(crate) stream: &'static str,
    /// Where it begins; `None` for the work queue, of which it is given all that is there.
    pub(crate) start: Option<Start>,
    pub(crate) durable: &'static str,
    /// Whether the service could read all that it has again.
    pub(crate) rebuildable: bool,
    /// Whether what it has not read yet may be trimmed.
    pub(crate) best_effort: bool,
    /// The subjects of the events it handles.
    pub(crate) filters: Vec<String>,
    pub(crate) release: Release,
    /// Whether one replica reads and the others stand by.
    pub(crate) single_writer: bool,
    /// Whether this process has once made it what is declared.
    pub(crate) ensured: AtomicBool,
    /// Told when it is no longer so.
    pub(crate) lost: Notify,
    /// The mark that this process reads by, while the durable and the database are known to agree.
    pub(crate) held: Mutex<Option<Settled>>,
    /// The last such mark, also while they are not: a database that has recorded less by now is another one.
    pub(crate) last_held: Mutex<Option<Settled>>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) timing: Timing,
}

impl Declared {
    /// The durable on the work queue of redrives, which gives each service its own.
    pub(crate) fn redrives(service: &'static str, release: Release, store: Arc<dyn Store>, timing: Timing) -> Self {
        Self {
            held: Mutex::default(),
            last_held: Mutex::default(),
            progress: Arc::default(),
            stream: REDRIVE,
            start: None,
            durable: service,
            rebuildable: false,
            best_effort: false,
            filters: vec![format!("redrive.{service}.>")],
            release,
            // What is handed back was given up by somebody; who handles it is no matter.
            single_writer: false,
            ensured: AtomicBool::new(false),
            lost: Notify::new(),
            store,
            timing,
        }
    }

    /// Makes the durable what is declared, at the place where this database goes on. Gives the mark, and what is to be said.
    pub(crate) async fn ensure(&self, broker: &Broker) -> Result<Ensured, String> {
        self.hold(None);
        if self.start.is_none() {
            // It has no owner who would make it again.
            broker.ensure(redrives(), &Release::default()).await.map_err(|error| match error {
                DeclareError::Away(why) => format!("stream {}: {why}", self.stream),
                other => other.to_string(),
            })?;
        }
        let mut company = Company::new(&self.timing);
        let stream = self.stream_of(broker).await?;
        let mut acked = None;
        loop {
            let existing = self.existing(&stream).await?;
            let Some(start) = self.start else {
                self.place(broker, &stream, existing, Place::Keep).await?;
                return Ok(Ensured::default());
            };
            // Read after the durable: a replica that starts at the same time writes the mark first.
            let known = self.store.settled(self.stream).await.map_err(away)?;
            // Read after the mark, which others raise: an older look would make the stream shorter than what they have handled.
            let stream = self.stream_of(broker).await?;
            let found = self.found(&stream, existing.as_ref());
            if known.as_ref().is_some_and(|mark| self.was_put_back(mark)) {
                self.progress.begin_again();
            }
            // What others have acked since the first look they record in their own time.
            let floor = found.durable.map(|durable| durable.floor.min(*acked.get_or_insert(durable.floor)));
            let ahead = known.as_ref().zip(floor).is_some_and(|(mark, floor)| floor > mark.recorded());
            let handled =
                if ahead { self.progress.handled() } else { found.durable.map_or(0, |durable| durable.floor) };
            let known = Known { mark: known, handled, declared: self.ensured.load(Ordering::Acquire) };
            let (mark, place, notes) = match decide(start, &found, &known) {
                Decision::Refuse => return Err(self.refusal()),
                Decision::Go { mark, durable, notes } => (mark, durable, notes),
            };
            if notes.iter().any(|note| matches!(note, Note::Ahead { .. })) && company.is_awaited(&*self.store).await? {
                tokio::time::sleep(self.timing.heartbeat / 8).await;
                continue;
            }
            if !self.write(known.mark, &mark).await? {
                continue;
            }
            fail::fail_point!("marked");
            if place != Place::Keep {
                let again = notes.iter().any(|note| matches!(note, Note::Ahead { .. }));
                let given = existing.as_ref().map(|info| info.delivered.stream_sequence);
                self.progress.place(given.filter(|_| again));
            }
            self.place(broker, &stream, existing, place).await?;
            self.progress.agree();
            self.hold(Some(mark.clone()));
            return Ok(Ensured { mark: Some(mark), notes });
        }
    }

    async fn stream_of(&self, broker: &Broker) -> Result<Stream, String> {
        let name = self.stream;
        broker.jetstream.get_stream(name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                match broker.declares {
                    true => format!("stream {name}, whose owner has not started yet"),
                    false => DeclareError::Missing(name.into()).to_string(),
                }
            }
            _ => format!("stream {name}: {error}"),
        })
    }

    async fn existing(&self, stream: &Stream) -> Result<Option<Info>, String> {
        match stream.consumer_info(self.durable).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("consumer {} on {}: {error}", self.durable, self.stream)),
        }
    }

    fn found(&self, stream: &Stream, existing: Option<&Info>) -> Found {
        let info = stream.cached_info();
        let grows = |info: &Info| !self.release.is_older_than(&info.config.metadata) && !self.missing(info).is_empty();
        let durable = |info: &Info| Durable { floor: info.ack_floor.stream_sequence, grows: grows(info) };
        let millis = info.state.last_timestamp.unix_timestamp_nanos() / 1_000_000;
        Found {
            stream: self.stream.into(),
            created: info.created.to_string(),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
            last_at: Timestamp::from_millis(u64::try_from(millis).unwrap_or_default()),
            durable: existing.map(durable),
        }
    }

    /// The filters that a durable lacks. Filters only grow: an older release beside this one still handles what it asks for.
    fn missing(&self, info: &Info) -> Vec<String> {
        let have = filters(&info.config);
        self.filters.iter().filter(|filter| !have.contains(filter)).cloned().collect()
    }

    /// Writes the mark that was decided on; `false` if another replica was first, and it is to be decided again.
    async fn write(&self, known: Option<Settled>, mark: &Settled) -> Result<bool, String> {
        match known {
            Some(known) if known == *mark => Ok(true),
            Some(known) if known.created == mark.created => {
                self.store.move_settled(known, mark.clone()).await.map_err(away)
            }
            _ => Ok(self.store.init_settled(mark.clone()).await.map_err(away)? == *mark),
        }
    }

    fn refusal(&self) -> String {
        let (name, durable) = (self.stream, self.durable);
        let anew = if self.rebuildable {
            "start once with --rebuild to read everything again"
        } else {
            "delete the consumer to start over"
        };
        format!(
            "consumer {durable} on {name} exists, but this database has never read the stream: \
             restore the database that belongs to it, or {anew}"
        )
    }

    /// Brings the durable to its place, and makes it what is declared.
    async fn place(
        &self,
        broker: &Broker,
        stream: &Stream,
        existing: Option<Info>,
        place: Place,
    ) -> Result<(), String> {
        let (name, durable) = (self.stream, self.durable);
        let cannot = |what, error: &dyn Display| format!("consumer {durable} on {name} cannot be {what}: {error}");
        let (existing, from) = match (existing, place) {
            (Some(existing), Place::MakeAnew { from }) => (existing, from),
            (Some(existing), Place::Keep | Place::Make { .. }) => {
                return self.change(broker, existing).await.map_err(|error| cannot("changed", &error));
            }
            (None, Place::Make { from } | Place::MakeAnew { from }) => {
                return self.create(broker, Some(from), self.filters.clone()).await;
            }
            (None, Place::Keep) => return self.create(broker, None, self.filters.clone()).await,
        };
        let mut all = filters(&existing.config);
        all.extend(self.missing(&existing));
        let deleted = stream.delete_consumer(durable).await;
        if let Err(error) = deleted
            && self.existing(stream).await?.is_some()
        {
            return Err(cannot("deleted", &error));
        }
        self.create(broker, Some(from), all).await
    }

    /// Changes a durable where it differs from what is declared. Its place stays.
    async fn change(&self, broker: &Broker, existing: Info) -> Result<(), String> {
        let missing = self.missing(&existing);
        let have = existing.config;
        if self.release.is_older_than(&have.metadata) {
            if !missing.is_empty() {
                tracing::warn!(stream = self.stream, ?missing, "a newer release does not subscribe to these events");
            }
        } else {
            let wanted = pull::Config {
                deliver_policy: have.deliver_policy,
                max_deliver: have.max_deliver,
                metadata: have.metadata.clone(),
                ..self.config(filters(&have).into_iter().chain(missing.iter().cloned()).collect())
            };
            let wanted = self.sign(wanted);
            let same = missing.is_empty()
                && have.metadata == wanted.metadata
                && have.ack_wait == wanted.ack_wait
                && have.max_ack_pending == wanted.max_ack_pending
                && have.priority_policy == wanted.priority_policy
                && have.priority_groups == wanted.priority_groups
                && have.priority_timeout == wanted.priority_timeout;
            if !same {
                let updated = broker.jetstream.update_consumer_on_stream(wanted, self.stream).await;
                updated.map_err(|error| error.to_string())?;
            }
        }
        self.ensured.store(true, Ordering::Release);
        Ok(())
    }

    async fn create(&self, broker: &Broker, from: Option<u64>, filters: Vec<String>) -> Result<(), String> {
        let start = |start_sequence| DeliverPolicy::ByStartSequence { start_sequence };
        let deliver_policy = from.map_or(DeliverPolicy::All, start);
        let wanted = self.sign(pull::Config { deliver_policy, ..self.config(filters) });
        // Strictly: one that somebody else has made meanwhile would be changed instead, also to fewer filters.
        let created = broker.jetstream.create_consumer_strict_on_stream(wanted, self.stream).await;
        created.map_err(|error| format!("consumer {} on {} cannot be made: {error}", self.durable, self.stream))?;
        self.ensured.store(true, Ordering::Release);
        Ok(())
    }

    fn config(&self, filter_subjects: Vec<String>) -> pull::Config {
        let pinned = self.single_writer.then(|| pull::Config {
            priority_policy: PriorityPolicy::PinnedClient,
            priority_groups: vec![GROUP.into()],
            priority_timeout: self.timing.pin_timeout,
            ..pull::Config::default()
        });
        // All services share the work queue, and the broker holds a single filter against what a user may ask for.
        let (filter_subject, filter_subjects) = match &filter_subjects[..] {
            [one] if self.start.is_none() => (one.clone(), vec![]),
            _ => (String::new(), filter_subjects),
        };
        pull::Config {
            durable_name: Some(self.durable.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.timing.ack_wait,
            max_deliver: -1,
            max_ack_pending: self.timing.max_ack_pending,
            filter_subject,
            filter_subjects,
            ..pinned.unwrap_or_default()
        }
    }

    /// With what others know of the durable beside what was there.
    fn sign(&self, mut config: pull::Config) -> pull::Config {
        self.release.sign(&mut config.metadata);
        if self.best_effort {
            config.metadata.insert(BEST_EFFORT.into(), "true".into());
        } else {
            config.metadata.remove(BEST_EFFORT);
        }
        config
    }

    /// Keeps what is known of the durable up to date, and records in the database how far it is.
    pub(crate) async fn watch(self: Arc<Self>, broker: Broker) {
        let progress = &self.progress;
        let mut empty_since = None;
        let mut of_epoch = 0;
        let (mut is_quiet, mut link) = (false, broker.link.clone());
        let mut record_at = Instant::now();
        loop {
            let epoch = link.borrow_and_update().epoch;
            if epoch != of_epoch {
                (of_epoch, empty_since) = (epoch, None);
            }
            let behind = progress.drained_in.load(Ordering::Acquire) != epoch;
            let pause = match behind {
                true => self.timing.wake_sweep,
                false if is_quiet => self.timing.heartbeat * 2,
                false => self.timing.heartbeat,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = link.changed() => continue,
            }
            // Before the durable is read: it may be brought to another place meanwhile.
            let held = self.held();
            let Ok(info) = info(&broker, self.stream, self.durable).await else {
                (empty_since, is_quiet) = (None, false);
                continue;
            };
            // Made anew by an older release while this one went on pulling.
            if !self.missing(&info).is_empty() && !self.release.is_older_than(&info.config.metadata) {
                self.lost.notify_one();
            }
            let floor = info.ack_floor.stream_sequence;
            let nothing_waits = info.num_pending == 0 && info.num_ack_pending == 0;
            is_quiet = nothing_waits && floor == progress.ack_floor.load(Ordering::Acquire);
            if Instant::now() >= record_at {
                self.record(held, floor).await;
                record_at = Instant::now() + self.timing.heartbeat;
            }
            progress.pending.store(info.num_pending, Ordering::Release);
            progress.ack_pending.store(info.num_ack_pending as u64, Ordering::Release);
            progress.see_pin(info.priority_groups.iter().find_map(|group| group.pinned_client_id.as_deref()));
            progress.ack_floor.store(floor, Ordering::Release);
            let empty = info.num_pending == 0 && progress.in_engine.load(Ordering::Acquire) == 0;
            let since = *empty_since.get_or_insert_with(Instant::now);
            if !empty {
                empty_since = None;
            }
            // What is unacked and not here went to a process that died, and comes back after the ack wait; or it waits to be
            // tried again, which may take long.
            if empty && (info.num_ack_pending == 0 || since.elapsed() > self.timing.ack_wait + pause * 2) {
                progress.drained_in.store(epoch, Ordering::Release);
            }
        }
    }

    /// Records how far the durable is, at the end of the service: the next start then has nothing to read again.
    pub(crate) async fn record_last(&self, broker: &Broker) {
        let held = self.held();
        if held.is_some()
            && let Ok(info) = info(broker, self.stream, self.durable).await
        {
            self.record(held, info.ack_floor.stream_sequence).await;
        }
    }

    /// Writes into the mark that everything up to `floor` is done with. A database that has recorded less than this process knows
    /// of is another one, or was put back: then the durable is declared again, from what the database knows.
    async fn record(&self, held: Option<Settled>, floor: u64) {
        let (Some(held), Ok(mark)) = (held, self.store.settled(self.stream).await) else { return };
        match mark {
            Some(mark) if mark.created == held.created && mark.recorded() >= held.recorded() => {
                let later = Settled { seen: Some(floor.max(mark.recorded())), ..mark.clone() };
                let moved = later == mark || self.store.move_settled(mark, later.clone()).await.unwrap_or_default();
                let mut now = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                if moved && *now == Some(held) {
                    *now = Some(later.clone());
                    drop(now);
                    *self.last_held.lock().unwrap_or_else(PoisonError::into_inner) = Some(later);
                }
            }
            _ => {
                tracing::warn!(
                    stream = self.stream,
                    "the database has recorded less of the stream than this process knows of; declaring the consumer again"
                );
                self.progress.begin_again();
                self.hold(None);
                self.lost.notify_one();
            }
        }
    }

    /// Whether the database has recorded less than when this process last looked at it.
    fn was_put_back(&self, mark: &Settled) -> bool {
        let last = self.last_held.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|last| last.created == mark.created && mark.recorded() < last.recorded())
    }

    fn held(&self) -> Option<Settled> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, mark: Option<Settled>) {
        if mark.is_some() {
            self.last_held.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&mark);
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = mark;
    }
}

/// What comes of declaring a durable.
#[derive(Default)]
pub(crate) struct Ensured {
    /// The mark that deliveries are held against.
    pub(crate) mark: Option<Settled>,
    pub(crate) notes: Vec<Note>,
}

/// The other replicas, who record what they have acked a little later than they ack it. Those that live are waited for, so that
/// none starts by reading again what another is about to record.
struct Company {
    since: Instant,
    heartbeat: Duration,
    rows: Option<Vec<Instance>>,
    moved: bool,
}

impl Company {
    fn new(timing: &Timing) -> Self {
        Self { since: Instant::now(), heartbeat: timing.heartbeat, rows: None, moved: false }
    }

    /// Whether there is somebody to wait for.
    async fn is_awaited(&mut self, store: &dyn Store) -> Result<bool, String> {
        let rows = store.instances().await.map_err(away)?;
        if rows.len() < 2 {
            return Ok(false);
        }
        let before = self.rows.get_or_insert_with(|| rows.clone());
        // One of the rows is our own.
        self.moved |= rows.iter().filter(|row| !before.contains(row)).count() > 1;
        let patience = if self.moved { self.heartbeat * 5 } else { self.heartbeat * 2 };
        Ok(self.since.elapsed() < patience)
    }
}

fn away(error: StoreError) -> String {
    format!("the store: {error}")
}

fn filters(config: &async_nats::jetstream::consumer::Config) -> Vec<String> {
    let single = Some(&config.filter_subject).filter(|filter| !filter.is_empty());
    config.filter_subjects.iter().chain(single).cloned().collect()
}

pub(crate) async fn info(broker: &Broker, stream: &str, durable: &str) -> Result<Info, String> {
    let consumer = broker.jetstream.get_consumer_from_stream::<pull::Config, _, _>(durable, stream).await;
    consumer.map(|consumer| consumer.cached_info().clone()).map_err(|error| error.to_string())
}
