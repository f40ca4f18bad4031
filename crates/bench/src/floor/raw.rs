//! What the broker, its client and the disk do by themselves.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::store::{Row, Store};
use super::{EVENT, start_broker};
use crate::figures::{Figure, Sheet, System};
use crate::machine::{Meter, Watched};

/// Publications that are sent before the first of them is acknowledged.
const UNACKED: usize = 1000;

pub(super) async fn measure(folder: &Path, length: Duration, sheet: &mut Sheet) -> Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    let broker = start_broker(folder.path(), false).await?;
    let watched: [Watched; 1] = [("broker", broker.pid())];
    let client = async_nats::connect(broker.url()).await?;
    let js = jetstream::new(client.clone());
    let config = stream::Config { name: "RAW".into(), subjects: vec!["raw".into()], ..stream::Config::default() };
    let stream = js.create_stream(config).await?;
    let body = Bytes::from(vec![b'x'; EVENT]);
    let mut note = |figure, count: u64, meter: Meter<'_>| {
        let spent = meter.stop()?;
        sheet.note(System::Floor, figure, count as f64 / spent.seconds, Some(spent.foreign));
        anyhow::Ok(())
    };

    let meter = Meter::start(&watched)?;
    let (until, mut sent, mut unacked) = (Instant::now() + length, 0, FuturesUnordered::new());
    while Instant::now() < until {
        if unacked.len() >= UNACKED {
            unacked.next().await.transpose()?;
        }
        unacked.push(js.publish("raw", body.clone()).await?.into_future());
        sent += 1;
    }
    while let Some(ack) = unacked.next().await {
        ack?;
    }
    note(Figure::PublishPipelined, sent, meter)?;

    let meter = Meter::start(&watched)?;
    let (until, mut awaited) = (Instant::now() + length, 0);
    while Instant::now() < until {
        js.publish("raw", body.clone()).await?.await?;
        awaited += 1;
    }
    note(Figure::PublishAwaited, awaited, meter)?;

    let config = pull::Config { durable_name: Some("raw".into()), max_ack_pending: 10_000, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await?;
    let meter = Meter::start(&watched)?;
    let mut deliveries = consumer.stream().max_messages_per_batch(2 * UNACKED).messages().await?;
    for _ in 0..sent + awaited {
        let message = deliveries.next().await.context("the deliveries ended")??;
        message.ack().await.map_err(anyhow::Error::from_boxed)?;
    }
    client.flush().await?;
    note(Figure::ConsumeAck, sent + awaited, meter)?;

    let store = Store::open(folder.path(), "raw", 300)?;
    let meter = Meter::start(&watched)?;
    let (until, mut committed) = (Instant::now() + length, 0);
    while Instant::now() < until {
        store.commit(vec![Row { key: u128::from(committed), state: 1 }], 0).await?;
        committed += 1;
    }
    note(Figure::Commit, committed, meter)?;
    broker.stop().await;
    Ok(())
}
