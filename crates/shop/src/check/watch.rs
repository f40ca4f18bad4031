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
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use millstream::Timestamp;
pub use millstream::operator::invariants::SUBJECT;
use millstream::operator::invariants::{Invariant, LAST, Told};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Options, Outcome, Row, run};
use crate::wire::{self, Api};

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

impl From<Row> for Invariant {
    fn from(row: Row) -> Self {
        let more = row.evidence.len().saturating_sub(1);
        let detail = match row.evidence.into_iter().next() {
            None => row.looked_at,
            Some(first) if more > 0 => format!("{first}, and {more} more"),
            Some(first) => first,
        };
        Self { name: row.invariant.into(), holds: row.holds, detail }
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
        let (last, shown) = watch::channel(None);
        let answering = answer(&client, client.subscribe(LAST).await?, shown);
        let checking = check(&options, &client, last);
        tokio::select! {
            // It ends with the connection, as the checks do.
            () = answering => Ok(()),
            failed = checking => failed,
        }
    };
    tokio::select! {
        () = shutdown => Ok(()),
        failed = work => failed,
    }
}

/// Checks again and again.
async fn check(options: &Options, client: &Client, last: watch::Sender<Option<Vec<u8>>>) -> Result<()> {
    let analytics = Api::new(&wire::client()?, &options.service(options.analytics_url.as_ref(), 5));
    let mut told = false;
    loop {
        let summary = analytics.object::<Summary>("/analytics/summary").await;
        if let Some(summary) = summary.ok().filter(|summary| summary.accepted > MOST) {
            if !std::mem::replace(&mut told, true) {
                let orders = summary.accepted;
                tracing::warn!(orders, MOST, "too many orders for continuous checks: run `shop check` manually");
            }
            last.send_replace(None);
            sleep(LATER).await;
            continue;
        }
        let (at, began) = (Timestamp::system(), Instant::now());
        let Outcome { rows, unseen, looks } = run(options.clone()).await?;
        let paused = options.pause * looks.saturating_sub(1);
        let cost = began.elapsed().saturating_sub(paused);
        let pause = (cost * REST).max(PAUSE);
        if unseen.is_empty() {
            let invariants = rows.into_iter().map(Invariant::from).collect();
            // The next look may take longer than this one, and look more often.
            let next_within = (pause + began.elapsed() * 2 + options.pause * options.looks).as_secs();
            let told = Told { source: "shop check".into(), at, next_within, invariants };
            let published = serde_json::to_vec(&told)?;
            if let Err(error) = client.publish(SUBJECT, published.clone().into()).await {
                tracing::debug!(%error, "cannot publish the result of a check");
            }
            last.send_replace(Some(published));
        } else {
            tracing::debug!(?unseen, "cannot check the invariants now");
        }
        sleep(pause).await;
    }
}

/// Answers who asks for the last outcome.
async fn answer(client: &Client, mut asked: Subscriber, last: watch::Receiver<Option<Vec<u8>>>) {
    while let Some(asked) = asked.next().await {
        let last = last.borrow().clone();
        if let (Some(inbox), Some(last)) = (asked.reply, last)
            && let Err(error) = client.publish(inbox, last.into()).await
        {
            tracing::debug!(%error, "cannot answer who asks for the last outcome");
        }
    }
}
