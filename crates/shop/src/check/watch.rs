//! The continuous check, which publishes its results.
//!
//! A look reads everything: `sold = quantities of confirmed orders` is a statement about all of them, and one about the last
//! quarter of an hour would not see what got lost before. So the pause follows from what a look costs: twenty times as long as
//! it has taken, and five seconds at the least. A young shop is looked at every five seconds; with 100,000 orders, which take
//! some seconds to read, it is every minute or two, and the load stays below a twentieth of one client's. It keeps them in memory,
//! one kilobyte or two an order, while it looks: of more than [`MOST`] only a check by hand is made.

use std::time::Duration;

use analytics::Summary;
use anyhow::Result;
use millstream::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Options, Outcome, Row, run};
use crate::wire::{self, Api};

/// Where the outcomes are published: core NATS, for those who listen at that moment.
pub const SUBJECT: &str = "millstream.invariants";

/// The least pause between two checks.
const PAUSE: Duration = Duration::from_secs(5);
/// How many times as long as it takes to look is not looked.
const REST: u32 = 20;
/// The most orders of which all is read again and again.
const MOST: u64 = 200_000;
/// How long until a shop with more is asked again how many it has.
const LATER: Duration = Duration::from_secs(60);
/// How long until a broker that is away is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is published.
#[derive(Serialize)]
struct Published {
    source: &'static str,
    /// When the check began.
    at: Timestamp,
    invariants: Vec<Invariant>,
}

#[derive(Serialize)]
struct Invariant {
    name: &'static str,
    holds: bool,
    /// What was compared, or the first of what contradicts it.
    detail: String,
}

impl From<Row> for Invariant {
    fn from(row: Row) -> Self {
        let more = row.evidence.len().saturating_sub(1);
        let detail = match row.evidence.into_iter().next() {
            None => row.looked_at,
            Some(first) if more > 0 => format!("{first}, and {more} more"),
            Some(first) => first,
        };
        Self { name: row.invariant, holds: row.holds, detail }
    }
}

/// Checks and publishes until `shutdown`. What could not be seen whole is not published: who shows it sees the age of the last.
///
/// # Errors
/// Only for reasons of this process.
pub async fn watch(options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    let work = async {
        let client = loop {
            match wire::broker(&options.nats_url).await {
                Ok(client) => break client,
                Err(error) => tracing::debug!(error = format!("{error:#}"), "broker unavailable"),
            }
            sleep(AGAIN).await;
        };
        let analytics = Api::new(&wire::client()?, &options.service(options.analytics_url.as_ref(), 5));
        let mut told = false;
        loop {
            let summary = analytics.object::<Summary>("/analytics/summary").await;
            if let Some(summary) = summary.ok().filter(|summary| summary.accepted > MOST) {
                if !std::mem::replace(&mut told, true) {
                    let orders = summary.accepted;
                    tracing::warn!(orders, MOST, "too many orders for continuous checks: run `shop check` manually");
                }
                sleep(LATER).await;
                continue;
            }
            let (at, began) = (Timestamp::system(), Instant::now());
            let Outcome { rows, unseen, looks } = run(options.clone()).await?;
            let paused = options.pause * looks.saturating_sub(1);
            let cost = began.elapsed().saturating_sub(paused);
            if unseen.is_empty() {
                let invariants = rows.into_iter().map(Invariant::from).collect();
                let published = serde_json::to_vec(&Published { source: "shop check", at, invariants })?;
                if let Err(error) = client.publish(SUBJECT, published.into()).await {
                    tracing::debug!(%error, "cannot publish the result of a check");
                }
            } else {
                tracing::debug!(?unseen, "cannot check the invariants now");
            }
            sleep((cost * REST).max(PAUSE)).await;
        }
    };
    tokio::select! {
        () = shutdown => Ok(()),
        failed = work => failed,
    }
}
