//! `millstream status`: streams, consumers and instances on one screen, and whether all is well.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use millstream::Timestamp;
use millstream::operator::dead::Letters;
use millstream::operator::status::{InstanceStatus, StreamStatus, SystemStatus};
use millstream::operator::verdict::{State, Verdict};
use millstream::terminal::visible;
use serde::Serialize;

use crate::connection::Connection;
use crate::output;
use crate::times::{from_now, rough};

/// What the exit code says.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 all is well; 1 something is wrong: the last lines say what, what drags others with it first;
2 invalid command line; 3 the broker does not answer, or nothing that was seen is wrong but not everything could be seen.";

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a SystemStatus,
    verdict: &'a Verdict,
}

pub(crate) async fn run(connection: &Connection, json: bool) -> Result<ExitCode> {
    // That the command line is wrong says nothing about the system.
    connection.options().await?;
    let looked = match connection.open().await {
        Ok(operator) => operator.examine(&mut Letters::default()).await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    let (status, verdict) = match looked {
        Ok(seen) => {
            let verdict = seen.verdict(Timestamp::system());
            (Some(seen.status), verdict)
        }
        Err(why) => (None, Verdict::blind(&why)),
    };
    let status = status.as_ref();
    if json {
        output::json(&Whole { status: status.unwrap_or(&SystemStatus::default()), verdict: &verdict })?;
    } else {
        output::line(&screen(status.unwrap_or(&SystemStatus::default()), &verdict))?;
    }
    Ok(match verdict.state {
        State::Well => ExitCode::SUCCESS,
        State::Wrong if status.is_some() => ExitCode::from(1),
        State::Wrong | State::Unknown => ExitCode::from(3),
    })
}

fn screen(status: &SystemStatus, verdict: &Verdict) -> String {
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
    let others = verdict.causes.iter().skip(1).map(|cause| cause.sentence.as_str());
    let sign = if verdict.state == State::Well { "" } else { "! " };
    let said = std::iter::once(verdict.sentence.as_str()).chain(others).map(|said| format!("{sign}{}", visible(said)));
    parts.push(said.collect::<Vec<_>>().join("\n"));
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
