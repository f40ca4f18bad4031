//! `shop load`: submits orders over HTTP, follows each until it is finished, and reports outcomes and latencies.
//!
//! Every order carries an `Idempotency-Key` of its own, so it may be sent again when an answer is lost or the service says
//! "later", and is still one order.

mod follow;
mod progress;
mod report;
mod source;
mod submit;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::{StreamExt, stream};
use secrecy::SecretString;
use tokio::task::JoinHandle;

use self::follow::{Fates, follow};
use self::progress::Progress;
use self::report::Times;
pub use self::report::{Cancels, Quantiles, Report};
use self::source::Submission;
use self::submit::{Cancelled, Submitted, submit};
use crate::ledger::{self, Ledger};
use crate::wire::{self, Api};

/// `shop load`: submits orders and follows each until it is finished.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// URL of the orders service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub url: String,
    /// Key for the HTTP API of orders, if it asks for one. Prefer the variable: command lines can be read by others.
    #[arg(long, env = "ORDERS_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub orders_api_key: Option<SecretString>,
    /// URL of the inventory service, whose products are ordered unless --file or --catalogue is given.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8082")]
    pub inventory_url: String,
    /// Number of orders to generate.
    #[arg(long, value_name = "COUNT", default_value_t = 100, conflicts_with = "file")]
    pub orders: usize,
    /// Submit these orders: one POST body per line, optionally with "cancel": true or "cancelAfterMs", which tell the client to
    /// cancel the order once it is accepted.
    #[arg(long, value_name = "FILE.jsonl")]
    pub file: Option<PathBuf>,
    /// Generate orders for the products in this file, which has a column productId.
    #[arg(long, value_name = "FILE.csv", conflicts_with = "file")]
    pub catalogue: Option<PathBuf>,
    /// Number of concurrent submissions.
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub concurrency: usize,
    /// Maximum number of orders per second.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Share of generated orders that the payment gateway declines, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub decline: f64,
    /// Share of generated orders that are cancelled immediately, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub cancel: f64,
    /// Seed of the generated orders.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long to retry the submission of an order before giving up.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    pub give_up_after: Duration,
    /// How long to wait after the last submission until every order is finished.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// Append the result of each order to this file, one line of JSON each, for `shop check --ledger`.
    #[arg(long, value_name = "FILE.jsonl")]
    pub ledger: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081".into(),
            orders_api_key: None,
            inventory_url: "http://127.0.0.1:8082".into(),
            orders: 100,
            file: None,
            catalogue: None,
            concurrency: 64,
            rate: None,
            decline: 0.02,
            cancel: 0.0,
            seed: 1,
            give_up_after: Duration::from_secs(60),
            wait: Duration::from_secs(300),
            ledger: None,
            json: false,
        }
    }
}

/// Submits, follows, reports. A load that did not end well is a [`Report`] that is not [`Report::complete`].
///
/// # Errors
/// When there is nothing to submit: a bad option, a file or catalogue that cannot be read.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    ensure!(options.concurrency > 0, "--concurrency must be at least 1");
    ensure!(options.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate must be above 0");
    for (name, share) in [("--decline", options.decline), ("--cancel", options.cancel)] {
        ensure!((0.0..=1.0).contains(&share), "{name} must be from 0 to 1, not {share}");
    }
    let http = wire::orders_client(options.orders_api_key.as_ref())?;
    let ledger = options.ledger.as_deref().map(Ledger::open).transpose()?;
    let orders = source::orders(&options, &wire::client()?).await?;
    ensure!(!orders.is_empty(), "no orders to submit");
    let api = Api::new(&http, &options.url);

    let progress = Progress::new("accepted", orders.len());
    let (mut report, ids, cancels) = submit_all(&api, orders, &options, ledger, &progress).await?;
    progress.done();
    for cancel in cancels {
        match cancel.await? {
            Cancelled::Taken => report.cancels.taken += 1,
            Cancelled::TooLate => report.cancels.too_late += 1,
            Cancelled::Unanswered => report.cancels.unanswered += 1,
        }
    }
    let progress = Progress::new("ended", ids.len());
    let fates = follow(&api, &ids, options.wait, &progress).await;
    progress.done();
    add_fates(&mut report, fates)?;
    Ok(report)
}

type Begun = (Report, HashSet<String>, Vec<JoinHandle<Cancelled>>);

async fn submit_all(
    api: &Api,
    orders: Vec<Submission>,
    options: &Options,
    mut ledger: Option<Ledger>,
    progress: &Progress,
) -> anyhow::Result<Begun> {
    let total = orders.len();
    let mut report = Report { orders: total, ..Report::default() };
    let (mut ids, mut cancels, mut times) = (HashSet::new(), vec![], Times::new()?);
    let run = uuid::Uuid::now_v7();
    let started = Instant::now();
    let paced = stream::iter(orders.into_iter().enumerate()).then(async |(number, order)| {
        if let Some(rate) = options.rate {
            tokio::time::sleep_until((started + Duration::from_secs_f64(number as f64 / rate)).into()).await;
        }
        (number, order)
    });
    let submissions = paced.map(|(number, order)| async move {
        let (key, total) = (format!("load-{run}-{number}"), ledger::total_of(&order.body));
        let (submitted, retries) = submit(api, &key, order, options.give_up_after).await;
        (ledger::Line { key, total, ..submitted.line() }, submitted, retries)
    });
    let mut submissions = std::pin::pin!(submissions.buffer_unordered(options.concurrency));
    let mut answered = 0;
    while let Some((line, submitted, retries)) = submissions.next().await {
        answered += 1;
        if let Some(ledger) = &mut ledger {
            ledger.add(&line)?;
        }
        report.retries += u64::from(retries);
        match submitted {
            Submitted::Accepted { id, took, cancel, .. } => {
                times.add(took);
                ids.insert(id);
                cancels.extend(cancel);
            }
            Submitted::Refused { reason, .. } => *report.refused.entry(reason).or_default() += 1,
            Submitted::Unanswered(trouble) => {
                if report.unanswered.is_empty() {
                    progress.say(&format!("gave up on an order: {trouble}"));
                }
                *report.unanswered.entry(trouble).or_default() += 1;
            }
        }
        progress.at(answered, total);
    }
    report.accepted = ids.len();
    report.accepted_per_second = ids.len() as f64 / started.elapsed().as_secs_f64();
    report.submit_ms = times.quantiles();
    Ok((report, ids, cancels))
}

fn add_fates(report: &mut Report, fates: Fates) -> anyhow::Result<()> {
    let mut times = Times::new()?;
    let (mut first, mut last) = (None, None);
    for order in &fates.ended {
        let Some(ended_at) = order.ended_at else { continue };
        times.add(ended_at.since(order.created_at));
        first = Some(first.map_or(order.created_at, |first: millstream::Timestamp| first.min(order.created_at)));
        last = last.max(Some(ended_at));
        if order.status == "CONFIRMED" {
            report.confirmed += 1;
        } else {
            let reason = order.reason.clone().unwrap_or_else(|| "no reason given".into());
            *report.cancelled.entry(reason).or_default() += 1;
        }
    }
    if let (Some(first), Some(last)) = (first, last) {
        report.ended_per_second = fates.ended.len() as f64 / last.since(first).as_secs_f64().max(0.001);
    }
    report.end_to_end_ms = times.quantiles();
    (report.open, report.lost, report.trouble) = (fates.open, fates.lost, fates.trouble);
    Ok(())
}
