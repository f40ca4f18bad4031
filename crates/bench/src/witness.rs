//! Sees confirmations as another service would, once they are stored, and matches each with its submission.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use async_nats::jetstream::consumer::push;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::oneshot;

/// Follows the confirmations of one system.
#[derive(Clone)]
pub(crate) struct Witness(Arc<Mutex<Account>>);

impl Witness {
    /// Reads the stream of orders beside the services. A plain subscription would see confirmations before the broker has them.
    pub(crate) async fn start(nats: &async_nats::Client) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Confirmed {
            order_id: String,
        }
        let config = push::OrderedConfig {
            deliver_subject: nats.new_inbox(),
            filter_subject: "orders.confirmed.*".into(),
            ..push::OrderedConfig::default()
        };
        let stream = jetstream::new(nats.clone()).get_stream("ORDERS").await?;
        let mut messages = stream.create_consumer(config).await?.messages().await?;
        let witness = Self(Arc::default());
        let sees = witness.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                let at = Instant::now();
                let id = serde_json::from_slice(&message.payload).map(|event: Confirmed| event.order_id);
                sees.account().confirmed(id.unwrap_or_default(), at);
            }
        });
        Ok(witness)
    }

    /// Tells when an order is confirmed, even if it was before this is asked.
    pub(crate) fn expect(&self, id: String) -> oneshot::Receiver<Instant> {
        self.account().expect(id)
    }

    /// How many orders there were, each of which was confirmed exactly once.
    pub(crate) fn settled(&self) -> Result<u64> {
        self.account().settled()
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Order {
    Submitted(oneshot::Sender<Instant>),
    /// The confirmation may overtake the answer to the submission.
    ConfirmedEarly(Instant),
    Confirmed,
}

#[derive(Debug, Default)]
struct Account {
    orders: HashMap<String, Order>,
    repeated: u64,
}

impl Account {
    fn expect(&mut self, id: String) -> oneshot::Receiver<Instant> {
        let (tell, told) = oneshot::channel();
        let order = match self.orders.remove(&id) {
            Some(Order::ConfirmedEarly(at)) => {
                // Whoever no longer waits need not be told.
                tell.send(at).ok();
                Order::Confirmed
            }
            _ => Order::Submitted(tell),
        };
        self.orders.insert(id, order);
        told
    }

    fn confirmed(&mut self, id: String, at: Instant) {
        match self.orders.remove(&id) {
            None => {
                self.orders.insert(id, Order::ConfirmedEarly(at));
            }
            Some(before) => {
                if let Order::Submitted(tell) = before {
                    tell.send(at).ok();
                } else {
                    self.repeated += 1;
                }
                self.orders.insert(id, Order::Confirmed);
            }
        }
    }

    fn settled(&self) -> Result<u64> {
        ensure!(self.repeated == 0, "{} confirmations came twice", self.repeated);
        let open = self.orders.values().filter(|order| !matches!(order, Order::Confirmed)).count();
        ensure!(open == 0, "{open} orders are not confirmed, or are not the generator's");
        u64::try_from(self.orders.len()).context("fewer orders than that")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_told_its_confirmation_whichever_comes_first() {
        let (mut account, now) = (Account::default(), Instant::now());
        let mut later = account.expect("a".into());
        assert!(later.try_recv().is_err() && account.settled().is_err());
        account.confirmed("a".into(), now);
        account.confirmed("b".into(), now);
        let mut early = account.expect("b".into());
        assert_eq!((later.try_recv(), early.try_recv()), (Ok(now), Ok(now)));
        assert_eq!(account.settled().unwrap(), 2);
    }

    #[test]
    fn a_confirmation_that_comes_twice_or_of_nothing_is_a_failure() {
        let now = Instant::now();
        let mut stray = Account::default();
        stray.confirmed("a".into(), now);
        assert!(stray.settled().unwrap_err().to_string().contains("1 orders are not confirmed"));
        let mut twice = Account::default();
        let _told = twice.expect("a".into());
        twice.confirmed("a".into(), now);
        twice.confirmed("a".into(), now);
        assert_eq!(twice.settled().unwrap_err().to_string(), "1 confirmations came twice");
    }
}
