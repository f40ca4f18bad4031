//! The broker: one connection a service, and its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::Config as StreamConfig;
use async_nats::{Client, Event};
use millstream_core::server::{Known, known};
use tokio::sync::watch;
use tracing::Instrument;

use crate::config::Config;
use crate::dead_letter;
use crate::declare::{DeclareError, declare, expect};
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
    /// Whether the service makes and changes streams itself.
    pub(crate) declares: bool,
    /// How many replicas its streams are to have; `None` if the broker's servers decide.
    replicas: Option<usize>,
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
        let known = known_of(&client);
        if let Some(why) = known.refused {
            return Err(why);
        }
        known.lacks.iter().for_each(|lack| tracing::warn!("{lack}"));
        let jetstream = ContextBuilder::new().timeout(Duration::from_secs(5)).build(client.clone());
        let (declares, replicas) = (!config.await_declared, config.stream_replicas);
        Ok(Self { client, jetstream, link, refusals, declares, replicas })
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

    /// Has a stream as the service needs it: declares it, or only compares it where the service declares nothing.
    pub(crate) async fn ensure(&self, mut wanted: StreamConfig, release: &Release) -> Result<(), DeclareError> {
        wanted.num_replicas = self.replicas.unwrap_or_default();
        if self.declares {
            return declare(&self.jetstream, wanted, release).await.map(drop);
        }
        expect(&self.jetstream, &wanted, release).await
    }
}

/// What is known of the server that a client is connected to.
pub(crate) fn known_of(client: &Client) -> Known {
    let server = client.server_info();
    known(&server.version, server.cluster.is_some())
}

/// What the subjects begin with on which a service gets its answers: `_INBOX_payments`. A prefix of its own lets the broker's
/// rights keep others from listening to them.
pub fn inbox_prefix(service: &str) -> String {
    format!("_INBOX_{service}")
}
