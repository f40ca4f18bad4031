//! Declaring a durable: the database's mark first, then the consumer, always from the message after the mark. The one on the work
//! queue of redrives has no mark: what lies there is to be handled, or the journal answers it.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::{Broker, declare_redrives};
use crate::dead_letter::REDRIVE;
use crate::engine::timing::Timing;
use crate::progress::Progress;
use crate::release::Release;
use crate::store::{Settled, Store};

/// The group that the pulls of a single writer belong to: the broker pins one of those that pull.
pub(crate) const GROUP: &str = "writer";

/// In a durable's metadata: `true` if what it has not read yet may be taken away.
pub(crate) const BEST_EFFORT: &str = "millstream.best_effort";

/// Where a service begins to read a stream the first time. It belongs to (service, stream) and has no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the stream's first message: for participants of a saga.
    Beginning,
    /// After the stream's last message: for onlookers with effects, who must not mail last week's customers.
    Now,
}

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
    pub(crate) store: Arc<dyn Store>,
    pub(crate) timing: Timing,
}

impl Declared {
    /// The durable on the work queue of redrives, which gives each service its own.
    pub(crate) fn redrives(service: &'static str, release: Release, store: Arc<dyn Store>, timing: Timing) -> Self {
        Self {
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

    /// Makes the durable what is declared: created after the database's mark, or changed where it differs. Gives the mark.
    pub(crate) async fn ensure(&self, broker: &Broker) -> Result<Option<Settled>, String> {
        let (name, durable) = (self.stream, self.durable);
        if self.start.is_none() {
            // It has no owner who would make it again.
            declare_redrives(&broker.jetstream).await.map_err(|error| format!("stream {name}: {error}"))?;
        }
        let stream = broker.jetstream.get_stream(name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                format!("stream {name}, whose owner has not started yet")
            }
            _ => format!("stream {name}: {error}"),
        })?;
        let info = stream.cached_info();
        let created = info.created.to_string();
        let existing = match stream.consumer_info(durable).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => return Err(format!("consumer {durable} on {name}: {error}")),
        };
        let through = match self.start {
            None => None,
            Some(Start::Beginning) => Some(0),
            Some(Start::Now) => Some(info.state.last_sequence),
        };
        let mark = match through {
            Some(through) => {
                let first = Settled { stream: name.into(), through, created };
                Some(self.mark(first, existing.is_some()).await?)
            }
            None => None,
        };
        let cannot = |what, error: &dyn Display| format!("consumer {durable} on {name} cannot be {what}: {error}");
        let Some(have) = existing.map(|existing| existing.config) else {
            self.create(broker, mark.as_ref(), self.filters.clone()).await?;
            return Ok(mark);
        };
        let mut filters = have.filter_subjects.clone();
        if !have.filter_subject.is_empty() {
            filters.push(have.filter_subject.clone());
        }
        // Filters only grow: an older release beside this one still handles what it asks for.
        let missing: Vec<String> = self.filters.iter().filter(|filter| !filters.contains(filter)).cloned().collect();
        filters.extend(missing.iter().cloned());
        if self.release.is_older_than(&have.metadata) {
            if !missing.is_empty() {
                tracing::warn!(stream = name, ?missing, "a newer release does not subscribe to these events");
            }
        } else if !missing.is_empty() && self.ensured.load(Ordering::Acquire) {
            // It was deleted, and made anew by an older release: what that one does not ask for may have gone by, and a filter
            // that grows does not go back.
            stream.delete_consumer(durable).await.map_err(|error| cannot("deleted", &error))?;
            self.create(broker, mark.as_ref(), filters).await?;
        } else {
            let wanted = pull::Config {
                deliver_policy: have.deliver_policy,
                max_deliver: have.max_deliver,
                metadata: have.metadata.clone(),
                ..self.config(filters)
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
                let updated = broker.jetstream.update_consumer_on_stream(wanted, name).await;
                updated.map_err(|error| cannot("changed", &error))?;
            }
        }
        self.ensured.store(true, Ordering::Release);
        Ok(mark)
    }

    /// The database's mark of the stream, written if there is none; an error if the durable is older than the database.
    async fn mark(&self, first: Settled, exists: bool) -> Result<Settled, String> {
        let (name, durable) = (self.stream, self.durable);
        // Read after the durable: a replica that starts at the same time writes the mark first.
        let known = self.store.settled(name).await.map_err(|error| format!("the store: {error}"))?;
        if exists && known.is_none() {
            let anew = if self.rebuildable {
                "start once with --rebuild to read everything again"
            } else {
                "delete the consumer to start over"
            };
            return Err(format!(
                "consumer {durable} on {name} exists, but this database has never read the stream: \
                 restore the database that belongs to it, or {anew}"
            ));
        }
        let mark = self.store.init_settled(first).await.map_err(|error| format!("the store: {error}"))?;
        fail::fail_point!("marked");
        Ok(mark)
    }

    async fn create(&self, broker: &Broker, mark: Option<&Settled>, filters: Vec<String>) -> Result<(), String> {
        let after = |mark: &Settled| DeliverPolicy::ByStartSequence { start_sequence: mark.through + 1 };
        let deliver_policy = mark.map_or(DeliverPolicy::All, after);
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
        pull::Config {
            durable_name: Some(self.durable.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.timing.ack_wait,
            max_deliver: -1,
            max_ack_pending: self.timing.max_ack_pending,
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

    /// Keeps what is known of the durable up to date.
    pub(crate) async fn watch(self: Arc<Self>, broker: Broker, progress: Arc<Progress>) {
        let mut empty_since = None;
        let mut of_epoch = 0;
        loop {
            let epoch = broker.link.borrow().epoch;
            if epoch != of_epoch {
                (of_epoch, empty_since) = (epoch, None);
            }
            let behind = progress.drained_in.load(Ordering::Acquire) != epoch;
            let pause = if behind { self.timing.wake_sweep } else { Duration::from_secs(2) };
            tokio::time::sleep(pause).await;
            let Ok(info) = info(&broker, self.stream, self.durable).await else {
                empty_since = None;
                continue;
            };
            // Made anew by an older release while this one went on pulling.
            let has =
                |filter: &String| info.config.filter_subjects.contains(filter) || info.config.filter_subject == *filter;
            if !self.filters.iter().all(has) && !self.release.is_older_than(&info.config.metadata) {
                self.lost.notify_one();
            }
            progress.pending.store(info.num_pending, Ordering::Release);
            progress.ack_pending.store(info.num_ack_pending as u64, Ordering::Release);
            progress.see_pin(info.priority_groups.iter().find_map(|group| group.pinned_client_id.as_deref()));
            progress.ack_floor.store(info.ack_floor.stream_sequence, Ordering::Release);
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
}

pub(crate) async fn info(broker: &Broker, stream: &str, durable: &str) -> Result<jetstream::consumer::Info, String> {
    let consumer = broker.jetstream.get_consumer_from_stream::<pull::Config, _, _>(durable, stream).await;
    consumer.map(|consumer| consumer.cached_info().clone()).map_err(|error| error.to_string())
}
