//! What a route handler works with: commands go in through the engine, reads go to the store.

use std::sync::Arc;

use millstream_core::planner::{CommandInput, Idempotency, Reply};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::accepted::stopping;
pub use crate::accepted::{Accepted, CommandError};
use crate::engine::arrival::{Arrival, Ticket};
use crate::engine::status::Status;
use crate::engine::timing::{Clock, Timing};
use crate::event::Meta;
use crate::handler::{Command, CommandHandler, Document, Key};
use crate::ids::Id;
use crate::store::{Query, Store, StoreError, StoredDoc};
use crate::unit::Work;
use crate::watchers::Watchers;
use crate::work::{CommandWork, Itself};

/// The service, as its routes see it. Cheap to clone.
#[derive(Clone)]
pub struct Context(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) service: &'static str,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) commands: mpsc::Sender<Arrival>,
    pub(crate) status: Arc<Status>,
    pub(crate) timing: Timing,
    pub(crate) clock: Clock,
    pub(crate) watchers: Watchers,
}

/// Who asks, and under which key: read from a request's headers, an axum extractor.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Its name, where callers have keys ([`Service::only_for`](crate::Service::only_for)).
    pub name: Option<String>,
    /// `X-Correlation-Id`, or one made for this request.
    pub correlation: String,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The method.
    pub method: String,
    /// The route's template, `/orders/{id}`.
    pub route: String,
}

impl Context {
    /// Executes a command: answers once its commit is durable.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit<C: Command>(&self, caller: &Caller, command: C) -> Result<Accepted<C::Reply>, CommandError> {
        self.submit_to(caller, &Itself, command).await
    }

    /// Executes a command by a handler that has what the command does not carry: answers once its commit is durable.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit_to<C, H>(
        &self,
        caller: &Caller,
        handler: &H,
        command: C,
    ) -> Result<Accepted<H::Reply>, CommandError>
    where
        C: Serialize + Send + Sync + 'static,
        H: CommandHandler<C> + Clone,
    {
        let id = Id::random(self.0.clock.now());
        let idempotency = caller.idempotency_key.as_deref().map(|key| self.idempotency(caller, key, &command));
        let work = Box::new(CommandWork { id, handler: handler.clone(), command });
        self.submit_work(caller, id, work, idempotency).await.map(Accepted::new)
    }

    /// Executes whatever work as a command.
    pub(crate) async fn submit_work(
        &self,
        caller: &Caller,
        id: Id,
        work: Box<dyn Work>,
        idempotency: Option<Idempotency>,
    ) -> Result<Reply, CommandError> {
        let shared = &self.0;
        if let Some(why) = shared.status.refuses(&shared.timing) {
            return Err(CommandError::Unavailable(why));
        }
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket::default();
        let meta = Meta {
            id,
            time: id.time().unwrap_or_else(|| shared.clock.now()),
            correlation: caller.correlation.clone(),
            causation: None,
            traceparent: caller.traceparent.clone(),
        };
        let input = CommandInput { id, meta, work, idempotency };
        if shared.commands.try_send(Arrival::command(input, ticket.clone(), answer)).is_err() {
            return Err(CommandError::Unavailable("too many requests are waiting".into()));
        }
        match tokio::time::timeout(shared.timing.command_timeout, answered).await {
            Ok(Ok(answer)) => answer,
            // The engine has ended: what was in a commit may be committed.
            Ok(Err(_)) if ticket.withdraw() => Err(stopping()),
            Ok(Err(_)) => Err(CommandError::OutcomeUnknown),
            Err(_) if ticket.withdraw() => {
                Err(CommandError::Unavailable("the service did not get to it in time; nothing was done".into()))
            }
            Err(_) => Err(CommandError::OutcomeUnknown),
        }
    }

    /// The key with its scope, and what it stands for. Each caller has its own keys; where there are none to tell one caller from
    /// another, all are `-`, which nobody can be named.
    fn idempotency(&self, caller: &Caller, key: &str, command: &impl Serialize) -> Idempotency {
        let mut scope = Sha256::new();
        for part in [self.0.service, caller.name.as_deref().unwrap_or("-"), &caller.method, &caller.route, key] {
            scope.update(part.as_bytes());
            scope.update([0]);
        }
        // A fingerprint of nothing would take every command for a repeat of every other.
        let meaning =
            serde_json::to_vec(command).unwrap_or_else(|error| panic!("a command cannot be written: {error}"));
        Idempotency { hash: scope.finalize().into(), fingerprint: Sha256::digest(meaning).into() }
    }

    /// Reads one document.
    ///
    /// # Errors
    /// When the store is unavailable, or the document does not parse.
    pub async fn get<D: Document>(&self, id: &str) -> Result<Option<D>, StoreError> {
        let key = Key { collection: D::COLLECTION, id: id.into() };
        self.in_time(self.0.store.get(key)).await?.as_ref().map(read).transpose()
    }

    /// Finds documents, sorted by id.
    ///
    /// # Errors
    /// When the store is unavailable, or a document does not parse.
    pub async fn find<D: Document>(&self, query: Query<D>) -> Result<Vec<D>, StoreError> {
        self.in_time(self.0.store.find(query.selection)).await?.iter().map(read).collect()
    }

    /// A read waits for the store no longer than a command does.
    pub(crate) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let within = tokio::time::timeout(self.0.timing.command_timeout, answer).await;
        within.unwrap_or_else(|_| Err(StoreError::new("the store does not answer in time")))
    }
}

pub(crate) fn read<D: Document>(doc: &StoredDoc) -> Result<D, StoreError> {
    crate::unit::parse(&doc.body, doc.shape).map_err(|fault| StoreError::new(format!("{fault:?}")))
}
