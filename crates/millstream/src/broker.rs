//! The broker: one connection a service, its state, and the streams that the service declares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, Event};
use tokio::sync::watch;
use tracing::Instrument;

use crate::config::Config;
use crate::dead_letter;
use crate::event::Stream;
use crate::refusals::{Refusals, is_refusal};
use crate::release::Release;
use crate::retry::{Retry, forever, once_per_text};

/// Publishes that may be unacked at once; unbounded they starve the consumers on the same connection.
pub(crate) const IN_FLIGHT: usize = 1000;

/// A connection that keeps itself up.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) link: watch::Receiver<Link>,
    refusals: Arc<Refusals>,
}

/// The state of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) up: bool,
    /// How often it came up: tells a reconnect that was over before anybody looked.
    pub(crate) epoch: u64,
}

impl Broker {
    /// Connects, trying again with growing delays for as long as it takes, and says why when that changes.
    pub(crate) async fn connect(service: &'static str, config: &Config, retry: Retry, say: impl Fn(&str)) -> Self {
        let attempt = || Self::try_connect(service, config);
        let failed = once_per_text(|error| {
            tracing::warn!(error, user = config.broker_user(), "the broker cannot be reached; retrying");
            say(&format!("the broker (as user {}): {error}", config.broker_user()));
        });
        forever(retry, attempt, failed).await
    }

    async fn try_connect(service: &'static str, config: &Config) -> Result<Self, String> {
        let (link_tx, link) = watch::channel(Link { up: true, epoch: 1 });
        let refusals = Arc::new(Refusals::default());
        let refused = refusals.clone();
        let epochs = Arc::new(AtomicU64::new(1));
        let user: Arc<str> = config.broker_user().into();
        // The client calls back from a task of its own, whose log lines would not say whose broker it is.
        let span = tracing::Span::current();
        let on_event = move |event: Event| {
            let span = span.clone();
            let (link_tx, refused, epochs) = (link_tx.clone(), refused.clone(), epochs.clone());
            let user = user.clone();
            async move {
                let epoch = epochs.load(Ordering::Relaxed);
                match event {
                    // The first connection counts as epoch 1, whether or not it is reported.
                    Event::Connected if link_tx.borrow().up => {}
                    Event::Connected => {
                        epochs.store(epoch + 1, Ordering::Relaxed);
                        refused.clear();
                        link_tx.send_replace(Link { up: true, epoch: epoch + 1 });
                        tracing::info!("reconnected to the broker");
                    }
                    // The service has let go of it.
                    Event::Closed => drop(link_tx.send_replace(Link { up: false, epoch })),
                    Event::Disconnected => {
                        if link_tx.send_replace(Link { up: false, epoch }).up {
                            tracing::warn!("disconnected from the broker");
                        }
                    }
                    Event::ServerError(error) => {
                        let text = error.to_string();
                        if !is_refusal(&text) {
                            tracing::error!(error = text, "the broker reported an error");
                        } else if refused.note(&format!("user {user}: {}", text.trim_start_matches("nats: "))) {
                            tracing::error!(error = text, user = &*user, "the broker denied access to a subject");
                        }
                    }
                    other => tracing::debug!(event = %other, "broker"),
                }
            }
            .instrument(span)
        };
        let options = config.connect_options().await.map_err(|error| error.to_string())?;
        let client = options
            .name(service)
            .custom_inbox_prefix(inbox_prefix(service))
            .event_callback(on_event)
            .ping_interval(Duration::from_secs(5))
            .connection_timeout(Duration::from_secs(5))
            .reconnect_delay_callback(|attempt| {
                let doublings = u32::try_from(attempt.min(6)).unwrap_or(6);
                Duration::from_millis(25 << doublings)
            })
            .connect(config.nats_url.servers())
            .await
            .map_err(|error| error.to_string())?;
        let jetstream = ContextBuilder::new().timeout(Duration::from_secs(5)).build(client.clone());
        Ok(Self { client, jetstream, link, refusals })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.borrow().up
    }

    /// What the broker refuses for lack of rights, naming user and subject.
    pub(crate) fn refusals(&self) -> Arc<Refusals> {
        self.refusals.clone()
    }

    /// The largest message, headers and body, that a service may emit: what the server takes, less the room that makes a dead
    /// letter of it fit too.
    pub(crate) fn max_message(&self) -> usize {
        self.client.max_payload().saturating_sub(dead_letter::ROOM)
    }

    /// Declares a domain's stream: file storage, kept until trimmed, refusing what exceeds its size.
    pub(crate) async fn declare(&self, stream: &Stream, release: &Release) -> Result<(), DeclareError> {
        let mut wanted = limits(stream.name, format!("{}.>", stream.domain));
        wanted.max_bytes = i64::try_from(stream.max_bytes).unwrap_or(i64::MAX);
        wanted.metadata.insert(PARTITIONS.into(), stream.partitions.to_string());
        declare(&self.jetstream, wanted, release).await
    }

