//! `shop demo`: a shop in a fresh folder, given orders to deal with, and checked at the end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use millstream::config::Logs;
use millstream::terminal::{line, note};

use crate::data::DataFolder;
use crate::ports::Ports;
use crate::stock;
use crate::up::{READY, log_into, stop};
use crate::whole::{Plan, Shop, Urls};
use crate::{check, disk, load, wire};

/// Options of `shop demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Orders to submit, one JSON object per line.
    #[arg(long, value_name = "FILE.jsonl", default_value = "demo/orders.jsonl")]
    orders: PathBuf,
    /// Initial stock: CSV with columns `productId` and `initial` (or `UnitsInStock`).
    #[arg(long, value_name = "FILE.csv", default_value = "demo/stock.csv")]
    stock: PathBuf,
    #[command(flatten)]
    logs: Logs,
}

/// Runs the demonstration; whether every order has ended and every invariant holds.
///
/// # Errors
/// When something cannot be run at all.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> Result<bool> {
    let stock = stock::read(&args.stock)?;
    let folder = tempfile::Builder::new().prefix("shop-demo-").tempdir().context("cannot make a temporary folder")?;
    let data = DataFolder::open(folder.path())?;
    log_into(&data, &args.logs)?;
    disk::check(&data, "Choose a folder for temporary files on a larger disk with the variable TMPDIR.")?;
    note(&format!("The demo runs in {}, on free ports.", folder.path().display()));
    let plan = Plan { ports: Ports::FREE, ..Plan::default() };
    let mut shop = Shop::start(plan, data).await?;
    let urls = shop.urls.clone();
    let done = tokio::select! {
        done = play(&urls, &stock, args.orders) => Some(done),
        error = shop.ended() => Some(Err(error)),
        () = shutdown => None,
    };
    let stopped = stop(shop, None).await;
    let Some(done) = done else { anyhow::bail!("interrupted") };
    let good = done.and_then(|good| stopped.map(|()| good));
    if !matches!(good, Ok(true)) {
        note(&format!("Its data is kept in {}", folder.keep().display()));
    }
    good
}

async fn play(urls: &Urls, stock: &[(String, u64)], orders: PathBuf) -> Result<bool> {
    let client = wire::client()?;
    urls.ready(&client, READY).await?;
    for (product, initial) in stock {
        stock::put(&client, &urls.inventory, product, *initial).await?;
    }
    note(&format!("{} products are in stock.", stock.len()));
    let (url, inventory_url) = (urls.orders.clone(), urls.inventory.clone());
    let report =
        load::run(load::Options { url, inventory_url, file: Some(orders), ..load::Options::default() }).await?;
    line(&report.to_string()).context("cannot write the output")?;
    // Everything has ended, so nothing is too young to be judged; refunds of charges that stumble take a few seconds.
    let outcome = check::run(check::Options { older_than: Duration::ZERO, looks: 60, ..check::Options::of(urls) });
    let outcome = outcome.await?;
    line(&outcome.to_string()).context("cannot write the output")?;
    Ok(report.complete() && outcome.exit_code() == 0)
}
