//! `millstream status`: streams, consumers and instances on one screen, and their problems.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::status::{InstanceStatus, StreamStatus, SystemStatus};
use millstream::terminal::visible;
use serde::Serialize;

use crate::output;
use crate::times::{from_now, rough};

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a SystemStatus,
    troubles: &'a [String],
}

pub(crate) async fn run(operator: &Operator, json: bool) -> Result<ExitCode> {
    let status = operator.status().await?;
    let troubles = status.troubles();
    if json {
        output::json(&Whole { status: &status, troubles: &troubles })?;
    } else {
        output::line(&screen(&status, &troubles))?;
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn screen(status: &SystemStatus, troubles: &[String]) -> String {
    let mut streams = output::table(["STREAM", "MESSAGES", "SIZE", "FULL", "FIRST", "LAST", "RELEASE"]);
    for stream in &status.streams {
        streams.add_row([
            stream.name.clone(),
            stream.messages.to_string(),
            size(stream.bytes),
            full(stream),
            stream.first_sequence.to_string(),
            stream.last_sequence.to_string(),
            stream.release.clone().unwrap_or_default(),
        ]);
    }
    let mut consumers =
        output::table(["CONSUMER", "STREAM", "LAG", "OLDEST", "UNACKED", "REDELIVERED", "PULLS", "RELEASE"]);
    for consumer in &status.consumers {
        let oldest = Duration::from_secs_f64(consumer.oldest_age_seconds);
        consumers.add_row([
            consumer.name.clone(),
            consumer.stream.clone(),
            consumer.pending.to_string(),
            if oldest.is_zero() { "-".into() } else { rough(oldest) },
            consumer.ack_pending.to_string(),
            consumer.redelivered.to_string(),
            consumer.waiting.to_string(),
            consumer.release.clone().unwrap_or_default(),
        ]);
    }
    let now = Timestamp::system();
    let mut instances = output::table([
        "SERVICE", "INSTANCE", "VERSION", "STARTED", "HEALTH", "ROOM", "HANDLED", "COMMANDS", "FAILED", "DEAD",
    ]);
    for instance in &status.instances {
        let InstanceStatus { service, instance: id, version, started, health, totals, .. } = instance;
        let figure = |value: &serde_json::Value| value.as_u64().map_or_else(|| "-".into(), |value| value.to_string());
        instances.add_row([
            service.clone(),
            id.clone(),
            version.clone(),
            started.map_or_else(|| "-".into(), |started| from_now(started, now)),
            health["status"].as_str().unwrap_or("-").to_owned(),
            figure(&health["commandsAccepted"]),
            figure(&totals["handled"]),
            figure(&totals["commands"]),
            figure(&totals["errors"]),
            figure(&totals["deadLettered"]),
        ]);
    }
    let mut parts = vec![];
    for (table, rows) in
        [(streams, status.streams.len()), (consumers, status.consumers.len()), (instances, status.instances.len())]
    {
        parts.extend((rows > 0).then(|| table.to_string()));
    }
    if troubles.is_empty() {
        parts.push("no problems".into());
    } else {
        parts.push(troubles.iter().map(|trouble| format!("! {}", visible(trouble))).collect::<Vec<_>>().join("\n"));
    }
    parts.join("\n\n")
}

/// How full a stream is, as a share of its limit.
fn full(stream: &StreamStatus) -> String {
    stream.max_bytes.map_or_else(|| "-".into(), |max| format!("{:.0} %", 100.0 * stream.bytes as f64 / max as f64))
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes < 1024.0 => format!("{bytes} B"),
        bytes if bytes < 1_048_576.0 => format!("{:.1} KiB", bytes / 1024.0),
        bytes if bytes < 1_073_741_824.0 => format!("{:.1} MiB", bytes / 1_048_576.0),
        bytes => format!("{:.2} GiB", bytes / 1_073_741_824.0),
    }
}
