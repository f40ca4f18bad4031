//! The bare saga: the messages and the state of the shop's, and nothing else. One process, five services with a SQLite file each;
//! every service takes what is ready (up to 256), commits it, publishes, awaits all acknowledgements, and acks what it took.
//!
//! | event (stream)                | delivered to  | states written               | publishes         |
//! | ----------------------------- | ------------- | ---------------------------- | ----------------- |
//! | –                             |               | order 1                      | OrderCreated      |
//! | OrderCreated (ORDERS)         | inventory     | reservation 1, stock a batch | InventoryReserved |
//! |                               | analytics     | figures a batch              |                   |
//! | InventoryReserved (INVENTORY) | orders        | order 2                      |                   |
//! |                               | payments      | payment 1, then 2            | PaymentProcessed  |
//! | PaymentProcessed (PAYMENTS)   | orders        | order 3                      | OrderConfirmed    |
//! | OrderConfirmed (ORDERS)       | inventory     | reservation 2                |                   |
//! |                               | notifications | notification 1, then 2       |                   |
//! |                               | analytics     | figures a batch              |                   |
//!
//! That is 4 messages, 8 deliveries with acks, and 9 rows, of the sizes that the shop's have. "Then" is a transaction of its own, as
//! the intent and the outcome of an effect are. Without: HTTP, JSON, headers, deduplication, indexes, the journal, metrics, the
//! gateway.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::EVENT;
use super::store::{Row, Store};
use crate::load::Phase;
use crate::tally::{self, DELIVERIES, Tally};

/// The most that is committed at once, as in the shop's engine.
const BATCH: usize = 256;

/// How long what was begun may take to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The services, the bytes of a row, the last state of an order, and how often each order is counted in the total.
const SERVICES: [(&str, usize, u8, i64); 5] = [
    ("orders", 325, 3, 0),
    ("inventory", 171, 2, 1),
    ("payments", 157, 2, 0),
    ("notifications", 371, 2, 0),
    ("analytics", 0, 0, 2),
];

/// What a service does with an event.
struct Step {
    on: &'static str,
    /// The states that are written, each in its transaction.
    states: &'static [u8],
    counts: bool,
    publishes: Option<&'static str>,
}

const fn step(on: &'static str, states: &'static [u8], publishes: Option<&'static str>) -> Step {
    Step { on, states, counts: false, publishes }
}

const fn counting(step: Step) -> Step {
    Step { counts: true, ..step }
}

