//! Stopping in order: work in progress is finished, prefetched messages are handed back, committed events are published.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::planner::{Ended, OutcomeInput};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::durable::Declared;
use crate::engine::Engine;
use crate::engine::arrival::{Arrival, Receipt};
use crate::engine::publisher::Outbox;
use crate::engine::tails::Tail;
use crate::handler::{Key, Wake};
use crate::unit::outcome_meta;

/// The tasks around the engine. Dropped, they are aborted.
#[derive(Default)]
pub(crate) struct Tasks {
    pub(crate) consumers: JoinSet<()>,
    pub(crate) helpers: JoinSet<()>,
    pub(crate) publisher: JoinSet<()>,
    pub(crate) acker: JoinSet<()>,
    /// The durables that are read, to record in the end how far they are.
    pub(crate) durables: Vec<Arc<Declared>>,
    /// Each records last what the service has published.
    pub(crate) tails: Vec<Arc<Tail>>,
}

/// How long a stop waits for the next message to be published.
const SILENCE: Duration = Duration::from_secs(5);
/// As [`SILENCE`], while the broker refuses what is left.
const REFUSED: Duration = Duration::from_secs(2);

/// Stops a service whose engine has left its loop; without the engine, which has panicked, what it had in hand is left to the next
/// instance.
pub(crate) async fn stop(engine: Option<Engine>, outbox: Outbox, broker: &Broker, tasks: Tasks) {
    fail::fail_point!("stopping");
    let Tasks { mut consumers, mut helpers, mut publisher, mut acker, durables, tails } = tasks;
    let engine = match engine {
        Some(engine) => Some(finish(engine, &mut consumers).await),
        None => {
            while consumers.join_next().await.is_some() {}
            None
        }
    };
    helpers.shutdown().await;
    // A publisher that has failed publishes nothing more; the next instance does.
    let (mut published, mut since) = (outbox.published(), Instant::now());
    while outbox.queued() > 0 && broker.is_up() && publisher.try_join_next().is_none() {
        let _ = tokio::time::timeout(Duration::from_millis(100), outbox.progress()).await;
        if std::mem::replace(&mut published, outbox.published()) != published {
            since = Instant::now();
        }
        let held = outbox.held();
        // What is left is published by whoever is there when the broker takes it.
        if since.elapsed() >= if held.is_empty() { SILENCE } else { REFUSED } {
            tracing::warn!(unpublished = outbox.queued(), ?held, "stopping with events that the broker does not take");
            break;
        }
    }
    if let Some(mut engine) = engine {
        engine.write_watermark().await;
        let mut recorded = true;
        for tail in tails {
            recorded &= tail.record_last().await;
        }
        if !recorded {
            tracing::debug!(
                "the broker has not been looked at; the instance row stays, and the next instance sweeps it"
            );
        } else if let Err(error) = engine.delete_own_row().await {
            tracing::debug!(%error, "the instance row stays; the next instance sweeps it");
        }
    }
    // Without the broker the publisher has work that cannot be done now, and nothing can be flushed.
    publisher.shutdown().await;
    if !broker.is_up() {
        return;
    }
    let flushed = async {
        while acker.join_next().await.is_some() {}
        let flushed = broker.client.flush().await.is_ok();
        for durable in durables {
            durable.record_last(broker).await;
        }
        flushed
    };
    if !tokio::time::timeout(FLUSH, flushed).await.unwrap_or_default() {
        tracing::debug!("the last acks may be lost: their messages are redelivered and answered from the journal");
    }
}

/// Hands back what is not begun, lets running effects end, and gives back the rest.
async fn finish(mut engine: Engine, consumers: &mut JoinSet<()>) -> Engine {
    // The consumers hand back what the loop has not taken from them; what is in its channel is handed back here.
    // Nothing is given back to the broker before the consumers have ended: it would come again at once, to them.
    let rest = engine.intake.rest();
    let (messages, others): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|arrival| matches!(arrival.receipt, Receipt::Message(_)));
    let (ends, others) = others.into_iter().partition(|arrival| matches!(arrival.receipt, Receipt::Effect(_)));
    engine.abandon(others);
    while consumers.join_next().await.is_some() {}
    engine.abandon(messages);
    let others = engine.intake.rest();
    let (more, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|arrival| matches!(arrival.receipt, Receipt::Effect(_)));
    engine.abandon(others);
    for ended in [ends, more] {
        if !ended.is_empty() {
            engine.process(ended).await;
        }
    }
    let grace = Instant::now() + engine.planner.timing.effect_grace;
    while engine.slots.lock().running().next().is_some() {
        match tokio::time::timeout_at(grace, engine.intake.ends.recv()).await {
            Ok(Some(ended)) => engine.process(vec![ended]).await,
            _ => break,
        }
    }
    // Ends the effects that still run: whoever claims them next must not run them beside ours.
    engine.intake.ends.close();
    while let Ok(ended) = engine.intake.ends.try_recv() {
        engine.process(vec![ended]).await;
    }
    let given_back: Vec<Arrival> =
        engine.slots.lock().running().map(|(key, wake)| give_back(&engine, key.clone(), wake.clone())).collect();
    if !given_back.is_empty() {
        engine.process(given_back).await;
    }
    engine
}

/// How long the last acks may take to go out.
const FLUSH: Duration = Duration::from_secs(1);

fn give_back(engine: &Engine, key: Key, wake: Wake) -> Arrival {
    let meta = outcome_meta(engine.planner.rules.service, &key, &wake);
    Arrival::outcome(OutcomeInput { key, wake, meta, ended: Ended::GivenBack }, Duration::ZERO)
}
