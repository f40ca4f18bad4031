//! `--growth N`: what stored orders and a backlog cost. Orders are submitted to five processes in bursts while analytics is stopped, and
//! then analytics reads all of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures_util::TryStreamExt;

use crate::figures::System;
use crate::floor;
use crate::load::Generator;
use crate::machine::resident_mib;
use crate::shop::client;
use crate::stack::Stack;
use crate::witness::Witness;

/// In how many bursts the orders come.
const STEPS: u64 = 5;

/// How long nothing may move while a backlog is read.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The streams that analytics reads all of.
const READ: [&str; 3] = ["ORDERS", "INVENTORY", "PAYMENTS"];

pub(crate) async fn growth(orders: u64, shop: &Path, data: &Path) -> Result<String> {
    ensure!(orders >= STEPS, "--growth: at least {STEPS} orders");
    let folder = tempfile::tempdir_in(data)?;
    let http = client()?;
    let mut stack = Stack::start(System::Five, folder.path(), shop, &http).await?;
    let nats = async_nats::connect(&stack.nats).await?;
    let witness = Witness::start(&nats).await?;
    let generator = Generator::new(http, &stack.orders, witness.clone());
    generator.in_flight(Duration::from_secs(2)).await.context("warm-up")?;
    let analytics = stack.halt("analytics").await?;

    let mut text = String::from(
        "| orders stored before |  burst, orders/s | of the first | services, MiB | databases, MiB |\n\
         | -------------------: | ---------------: | -----------: | ------------: | -------------: |\n",
    );
    let mut first = None;
    for step in 0..STEPS {
        let before = witness.settled()?;
        eprintln!("burst {} of {STEPS}: {before} orders stored", step + 1);
        let rate = generator.burst(orders / STEPS).await.context("burst")?.rate();
        let first = *first.get_or_insert(rate);
        let memory: Result<Vec<f64>> =
            stack.watched.iter().filter(|(part, _)| *part == "services").map(|(_, pid)| resident_mib(*pid)).collect();
        text += &format!(
            "| {before:20} | {rate:16.0} | {:12.2} | {:13.0} | {:14.0} |\n",
            rate / first,
            memory?.iter().sum::<f64>(),
            databases_mib(stack.folder())?,
        );
    }

    let broker = jetstream::new(nats);
    let backlog = pending(&broker).await?;
    eprintln!("analytics reads {backlog} events");
    let began = Instant::now();
    stack.resume(analytics)?;
    let (mut left, mut moved) = (backlog, began);
    while left > 0 {
        tokio::time::sleep(POLL).await;
        let now = pending(&broker).await?;
        if now < left {
            (left, moved) = (now, Instant::now());
        }
        ensure!(moved.elapsed() < PATIENCE, "analytics has {left} events to read, and reads none of them");
    }
    let rate = backlog as f64 / began.elapsed().as_secs_f64();
    witness.settled()?;
    stack.stop().await?;
    let floor = floor::consume_and_ack(folder.path(), Duration::from_secs(2)).await?;
    text += &format!(
        "\nAnalytics read a backlog of {backlog} events at {rate:.0} a second, its start included: {:.2} of the {floor:.0} a second that are \
         consumed and acknowledged with nothing done.\n",
        rate / floor
    );
    Ok(text)
}

/// How many messages analytics has not been done with.
async fn pending(broker: &jetstream::Context) -> Result<u64> {
    let mut pending = 0;
    for name in READ {
        let stream = broker.get_stream(name).await?;
        let consumers: Vec<_> = stream.consumers().try_collect().await?;
        for consumer in consumers.iter().filter(|consumer| consumer.name.contains("analytics")) {
            pending += consumer.num_pending + consumer.num_ack_pending as u64;
        }
    }
    Ok(pending)
}

fn databases_mib(folder: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(".db") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}
