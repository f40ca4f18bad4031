//! What the broker has counted: the figures of a run count only if everything that they claim was done was done.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::AckPolicy;
use futures_util::TryStreamExt;

/// The streams of the saga, and how many messages an order leaves in each.
const STREAMS: [(&str, u64); 3] = [("ORDERS", 2), ("INVENTORY", 1), ("PAYMENTS", 1)];

/// The deliveries of an order that nothing disturbs, all of which are acknowledged.
pub(crate) const DELIVERIES: u64 = 8;

/// How long the broker may take to count the last acknowledgements.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is in the streams, and what was done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) deliveries: u64,
    /// What the messages take in the broker's files.
    pub(crate) bytes: u64,
}

/// Waits until everything is delivered and acknowledged, and sees that it is what so many orders are.
pub(crate) async fn verified(broker: &Context, orders: u64) -> Result<Tally> {
    let until = Instant::now() + PATIENCE;
    loop {
        let (tally, open) = count(broker, orders).await?;
        if open == 0 {
            let least = DELIVERIES * orders;
            ensure!(tally.deliveries >= least, "{} deliveries of {orders} orders, not {least}", tally.deliveries);
            return Ok(tally);
        }
        ensure!(Instant::now() < until, "{open} messages are not delivered or not acknowledged after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The tally, and how many deliveries are outstanding.
async fn count(broker: &Context, orders: u64) -> Result<(Tally, u64)> {
    let (mut tally, mut open) = (Tally::default(), 0);
    for (name, of_order) in STREAMS {
        let stream = broker.get_stream(name).await?;
        let state = &stream.cached_info().state;
        let expected = of_order * orders;
        ensure!(
            state.messages == expected,
            "{name} has {} messages of {orders} orders, not {expected}",
            state.messages
        );
        tally.messages += state.messages;
        tally.bytes += state.bytes;
        let consumers: Vec<_> = stream.consumers().try_collect().await?;
        // The generator's own acknowledges nothing.
        for consumer in consumers.into_iter().filter(|consumer| consumer.config.ack_policy != AckPolicy::None) {
            tally.deliveries += consumer.delivered.consumer_sequence;
            open += consumer.num_pending + consumer.num_ack_pending as u64;
        }
    }
    Ok((tally, open))
}
