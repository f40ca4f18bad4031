//! `millstream tail`: events as they arrive, one line each.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use millstream::Timestamp;
use millstream::operator::tail::{Shown, Tail as Follower, TailFilter};
use millstream::operator::{Operator, OperatorError};
use millstream::signals::asked_to_stop;
use millstream::terminal::visible;

use crate::output;
use crate::reveal::Reveal;
use crate::times::Since;

/// Selects events.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// Only this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only this event type, `orders.created`
    #[arg(long)]
    event: Option<String>,
    /// Only this key, an order's id
    #[arg(long)]
    key: Option<String>,
    /// Only this correlation id
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Start this far in the past, `10m`, or at this time
    #[arg(long, value_name = "TIME", value_parser = Since::read)]
    since: Option<Since>,
    /// Print the events that exist, and exit
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    reveal: Reveal,
}

/// Polling interval.
const PAUSE: Duration = Duration::from_millis(250);
/// Maximum number of events printed per poll; if more are waiting, the oldest are skipped.
const AT_ONCE: usize = 10_000;

pub(crate) async fn run(operator: &Operator, json: bool, tail: Tail) -> Result<ExitCode> {
    let Tail { stream, event, key, correlation, since, no_follow, reveal } = tail;
    let what = key.clone().or_else(|| correlation.clone()).unwrap_or_else(|| "events".into());
    reveal.audit(operator, "tail", "all", &what).await?;
    let now = Timestamp::system();
    let since = since.map_or(now, |since| since.from(now));
    let filter = TailFilter { stream, event, key, correlation };
    let mut follower = Follower::start(operator.clone(), since, filter).await?;
    let mut stop = std::pin::pin!(asked_to_stop());
    let mut away = false;
    loop {
        match follower.next(AT_ONCE).await {
            Ok((found, skipped)) => {
                if std::mem::take(&mut away) {
                    output::note("reconnected to the broker");
                }
                if skipped > 0 {
                    output::note(&format!("skipped {skipped} events: they arrive faster than they can be printed"));
                }
                for stored in found {
                    let mut shown = Shown::of(&stored);
                    if !reveal.reveal {
                        shown.mask();
                    }
                    if json {
                        output::raw(&serde_json::to_string(&shown)?)?;
                    } else {
                        output::line(&line(&shown))?;
                    }
                }
            }
            Err(OperatorError::Away(why)) if !no_follow => {
                if !std::mem::replace(&mut away, true) {
                    output::note(&format!("waiting for the broker: {why}"));
                }
            }
            Err(error) => return Err(error.into()),
        }
        if no_follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// An event as a line.
fn line(shown: &Shown) -> String {
    // Without what would steer the terminal, so that the columns stay where they are.
    let or = |text: &Option<String>| text.as_deref().map_or("-".into(), |text| visible(text).into_owned());
    let kind = or(&shown.kind);
    let Shown { stream, sequence, at, payload, .. } = shown;
    // A time ends where its zeros do.
    let at = at.to_string();
    format!("{at:<24}  {kind:<28} {:<36}  {:<14} {stream} {sequence}  {payload}", or(&shown.key), or(&shown.source))
}
