//! What is on the wire, seen by the test's own client.

use std::collections::HashMap;

use async_nats::jetstream::{self, consumer};
use futures_util::{StreamExt, TryStreamExt};
use millstream::testing::eventually;

use super::{SOON, jetstream as connect};

/// A look at the broker.
pub(crate) struct Wire(pub(crate) jetstream::Context);

/// A message of a stream, as it is on the wire.
#[derive(Clone, Debug)]
pub(crate) struct WireEvent {
    pub(crate) subject: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) payload: Vec<u8>,
}

impl WireEvent {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The type without version, `orders.created`.
    pub(crate) fn event(&self) -> &str {
        self.header("ce-type").rsplit_once(".v").map_or("", |(name, _)| name)
    }
}

impl Wire {
    pub(crate) async fn connect(url: &str) -> Self {
        Self(connect(url).await)
    }

    /// How many messages a stream has; 0 if there is none.
    pub(crate) async fn count(&self, stream: &str) -> u64 {
        match self.0.get_stream(stream).await {
            Ok(stream) => stream.cached_info().state.messages,
            Err(_) => 0,
        }
    }

    /// All messages of a stream.
    pub(crate) async fn events(&self, stream: &str) -> Vec<WireEvent> {
        let stream = self.0.get_stream(stream).await.unwrap();
        let count = usize::try_from(stream.cached_info().state.messages).unwrap();
        if count == 0 {
            return vec![];
        }
        let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
        let reader = stream.create_consumer(config).await.unwrap();
        let mut messages = reader.messages().await.unwrap().take(count);
        let mut events = Vec::with_capacity(count);
        while let Some(message) = tokio::time::timeout(SOON, messages.next()).await.unwrap() {
            let message = message.unwrap();
            let headers = message.headers.iter().flat_map(|headers| headers.iter());
            let headers = headers.map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
            events.push(WireEvent { subject: message.subject.to_string(), headers, payload: message.payload.to_vec() });
        }
        events
    }

    /// All events of the shop's three streams.
    pub(crate) async fn all_events(&self) -> Vec<WireEvent> {
        let mut all = vec![];
        for stream in ["ORDERS", "INVENTORY", "PAYMENTS"] {
            all.extend(self.events(stream).await);
        }
        all
    }

    /// The durables, by stream and name, with what each has pending and unacked.
    pub(crate) async fn durables(&self) -> HashMap<(String, String), (u64, usize)> {
        let mut durables = HashMap::new();
        for stream in ["ORDERS", "INVENTORY", "PAYMENTS"] {
            let of_stream = self.0.get_stream(stream).await.unwrap();
            let infos: Vec<consumer::Info> = of_stream.consumers().try_collect().await.unwrap();
            for info in infos.into_iter().filter(|info| info.config.durable_name.is_some()) {
                durables.insert((stream.to_owned(), info.name), (info.num_pending, info.num_ack_pending));
            }
        }
        durables
    }

    /// What a durable has pending.
    pub(crate) async fn pending(&self, stream: &str, durable: &str) -> u64 {
        self.durables().await[&(stream.to_owned(), durable.to_owned())].0
    }

    /// Waits until every durable has nothing pending and nothing unacked.
    pub(crate) async fn drained(&self) {
        let drained = async || self.durables().await.values().all(|left| *left == (0, 0));
        eventually("nothing pending and nothing unacked in any durable", SOON, drained).await;
    }
}
