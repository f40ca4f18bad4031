//! What the services and the broker say, read once.

use analytics::Summary;
use anyhow::Context;
use async_nats::jetstream;
use contracts::Money;
use futures_util::TryStreamExt;
use millstream::Timestamp;
use millstream::dead_letter::stream_name;
use millstream::operator::Operator;
use millstream::operator::dead::{DeadFilter, DeadLetter, Letters};
use serde::Deserialize;

use super::Options;
use crate::tryout::POISONED;
use crate::wire::{self, Api, Line, Order, Product};

/// The system at rest, or nearly so.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Orders that ended, or began, before this are settled: their consequences should be seen everywhere.
    pub(super) before: Timestamp,
    pub(super) orders: Vec<Order>,
    pub(super) products: Vec<Product>,
    pub(super) reservations: Vec<Reservation>,
    pub(super) payments: Vec<Payment>,
    pub(super) charges: Vec<Charge>,
    pub(super) notifications: Vec<Notification>,
    pub(super) summary: Summary,
    pub(super) streams: Vec<Stream>,
    pub(super) dead: Vec<DeadLetters>,
    pub(super) durables: Vec<Durable>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reservation {
    pub(super) order_id: String,
    pub(super) status: String,
    #[serde(default, rename = "items")]
    pub(super) lines: Vec<Line>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payment {
    pub(super) order_id: String,
    pub(super) status: String,
    /// A payment that was cancelled before it began has none.
    #[serde(default)]
    pub(super) amount: Option<Money>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Charge {
    pub(super) order_id: String,
    pub(super) amount: Money,
    pub(super) refunded: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Notification {
    pub(super) order_id: String,
    pub(super) occasion: String,
    pub(super) status: String,
}

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) last_sequence: u64,
}

/// The unresolved dead letters of a stream.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    pub(super) stream: String,
    pub(super) left: u64,
    /// Those that the demonstration has poisoned, which are not among them.
    pub(super) poisoned: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Durable {
    pub(super) stream: String,
    pub(super) name: String,
    pub(super) pending: u64,
    pub(super) unacked: u64,
    pub(super) ack_floor: u64,
    /// When it was made.
    pub(super) created: Timestamp,
}

/// A part that could not be read, and why.
pub(super) type Unseen = (&'static str, String);

/// Who asks: only the orders service is to learn its key.
pub(super) struct Clients {
    pub(super) orders: reqwest::Client,
    pub(super) others: reqwest::Client,
}

impl Snapshot {
    /// Reads everything. The orders come last, so that what the others tell of an order is never newer than the order itself:
    /// whatever has an effect somewhere is in the list.
    pub(super) async fn take(options: &Options, clients: &Clients) -> Result<Self, Vec<Unseen>> {
        let before = Timestamp::system() - options.older_than;
        let mut unseen = vec![];
        let mut note = |part, error: anyhow::Error| unseen.push((part, format!("{error:#}")));
        let api = |url: &Option<String>, port| Api::new(&clients.others, &options.service(url.as_ref(), port));

        let orders = Api::new(&clients.orders, &options.service(options.orders_url.as_ref(), 1));
        let inventory = api(&options.inventory_url, 2);
        let payments = api(&options.payments_url, 3);
        let notifications = api(&options.notifications_url, 4);
        let analytics = api(&options.analytics_url, 5);
        let gateway = api(&options.gateway_url, 10);
        let (stock, reservations, payments, charges, notifications, summary, broker) = tokio::join!(
            inventory.list("/stock", "products"),
            inventory.list("/reservations", "reservations"),
            payments.list("/payments", "payments"),
            gateway.list("/charges", "charges"),
            notifications.list("/notifications", "notifications"),
            analytics.object("/analytics/summary"),
            broker(&options.nats_url),
        );
        let products = stock.map_err(|error| note("stock of inventory", error)).unwrap_or_default();
        let reservations = reservations.map_err(|error| note("reservations of inventory", error)).unwrap_or_default();
        let payments = payments.map_err(|error| note("payments", error)).unwrap_or_default();
        let charges = charges.map_err(|error| note("gateway", error)).unwrap_or_default();
        let notifications = notifications.map_err(|error| note("notifications", error)).unwrap_or_default();
        let summary: Option<Summary> = summary.map_err(|error| note("analytics", error)).ok();
        let (streams, durables, dead) = broker.map_err(|error| note("broker", error)).unwrap_or_default();
        let orders = orders.list("/orders", "orders").await.map_err(|error| note("orders", error)).unwrap_or_default();
        match summary {
            Some(summary) if unseen.is_empty() => Ok(Self {
                before,
                orders,
                products,
                reservations,
                payments,
                charges,
                notifications,
                summary,
                streams,
                durables,
                dead,
            }),
            _ => Err(unseen),
        }
    }
}

async fn broker(url: &str) -> anyhow::Result<(Vec<Stream>, Vec<Durable>, Vec<DeadLetters>)> {
    let client = wire::broker(url).await?;
    let (context, operator) = (jetstream::new(client.clone()), Operator::new(client));
    let infos: Vec<_> = context.streams().try_collect().await.context("cannot list the broker's streams")?;
    let (mut streams, mut durables) = (vec![], vec![]);
    for info in infos {
        let name = info.config.name;
        let stream = context.get_stream_no_info(&name).await?;
        let consumers: Vec<_> =
            stream.consumers().try_collect().await.with_context(|| format!("cannot list the consumers of {name}"))?;
        durables.extend(consumers.into_iter().filter(|consumer| consumer.config.durable_name.is_some()).map(
            |consumer| Durable {
                stream: name.clone(),
                name: consumer.name,
                pending: consumer.num_pending,
                unacked: consumer.num_ack_pending as u64,
                ack_floor: consumer.ack_floor.stream_sequence,
                created: Timestamp::from_millis(
                    u64::try_from(consumer.created.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
                ),
            },
        ));
        streams.push(Stream { name, last_sequence: info.state.last_sequence });
    }
    let mut letters = Letters::default();
    letters.update(&operator).await?;
    let dead = letters.services().map(|(service, _)| dead_letters(&letters, service)).collect();
    Ok((streams, durables, dead))
}

fn dead_letters(letters: &Letters, service: &str) -> DeadLetters {
    let dead = letters.list(&DeadFilter { service: Some(service.into()), ..DeadFilter::default() });
    let (poisoned, left): (Vec<&DeadLetter>, Vec<_>) = dead
        .into_iter()
        .partition(|letter| letter.correlation.as_ref().is_some_and(|correlation| correlation.starts_with(POISONED)));
    DeadLetters { stream: stream_name(service), left: left.len() as u64, poisoned: poisoned.len() as u64 }
}
