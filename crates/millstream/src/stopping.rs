//! Stopping in order: what is begun is finished, what is prefetched handed back, what is committed published.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::engine::Engine;
use crate::engine::input::{Ended, Input, OutcomeInput};
use crate::handler::{Key, Wake};
use crate::unit::outcome_meta;

/// Hands back, lets running effects end, publishes the rest, and takes the instance row away.
pub(crate) async fn stop_engine(
    mut engine: Engine,
    broker: &Broker,
    mut consumers: JoinSet<()>,
    mut helpers: JoinSet<()>,
    publisher: tokio::task::JoinHandle<()>,
    acker: tokio::task::JoinHandle<()>,
) {
    fail::fail_point!("stopping");
    // The consumers hand back what the loop has not taken from them; what is in its channel is handed back here.
    // Nothing is given back to the broker before the consumers have ended: it would come again at once, to them.
    let rest = engine.intake.rest();
    let (messages, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|input| matches!(input, Input::Message(_)));
    let (ends, others) = others.into_iter().partition(|input| matches!(input, Input::Outcome(_)));
    engine.abandon(others);
    while consumers.join_next().await.is_some() {}
    engine.abandon(messages);
    let others = engine.intake.rest();
    let (more, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|input| matches!(input, Input::Outcome(_)));
    engine.abandon(others);
    for ended in [ends, more] {
        if !ended.is_empty() {
            engine.process(ended).await;
        }
    }
    let grace = Instant::now() + engine.timing.effect_grace;
    while !engine.board.running().is_empty() {
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
    let given_back: Vec<Input> =
        engine.board.running().into_iter().map(|running| give_back(&engine, running)).collect();
    if !given_back.is_empty() {
        engine.process(given_back).await;
    }
    helpers.shutdown().await;
    while engine.outbox.queued() > 0 && broker.is_up() {
        if tokio::time::timeout(Duration::from_millis(100), engine.outbox.progress()).await.is_err() {
            tracing::debug!("the last events are on their way");
        }
    }
    engine.write_watermark().await;
    if let Err(error) = engine.delete_own_row().await {
        tracing::debug!(%error, "the instance row stays; the next instance sweeps it");
    }
    drop(engine);
    // Without the broker the publisher has work that cannot be done now, and nothing can be flushed.
    publisher.abort();
    if !broker.is_up() {
        acker.abort();
        return;
    }
    let flushed = async { acker.await.is_ok() && broker.client.flush().await.is_ok() };
    if !tokio::time::timeout(FLUSH, flushed).await.unwrap_or_default() {
        tracing::debug!("the last acks may be lost: their messages come again and are answered from the journal");
    }
}

/// How long the last acks may take to go out.
const FLUSH: Duration = Duration::from_secs(1);

fn give_back(engine: &Engine, (key, wake): (Key, Wake)) -> Input {
    let meta = outcome_meta(engine.rules.service, &key, &wake);
    Input::Outcome(Box::new(OutcomeInput { key, wake, meta, ended: Ended::GivenBack, took: Duration::ZERO }))
}
