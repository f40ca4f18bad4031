//! Submits orders over HTTP in three ways, and times each until its confirmation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::statistics::percentile;
use crate::witness::Witness;

/// How many orders are submitted, or are in flight, at once.
pub(crate) const SUBMITTERS: usize = 64;

/// How long an order may take to be confirmed before the system counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two products of the shop's own catalogue.
pub(crate) const PRODUCTS: [&str; 2] = ["mug", "honey"];

/// An order that is in stock, and that the gateway simulator captures at once.
const ORDER: &str = r#"{"userId":"user-123","items":[{"productId":"mug","quantity":2,"price":12.00},{"productId":"honey","quantity":1,"price":7.40}],"totalAmount":31.40}"#;

/// Submits to one system.
#[derive(Clone)]
pub(crate) struct Generator {
    http: Client,
    url: String,
    witness: Witness,
}

/// Orders that have all been confirmed.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) orders: u64,
    /// From the first submission to the last confirmation.
    pub(crate) seconds: f64,
    /// Milliseconds from each submission, or from when it was meant to be, to its confirmation; sorted.
    latencies: Vec<f64>,
}

impl Phase {
    /// Of the beginning and the end of each order.
    pub(crate) fn of(orders: &[(Instant, Instant)]) -> Result<Self> {
        let first = orders.iter().map(|(begun, _)| *begun).min().context("no order was submitted")?;
        let last = orders.iter().map(|(_, ended)| *ended).max().context("no order was confirmed")?;
        let mut latencies: Vec<f64> =
            orders.iter().map(|(begun, ended)| (*ended - *begun).as_secs_f64() * 1000.0).collect();
        latencies.sort_by(f64::total_cmp);
        Ok(Self { orders: orders.len() as u64, seconds: (last - first).as_secs_f64(), latencies })
    }

    /// Orders per second.
    pub(crate) fn rate(&self) -> f64 {
        self.orders as f64 / self.seconds
    }

    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        percentile(&self.latencies, share)
    }
}

impl Generator {
    pub(crate) fn new(http: Client, orders: &str, witness: Witness) -> Self {
        Self { http, url: format!("{orders}/orders"), witness }
    }

    /// Each submitter submits its next order when the one before is confirmed.
    pub(crate) async fn in_flight(&self, length: Duration) -> Result<Phase> {
        let until = Instant::now() + length;
        let mut submitters = JoinSet::new();
        for _ in 0..SUBMITTERS {
            let this = self.clone();
            submitters.spawn(async move {
                let mut orders = vec![];
                while Instant::now() < until {
                    let begun = Instant::now();
                    orders.push((begun, confirmation(this.submit().await?).await?));
                }
                anyhow::Ok(orders)
            });
        }
        Phase::of(&all(submitters).await?.concat())
    }

    /// Each submitter submits its next order when the one before is accepted.
    pub(crate) async fn burst(&self, orders: u64) -> Result<Phase> {
        let next = Arc::new(AtomicU64::new(0));
        let mut submitters = JoinSet::new();
        for _ in 0..SUBMITTERS {
            let (this, next) = (self.clone(), next.clone());
            submitters.spawn(async move {
                let mut accepted = vec![];
                while next.fetch_add(1, Ordering::Relaxed) < orders {
                    accepted.push((Instant::now(), this.submit().await?));
                }
                let mut confirmed = vec![];
                for (begun, told) in accepted {
                    confirmed.push((begun, confirmation(told).await?));
                }
                anyhow::Ok(confirmed)
            });
        }
        Phase::of(&all(submitters).await?.concat())
    }

    /// Orders are submitted at a rate, whatever becomes of the ones before. An order's time begins when it was meant to be submitted,
    /// so a generator or a system that falls behind shows.
    pub(crate) async fn open_loop(&self, rate: f64, length: Duration) -> Result<Phase> {
        let began = Instant::now();
        let orders = (rate * length.as_secs_f64()).ceil() as u64;
        let mut submissions = JoinSet::new();
        for number in 0..orders {
            let meant = began + Duration::from_secs_f64(number as f64 / rate);
            tokio::time::sleep_until(meant.into()).await;
            let this = self.clone();
            submissions.spawn(async move { anyhow::Ok((meant, confirmation(this.submit().await?).await?)) });
        }
        Phase::of(&all(submissions).await?)
    }

    async fn submit(&self) -> Result<oneshot::Receiver<Instant>> {
        #[derive(Deserialize)]
        struct Accepted {
            id: String,
        }
        let request = self.http.post(&self.url).header("Content-Type", "application/json").body(ORDER);
        let answer = request.send().await.context("an order was not answered")?;
        let (status, body) = (answer.status(), answer.bytes().await.context("an answer ended early")?);
        ensure!(status == StatusCode::CREATED, "an order was answered {status}: {}", String::from_utf8_lossy(&body));
        let accepted: Accepted = serde_json::from_slice(&body).context("an accepted order has no id")?;
        Ok(self.witness.expect(accepted.id))
    }
}

async fn confirmation(told: oneshot::Receiver<Instant>) -> Result<Instant> {
    let told = timeout(PATIENCE, told).await.with_context(|| format!("an order was not confirmed within {PATIENCE:?}"));
    told?.context("nobody watches for confirmations")
}

async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = vec![];
    while let Some(ended) = tasks.join_next().await {
        results.push(ended??);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_lasts_from_the_first_submission_to_the_last_confirmation() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let phase = Phase::of(&[(at(500), at(700)), (at(0), at(100)), (at(400), at(2000))]).unwrap();
        assert_eq!((phase.orders, phase.seconds, phase.rate()), (3, 2.0, 1.5));
        assert_eq!([0.5, 0.99].map(|share| phase.latency_ms(share)), [200.0, 1600.0]);
        assert!(Phase::of(&[]).is_err());
    }
}
