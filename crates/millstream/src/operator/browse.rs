//! Browsing a stream of events, the newest first.

use std::ops::ControlFlow;
use std::str::FromStr;

use serde::Serialize;

use crate::ids::Timestamp;
use crate::operator::read::ReadFrom;
use crate::operator::tail::Shown;
use crate::operator::{Operator, OperatorError};

/// Sequences that are read at once, from the newest back.
const WINDOW: u64 = 500;
/// Sequences that are looked through for one page.
const LOOKED_THROUGH: u64 = 10_000;

/// Which messages of a stream are wanted.
#[derive(Clone, Debug, Default)]
pub struct Browse {
    /// Only of this subject; wildcards are those of NATS.
    pub subject: Option<String>,
    /// Only before this sequence.
    pub before: Option<u64>,
    /// Only what was stored before this time.
    pub until: Option<Timestamp>,
    /// Only with this header or field.
    pub having: Option<Having>,
    /// At most so many.
    pub limit: usize,
}

/// A header or a field of the body, and its value as a text: `ce-source=orders`, `/status=CONFIRMED`, `/lines/0/quantity=2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Having {
    /// The name of a header, whatever its case; with a slash at the beginning, a JSON pointer into the body.
    pub name: String,
    /// The value.
    pub value: String,
}

impl FromStr for Having {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok(Self { name: name.trim().into(), value: value.trim().into() })
            }
            _ => {
                Err("it has the form ce-source=orders for a header, or /status=CONFIRMED for a field of the body"
                    .into())
            }
        }
    }
}

impl Having {
    /// Whether an event has it. A personal field is not found by its value.
    fn is_in(&self, event: &mut Shown) -> bool {
        if !self.name.starts_with('/') {
            let is_it =
                |(name, value): &(String, String)| name.eq_ignore_ascii_case(&self.name) && *value == self.value;
            return event.headers.iter().any(is_it);
        }
        let found = event.payload.at(&self.name);
        found.is_some_and(|found| found.as_text().unwrap_or_else(|| found.to_string()) == self.value)
    }
}

/// A page of a stream.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The newest first, without personal values.
    pub messages: Vec<Shown>,
    /// Where the next page begins, if the stream has older messages: what is before this sequence.
    pub older: Option<u64>,
    /// The sequences of the stream's first and last message.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Operator {
    /// A page of a service's stream of events. At most 10,000 sequences are looked through for it, so with a filter it may be
    /// empty and still not be the last one.
    ///
    /// # Errors
    /// When no service publishes to such a stream, or the broker does not answer.
    pub async fn browse(&self, stream: &str, browse: &Browse) -> Result<Page, OperatorError> {
        let mut streams = self.streams().await?;
        // Of others, records and the audit among them, nobody has said what is personal.
        streams.retain(|stream| stream.partitions.is_some());
        let Some(of) = streams.iter().find(|of| of.name == stream) else {
            let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
            let names = names.join(", ");
            return Err(OperatorError::NotFound(format!(
                "there is no stream of events `{stream}`; there are: {names}"
            )));
        };
        let subject = browse.subject.as_deref().unwrap_or(">");
        if subject.is_empty() || subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(OperatorError::Refused(format!(
                "`{}` is no subject; `orders.created.*` would be one",
                subject.escape_debug()
            )));
        }
        let (first, last) = (of.first_sequence, of.last_sequence);
        let mut end = browse.before.unwrap_or(u64::MAX).min(last + 1);
        if let Some(until) = browse.until {
            let after = self.first(stream, ">", ReadFrom::Time(until)).await?;
            end = end.min(after.map_or(last + 1, |after| after.sequence));
        }
        let lowest = end.saturating_sub(LOOKED_THROUGH).max(first);
        let mut messages = vec![];
        while end > lowest && messages.len() < browse.limit {
            let begin = end.saturating_sub(WINDOW).max(lowest);
            let mut window = vec![];
            self.read(stream, subject, ReadFrom::Sequence(begin), |stored| {
                if stored.sequence >= end {
                    return ControlFlow::Break(());
                }
                let mut event = Shown::of(&stored);
                event.mask();
                if browse.having.as_ref().is_none_or(|having| having.is_in(&mut event)) {
                    window.push(event);
                }
                ControlFlow::Continue(())
            })
            .await?;
            messages.extend(window.into_iter().rev());
            end = begin;
        }
        if messages.len() > browse.limit {
            messages.truncate(browse.limit);
            end = messages.last().map_or(end, |event: &Shown| event.sequence);
        }
        Ok(Page { messages, older: (end > first).then_some(end), first, last })
    }
}