    /// Declares the stream of a service's dead letters, which nobody trims.
    pub(crate) async fn declare_dead_letters(&self, service: &str, release: &Release) -> Result<(), DeclareError> {
        let mut wanted = limits(&dead_letter::stream_name(service), dead_letter::subjects(service));
        wanted.max_messages_per_subject = 1;
        wanted.allow_message_ttl = true;
        declare(&self.jetstream, wanted, release).await
    }
}

/// Declares the work queue of redrives, which is nobody's own: whoever uses it declares it, in the toolkit's release. A later
/// redrive takes the place of an earlier one.
pub(crate) async fn declare_redrives(jetstream: &jetstream::Context) -> Result<(), DeclareError> {
    let mut wanted = limits(dead_letter::REDRIVE, "redrive.>".into());
    wanted.retention = RetentionPolicy::WorkQueue;
    wanted.max_messages_per_subject = 1;
    wanted.discard = DiscardPolicy::Old;
    declare(jetstream, wanted, &Release::default()).await
}

/// Read, compare, write only a difference, and nothing over a newer release. What cannot be changed is an error that names
/// the field.
pub(crate) async fn declare(
    jetstream: &jetstream::Context,
    mut wanted: StreamConfig,
    release: &Release,
) -> Result<(), DeclareError> {
    release.sign(&mut wanted.metadata);
    let name = wanted.name.clone();
    let have = match jetstream.get_stream(&name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => {
            let jetstream::context::GetStreamErrorKind::JetStream(ref reply) = error.kind() else {
                return Err(DeclareError::Away(error.to_string()));
            };
            if reply.error_code() != ErrorCode::STREAM_NOT_FOUND {
                return Err(DeclareError::Away(error.to_string()));
            }
            let created = jetstream.create_stream(wanted).await;
            return created.map(drop).map_err(|error| DeclareError::Away(error.to_string()));
        }
    };
    let fixed = |field: &'static str, same: bool| {
        if same { Ok(()) } else { Err(DeclareError::Fixed { stream: name.clone(), field }) }
    };
    fixed("storage", have.storage == wanted.storage)?;
    fixed("retention", have.retention == wanted.retention)?;
    fixed("partitions", have.metadata.get(PARTITIONS) == wanted.metadata.get(PARTITIONS))?;
    if release.is_older_than(&have.metadata) {
        return Ok(());
    }
    let mut metadata = have.metadata.clone();
    release.sign(&mut metadata);
    let same = have.subjects == wanted.subjects
        && have.metadata == metadata
        && have.max_bytes == wanted.max_bytes
        && have.discard == wanted.discard
        && have.max_messages_per_subject == wanted.max_messages_per_subject
        && have.allow_message_ttl == wanted.allow_message_ttl
        && have.max_age == wanted.max_age
        && have.duplicate_window == wanted.duplicate_window;
    if same {
        return Ok(());
    }
    let changed = StreamConfig {
        subjects: wanted.subjects,
        max_bytes: wanted.max_bytes,
        discard: wanted.discard,
        max_messages_per_subject: wanted.max_messages_per_subject,
        allow_message_ttl: wanted.allow_message_ttl,
        max_age: wanted.max_age,
        duplicate_window: wanted.duplicate_window,
        metadata,
        ..have
    };
    jetstream
        .update_stream(&changed)
        .await
        .map(drop)
        .map_err(|error| DeclareError::Refused { stream: name, error: error.to_string() })
}

/// What the subjects begin with on which a service gets its answers: `_INBOX_payments`. A prefix of its own lets the broker's
/// rights keep others from listening to them.
pub fn inbox_prefix(service: &str) -> String {
    format!("_INBOX_{service}")
}

/// In the metadata of a domain's stream: the number of its partitions.
pub(crate) const PARTITIONS: &str = "millstream.partitions";

/// A stream in a file, without limits, that refuses what does not fit.
pub(crate) fn limits(name: &str, subjects: String) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        subjects: vec![subjects],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: Duration::from_secs(30),
        allow_direct: true,
        ..StreamConfig::default()
    }
}

/// Why a stream is not as declared.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The broker does not answer; worth another try.
    #[error("{0}")]
    Away(String),
    /// The stream exists with another value of something that cannot be changed.
    #[error("stream {stream} exists with another `{field}`, which cannot be changed: rename the stream or delete it")]
    Fixed {
        /// The stream.
        stream: String,
        /// The field of its configuration.
        field: &'static str,
    },
    /// The broker refuses the change.
    #[error("stream {stream} cannot be changed to what is declared: {error}")]
    Refused {
        /// The stream.
        stream: String,
        /// What the broker says.
        error: String,
    },
}