/// A durable: its service, its stream, and what it is given.
type Durable = (&'static str, &'static str, &'static [Step]);

const DURABLES: [Durable; 6] = [
    (
        "inventory",
        "ORDERS",
        &[counting(step("orders.created", &[1], Some("inventory.reserved"))), step(CONFIRMED, &[2], None)],
    ),
    ("analytics", "ORDERS", &[counting(step("orders.created", &[], None)), counting(step(CONFIRMED, &[], None))]),
    ("orders", "INVENTORY", &[step("inventory.reserved", &[2], None)]),
    ("payments", "INVENTORY", &[step("inventory.reserved", &[1, 2], Some("payments.processed"))]),
    ("orders", "PAYMENTS", &[step("payments.processed", &[3], Some(CONFIRMED))]),
    ("notifications", "ORDERS", &[step(CONFIRMED, &[1, 2], None)]),
];

const CONFIRMED: &str = "orders.confirmed";

/// Who sees first that an order is confirmed, as a customer would.
const WITNESS: &str = "analytics";

/// A saga that has ended.
pub(super) struct Saga {
    pub(super) phase: Phase,
    broker: Context,
    stores: BTreeMap<&'static str, Store>,
}

impl Saga {
    /// Sees that each row, message and ack is there.
    pub(super) async fn verify(&self) -> Result<Tally> {
        let orders = self.phase.orders as i64;
        for (service, _, state, counted) in SERVICES {
            self.stores[service].verify(state, if state == 0 { 0 } else { orders }, counted * orders)?;
        }
        tally::verified(&self.broker, self.phase.orders).await
    }
}

/// Begins orders for so long, at most `window` of them unconfirmed at a time, and waits until all have ended.
pub(super) async fn run(nats: &str, folder: &Path, window: Option<usize>, length: Duration) -> Result<Saga> {
    let consuming = async_nats::connect(nats).await?;
    let broker = jetstream::new(consuming.clone());
    let mut streams = BTreeMap::new();
    for name in ["ORDERS", "INVENTORY", "PAYMENTS"] {
        let subjects = vec![format!("{}.>", name.to_lowercase())];
        let config = stream::Config { name: name.into(), subjects, ..stream::Config::default() };
        streams.insert(name, broker.create_stream(config).await?);
    }
    let mut stores = BTreeMap::new();
    for (service, body, ..) in SERVICES {
        stores.insert(service, Store::open(folder, service, body)?);
    }
    let (acked, mut all_acked) = watch::channel(0);
    let saga = Arc::new(Shared {
        // What is published does not wait behind acks.
        publishing: jetstream::new(async_nats::connect(nats).await?),
        window: window.map(Semaphore::new),
        times: Mutex::default(),
        acked,
    });
    let mut services = JoinSet::new();
    for (service, stream, steps) in DURABLES {
        let config = pull::Config {
            durable_name: Some(service.into()),
            filter_subjects: steps.iter().map(|step| format!("{}.*", step.on)).collect(),
            max_ack_pending: 4 * BATCH as i64,
            ack_wait: PATIENCE,
            ..pull::Config::default()
        };
        let consumer = streams[stream].create_consumer(config).await?;
        services.spawn(saga.clone().consume(consumer, service, stores[service].clone(), steps));
    }
    let orders = stores["orders"].clone();
    let work = async {
        let begun = saga.begin(orders, length).await?;
        all_acked.wait_for(|acked| *acked == DELIVERIES * begun).await.context("the services have ended")?;
        consuming.flush().await?;
        anyhow::Ok(())
    };
    tokio::select! {
        done = timeout(length + PATIENCE, work) => done.context("the saga does not end")??,
        ended = services.join_next() => match ended {
            Some(ended) => ended??,
            None => bail!("there are no services"),
        },
    }
    let times: Option<Vec<_>> = saga.times().iter().map(|(begun, ended)| Some((*begun, (*ended)?))).collect();
    Ok(Saga { phase: Phase::of(&times.context("an order was not confirmed")?)?, broker, stores })
}

/// What the services share.
struct Shared {
    publishing: Context,
    /// Permits of orders that may be begun.
    window: Option<Semaphore>,
    /// When each order was begun and confirmed; its number is its key.
    times: Mutex<Vec<(Instant, Option<Instant>)>>,
    acked: watch::Sender<u64>,
}

impl Shared {
    /// Begins orders, in batches, and says how many.
    async fn begin(&self, store: Store, length: Duration) -> Result<u64> {
        let until = Instant::now() + length;
        let mut next = 0;
        loop {
            let count = match &self.window {
                None => BATCH,
                Some(window) => {
                    window.acquire().await?.forget();
                    let more = window.available_permits().min(BATCH - 1);
                    window.try_acquire_many(more as u32)?.forget();
                    1 + more
                }
            };
            let keys: Vec<u128> = (next..next + count as u128).collect();
            next += count as u128;
            let begun = Instant::now();
            self.times().extend(keys.iter().map(|_| (begun, None)));
            store.commit(keys.iter().map(|key| Row { key: *key, state: 1 }).collect(), 0).await?;
            self.publish("orders.created", &keys).await?;
            if Instant::now() >= until {
                return Ok(u64::try_from(next)?);
            }
        }
    }

    async fn consume(
        self: Arc<Self>,
        consumer: jetstream::consumer::PullConsumer,
        service: &'static str,
        store: Store,
        steps: &'static [Step],
    ) -> Result<()> {
        let deliveries = consumer.stream().max_messages_per_batch(4 * BATCH).messages().await?;
        let mut batches = deliveries.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
            let mut work: Vec<(&Step, u128)> = vec![];
            for message in &batch {
                let key = message.payload.first_chunk().context("a body without a key")?;
                let step = steps.iter().find(|step| message.subject.starts_with(step.on));
                work.push((step.context("an event that nobody asked for")?, u128::from_be_bytes(*key)));
            }
            if service == WITNESS {
                self.confirmed(&work);
            }
            let mut counted = work.iter().filter(|(step, _)| step.counts).count() as i64;
            for transaction in 0.. {
                let row = |(step, key): &(&Step, u128)| Some(Row { key: *key, state: *step.states.get(transaction)? });
                let rows: Vec<Row> = work.iter().filter_map(row).collect();
                if rows.is_empty() && counted == 0 {
                    break;
                }
                store.commit(rows, std::mem::take(&mut counted)).await?;
            }
            for step in steps {
                if let Some(event) = step.publishes {
                    let keys: Vec<u128> = work.iter().filter(|(of, _)| of.on == step.on).map(|(_, key)| *key).collect();
                    self.publish(event, &keys).await?;
                }
            }
            for message in &batch {
                message.ack().await.map_err(anyhow::Error::from_boxed)?;
            }
            self.acked.send_modify(|acked| *acked += batch.len() as u64);
        }
        bail!("the deliveries of {service} ended")
    }

    /// Sends all, then awaits all acknowledgements.
    async fn publish(&self, event: &str, keys: &[u128]) -> Result<()> {
        let mut acks = Vec::with_capacity(keys.len());
        for key in keys {
            let mut body = vec![b'x'; EVENT];
            body[..16].copy_from_slice(&key.to_be_bytes());
            acks.push(self.publishing.publish(format!("{event}.{}", key % 8), Bytes::from(body)).await?);
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }

    fn confirmed(&self, work: &[(&Step, u128)]) {
        let now = Instant::now();
        let confirmed: Vec<usize> =
            work.iter().filter(|(step, _)| step.on == CONFIRMED).map(|(_, key)| *key as usize).collect();
        let mut times = self.times();
        for order in &confirmed {
            times[*order].1 = Some(now);
        }
        if let Some(window) = &self.window {
            window.add_permits(confirmed.len());
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::start_broker;

    #[tokio::test]
    async fn a_saga_ends_all_that_it_began_and_whatever_is_missing_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let broker = start_broker(folder.path(), false).await.unwrap();
        let saga = run(&broker.url(), folder.path(), Some(8), Duration::ZERO).await.unwrap();
        let tally = saga.verify().await.unwrap();
        assert_eq!((saga.phase.orders, tally.messages, tally.deliveries), (8, 32, 64));

        let db = rusqlite::Connection::open(folder.path().join("payments.db")).unwrap();
        db.execute("UPDATE states SET state = 1 WHERE id = (SELECT min(id) FROM states)", []).unwrap();
        let error = saga.verify().await.unwrap_err().to_string();
        assert!(error.contains("payments.db: 7 orders in state 2, not 8"), "{error}");
        let error = tally::verified(&saga.broker, 7).await.unwrap_err().to_string();
        assert!(error.contains("ORDERS has 16 messages of 7 orders, not 14"), "{error}");
        broker.stop().await;
    }
}
