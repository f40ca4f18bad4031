//! Redriving and discarding: audit, claim, send, a window of dead letters at a time.
//!
//! The claim is the record replaced by itself, which the broker refuses if the record is no longer what was read: of two runs one
//! gets through. Interrupted after it, the record says `redriving`, and the next run sends it again under the same number.

use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::LastRawMessageErrorKind as RawMessageErrorKind;
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use fail::fail_point;
use serde_json::json;
use tokio::time::Instant;

use crate::dead_letter::{NUMBER, RECORD, REDRIVES as COUNT, STATE, clip};
use crate::declare::{declare_ownerless, redrives};
use crate::event::{encode_header, header};
use crate::ids::Timestamp;
use crate::operator::audit::AuditEntry;
use crate::operator::dead::{
    DeadFilter, DeadLetter, Fate, KEPT, LetterState, Letters, Outcome, Progress, REDRIVES, Redrive, Report,
};
use crate::operator::{By, Operator, OperatorError, PATIENCE, WINDOW};

/// How long what is on its way back is left to its service before it may be discarded.
const ON_ITS_WAY: Duration = Duration::from_secs(600);

/// How many a canary sends at once, until it goes on as usual.
const CANARY: [usize; 5] = [1, 2, 5, 20, 100];
/// How long a canary waits for what became of those that it has sent, and how often it looks.
const OUTCOME: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How many of a dry run the services try.
pub const MOST_TRIED: usize = 1000;

/// A message to be stored: subject, headers, body.
pub(crate) type Outgoing = (String, HeaderMap, Bytes);

/// Why a message was not stored, or may not have been.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The broker refuses it, or does not answer.
    Refused(PublishError),
    /// The broker says that it has a message of this id at this sequence of this stream already.
    Known(String, u64),
}

impl NotStored {
    /// Whether the subject's last message is another than was expected.
    pub(crate) fn is_taken(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        let told = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
        // Two that are under way at once are told apart by another code.
        let at_once = told.is_some_and(|told| told.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT);
        at_once || error.kind() == PublishErrorKind::WrongLastSequence
    }

    fn is_silence(&self) -> bool {
        let silence = [PublishErrorKind::TimedOut, PublishErrorKind::BrokenPipe];
        matches!(self, Self::Refused(error) if silence.contains(&error.kind()))
    }

    pub(crate) fn why(&self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Known(stream, sequence) => {
                format!("the broker took it for a repeat of message {sequence} of {stream}; run again in a minute")
            }
        }
    }
}

impl Operator {
    /// Hands the dead letters that fit back to the services that gave them up, and to nobody else. Claims each before it is sent, so
    /// that of two runs at once each is sent by one; interrupted anywhere, it loses and doubles nothing, and another run goes on.
    ///
    /// # Errors
    /// When the broker does not answer. What was done until then is done, and audited.
    pub async fn redrive(
        &self,
        filter: &DeadFilter,
        how: &Redrive,
        by: &By,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Report, OperatorError> {
        let letters = self.letters().await?;
        let mut report = Report::default();
        let mut going: Vec<&DeadLetter> = vec![];
        let mut chosen = letters.list(&named(filter));
        // In the order of their streams, and not in that in which their retries happened to end.
        chosen.sort_by_key(|letter| (&letter.service, &letter.stream, letter.sequence));
        for letter in chosen {
            let held = self.holds_back(letter, by, how.force);
            let held = held.or_else(|| over(how.limit, going.len()));
            match held {
                Some(why) => report.add(fate(letter, number(letter), Outcome::Held, Some(why))),
                None => going.push(letter),
            }
        }
        let total = going.len();
        progress(Progress { total, dealt_with: 0 });
        if how.dry_run {
            let tried = &going[..total.min(MOST_TRIED)];
            let dry_runs = self.dry_run(tried, |dealt_with| progress(Progress { total, dealt_with })).await;
            let dry_runs = dry_runs.into_iter().map(Some).chain(std::iter::repeat(None));
            for (letter, dry_run) in going.into_iter().zip(dry_runs) {
                report.add(Fate { dry_run, ..fate(letter, number(letter), Outcome::WouldGo, None) });
            }
            return Ok(report);
        }
        if going.is_empty() {
            return Ok(report);
        }
        let declared = declare_ownerless(&self.jetstream, redrives()).await;
        declared.map_err(|error| OperatorError::Away(format!("the work queue of redrives: {error}")))?;
        let started = Instant::now();
        let per_second = how.per_second.max(1);
        let mut dealt_with = 0;
        let mut steps = CANARY.into_iter().filter(|_| how.canary).chain(std::iter::repeat(WINDOW));
        let mut rest = &going[..];
        while let Some(step) = steps.next().filter(|_| !rest.is_empty()) {
            let due = Duration::from_secs_f64(dealt_with as f64 / f64::from(per_second));
            tokio::time::sleep_until(started + due).await;
            let window;
            (window, rest) = rest.split_at(rest.len().min(step).min(per_second as usize));
            for fate in self.redrive_window(window, by).await? {
                report.add(fate);
            }
            dealt_with += window.len();
            progress(Progress { total, dealt_with });
            if how.canary
                && let Some(why) = self.failed_again(window).await?
            {
                rest.iter()
                    .for_each(|letter| report.add(fate(letter, number(letter), Outcome::Held, Some(why.clone()))));
                break;
            }
        }
        Ok(report)
    }

    /// Waits until the services have said what became of these, and gives why to stop if one of them has failed again.
    async fn failed_again(&self, window: &[&DeadLetter]) -> Result<Option<String>, OperatorError> {
        let mut letters = Letters::default();
        let until = Instant::now() + OUTCOME;
        loop {
            letters.update(self).await?;
            let now = window.iter().filter_map(|letter| letters.get(&letter.service, letter.id));
            let mut open = now.filter(|letter| matches!(letter.state, LetterState::Dead | LetterState::Redriving));
            let Some(letter) = open.clone().find(|letter| letter.state == LetterState::Dead).or_else(|| open.next())
            else {
                return Ok(None);
            };
            let name = format!("{}/{}", letter.service, letter.id);
            if letter.state == LetterState::Dead {
                return Ok(Some(format!("stopped: {name} failed again ({}: {})", letter.reason, letter.error)));
            }
            if Instant::now() >= until {
                return Ok(Some(format!("stopped: {name} is still on its way after {} s", OUTCOME.as_secs())));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn redrive_window(&self, window: &[&DeadLetter], by: &By) -> Result<Vec<Fate>, OperatorError> {
        let now = Timestamp::system();
        let details =
            |letter: &DeadLetter| json!({ "redrive": number(letter), "event": letter.event, "reason": letter.reason });
        let entries: Vec<_> = window.iter().map(|letter| entry(letter, "redrive", by, now, details(letter))).collect();
        self.audit(&entries).await?;
        fail_point!("after_audit");
        let is_new = |letter: &&&DeadLetter| letter.state == LetterState::Dead;
        let claims = window.iter().filter(is_new).map(|letter| {
            let headers = mark(letter, "redriving", number(letter), by, now);
            (letter.record.clone(), expecting(headers, letter), letter.payload.clone())
        });
        let mut claimed = self.store_all(claims, || fail_point!("before_claim")).await.into_iter();
        fail_point!("after_claim");
        let mut silent = false;
        let mut outcomes: Vec<Result<u64, (Outcome, String)>> = vec![];
        for letter in window {
            let claim = if is_new(&letter) { claimed.next() } else { None };
            outcomes.push(match claim {
                // The record that says so, by its sequence.
                None => Ok(letter.record_sequence),
                Some(Ok(sequence)) => Ok(sequence),
                Some(Err(error)) if error.is_taken() => Err((Outcome::Taken, "changed by another operator".into())),
                Some(Err(error)) => {
                    silent |= error.is_silence();
                    Err((Outcome::Failed, format!("it could not be claimed: {}", error.why())))
                }
            });
        }
        let goes = window.iter().zip(&outcomes).filter_map(|(letter, outcome)| Some((letter, *outcome.as_ref().ok()?)));
        let messages: Vec<_> = goes.map(|(letter, record)| redrive_of(letter, number(letter), record)).collect();
        let sent = self.send_all(messages).await;
        fail_point!("after_send");
        for (outcome, sent) in outcomes.iter_mut().filter(|outcome| outcome.is_ok()).zip(sent) {
            if let Err(error) = sent {
                silent |= error.is_silence();
                *outcome = Err((Outcome::Failed, format!("it could not be sent: {}", error.why())));
            }
        }
        if silent && outcomes.iter().all(Result::is_err) {
            return Err(OperatorError::Away("the broker stopped answering; run again to continue".into()));
        }
        let fates = window.iter().zip(outcomes).map(|(letter, outcome)| match outcome {
            Ok(_) => fate(letter, number(letter), Outcome::Done, None),
            Err((outcome, why)) => fate(letter, number(letter), outcome, Some(why)),
        });
        Ok(fates.collect())
    }

    /// Gives the dead letters that fit up for good. Their records stay for 30 days.
    ///
    /// # Errors
    /// When the broker does not answer. What was done until then is done, and audited.
    pub async fn discard(
        &self,
        filter: &DeadFilter,
        limit: usize,
        dry_run: bool,
        by: &By,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Report, OperatorError> {
        let letters = self.letters().await?;
        let mut report = Report::default();
        let mut going: Vec<&DeadLetter> = vec![];
        for letter in letters.list(&named(filter)) {
            match dealt_with(letter)
                .or_else(|| under_way(letter, Timestamp::system()))
                .or_else(|| over(limit, going.len()))
            {
                Some(why) => report.add(fate(letter, letter.redrives, Outcome::Held, Some(why))),
                None if dry_run => report.add(fate(letter, letter.redrives, Outcome::WouldGo, None)),
                None => going.push(letter),
            }
        }
        let total = going.len();
        progress(Progress { total, dealt_with: 0 });
        let mut done = 0;
        for window in going.chunks(WINDOW) {
            let now = Timestamp::system();
            let details = |letter: &DeadLetter| json!({ "event": letter.event, "reason": letter.reason });
            let entries: Vec<_> =
                window.iter().map(|letter| entry(letter, "discard", by, now, details(letter))).collect();
            self.audit(&entries).await?;
            let marked =
                window.iter().map(|letter| self.fitting(letter, expecting(discarded(letter, by, now), letter)));
            let stored = self.store_all(marked, || fail_point!("before_discard")).await;
            let silent = stored.iter().all(|stored| stored.as_ref().is_err_and(NotStored::is_silence));
            if silent {
                return Err(OperatorError::Away("the broker stopped answering".into()));
            }
            for (letter, stored) in window.iter().zip(stored) {
                let (outcome, why) = match stored {
                    Ok(_) => (Outcome::Done, None),
                    Err(error) if error.is_taken() => (Outcome::Taken, Some("changed by another operator".into())),
                    Err(error) => (Outcome::Failed, Some(error.why())),
                };
                report.add(fate(letter, letter.redrives, outcome, why));
            }
            done += window.len();
            progress(Progress { total, dealt_with: done });
        }
        Ok(report)
    }

    /// All dead letters, to be acted on.
    pub(crate) async fn letters(&self) -> Result<Letters, OperatorError> {
        let mut letters = Letters::whole();
        letters.update(self).await?;
        Ok(letters)
    }

    /// Sends messages to the work queue of redrives. One that was sent before, by a run that was interrupted or is under way, is
    /// there; another one that has its id is not it.
    pub(crate) async fn send_all(&self, messages: Vec<Outgoing>) -> Vec<Result<u64, NotStored>> {
        let subjects: Vec<String> = messages.iter().map(|(subject, ..)| subject.clone()).collect();
        let mut sent = self.store_all(messages.into_iter(), || fail_point!("before_send")).await;
        for (subject, sent) in subjects.iter().zip(&mut sent) {
            let Err(NotStored::Known(stream, sequence)) = sent else { continue };
            let Ok(stream) = self.jetstream.get_stream_no_info(&*stream).await else { continue };
            // What is no longer there was taken by its service.
            let there = stream.get_raw_message(*sequence).await;
            let ours = match there {
                Ok(message) => message.subject.as_str() == subject,
                Err(error) => error.kind() == RawMessageErrorKind::NoMessageFound,
            };
            if ours {
                *sent = Ok(*sequence);
            }
        }
        sent
    }

    /// Stores messages, pipelined, and says of each where the broker has it.
    pub(crate) async fn store_all(
        &self,
        messages: impl Iterator<Item = Outgoing> + Send,
        before: impl Fn() + Send,
    ) -> Vec<Result<u64, NotStored>> {
        let mut acks = vec![];
        for (subject, headers, payload) in messages {
            before();
            acks.push(self.jetstream.publish_with_headers(subject, headers, payload).await);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut stored = Vec::with_capacity(acks.len());
        for ack in acks {
            let ack = match ack {
                // All have the same time: many that are not answered are waited for once.
                Ok(ack) => tokio::time::timeout_at(deadline, ack.into_future()).await,
                Err(error) => Ok(Err(error)),
            };
            let ack = ack.unwrap_or_else(|_| Err(PublishError::new(PublishErrorKind::TimedOut)));
            stored.push(match ack {
                Ok(ack) if ack.duplicate => Err(NotStored::Known(ack.stream, ack.sequence)),
                Ok(ack) => Ok(ack.sequence),
                Err(error) => Err(NotStored::Refused(error)),
            });
        }
        stored
    }

    /// Why a dead letter is not redriven.
    fn holds_back(&self, letter: &DeadLetter, by: &By, force: bool) -> Option<String> {
        if let Some(why) = dealt_with(letter) {
            return Some(why);
        }
        if let Some(whole) = letter.cut {
            return Some(format!("its body was cut: {} of {whole} bytes are there", letter.payload.len()));
        }
        if redrive_subject(letter).is_none() {
            return Some(format!("`{}` is not a dead letter record of a service", letter.record));
        }
        if letter.state == LetterState::Redriving {
            return None;
        }
        if letter.redrives >= REDRIVES && !force {
            return Some(format!(
                "it has failed again after {} redrives; force it to redrive once more",
                letter.redrives
            ));
        }
        let marked = mark(letter, "redriving", number(letter), by, Timestamp::system());
        let (size, most) = (wire_size(&expecting(marked, letter), &letter.payload), self.client.max_payload());
        (size > most).then(|| format!("its record would have {size} bytes, and the broker takes {most}"))
    }

    /// A record in a size that the broker takes: of the largest the body is cut.
    fn fitting(&self, letter: &DeadLetter, mut headers: HeaderMap) -> Outgoing {
        let mut payload = letter.payload.clone();
        let most = self.client.max_payload();
        if wire_size(&headers, &payload) > most {
            put(&mut headers, "Millstream-Cut", &letter.cut.unwrap_or(payload.len() as u64).to_string());
            let over = wire_size(&headers, &payload).saturating_sub(most);
            payload.truncate(payload.len().saturating_sub(over));
        }
        (letter.record.clone(), headers, payload)
    }
}

pub(crate) const TTL: &str = "Nats-TTL";

/// How long a record stays that nobody has to deal with any more.
pub(crate) fn ttl() -> String {
    format!("{}s", KEPT.as_secs())
}

/// One that is named is told about whatever has become of it.
fn named(filter: &DeadFilter) -> DeadFilter {
    DeadFilter { all: filter.all || filter.id.is_some(), ..filter.clone() }
}

pub(crate) fn dealt_with(letter: &DeadLetter) -> Option<String> {
    let who = letter.who.as_ref().map_or(String::new(), |who| format!(" by {who}"));
    match letter.state {
        LetterState::Dead | LetterState::Redriving => None,
        LetterState::Resolved => Some("it was redriven and handled".into()),
        LetterState::Edited => Some(format!("it was edited{who}")),
        LetterState::Discarded => Some(format!("it was discarded{who}")),
    }
}

pub(crate) fn under_way(letter: &DeadLetter, now: Timestamp) -> Option<String> {
    let fresh = now.since(letter.at) < ON_ITS_WAY;
    (letter.state == LetterState::Redriving && fresh)
        .then(|| format!("it has been on its way back to its service since {}", letter.at))
}

fn over(limit: usize, going: usize) -> Option<String> {
    (going >= limit).then(|| format!("the limit of {limit} is reached"))
}

/// The number of the redrive that is due.
pub(crate) fn number(letter: &DeadLetter) -> u32 {
    letter.redrives + u32::from(letter.state != LetterState::Redriving)
}

fn fate(letter: &DeadLetter, redrive: u32, outcome: Outcome, why: Option<String>) -> Fate {
    let (service, event) = (letter.service.clone(), letter.event.clone());
    Fate { service, event, id: letter.id, redrive, outcome, why, dry_run: None }
}

pub(crate) fn entry(
    letter: &DeadLetter,
    action: &str,
    by: &By,
    at: Timestamp,
    details: serde_json::Value,
) -> AuditEntry {
    AuditEntry {
        at,
        who: by.who.clone(),
        action: action.into(),
        service: letter.service.clone(),
        what: letter.id.to_string(),
        why: by.why.clone(),
        details,
    }
}

pub(crate) fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    headers.insert(name, HeaderValue::from(encode_header(value)));
}

/// Headers as they are on the wire, but those whose names are not wanted.
pub(crate) fn but(wire: &HeaderMap, unwanted: impl Fn(&str) -> bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in wire.iter().filter(|(name, _)| !unwanted(name.as_ref())) {
        values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
    }
    headers
}

// Longest name and longest reason in a record, in bytes.
const WHO_BYTES: usize = 100;
const WHY_BYTES: usize = 400;

/// The headers of a record that says what somebody does about it.
pub(crate) fn mark(letter: &DeadLetter, state: &str, redrives: u32, by: &By, at: Timestamp) -> HeaderMap {
    let mut headers = but(&letter.wire, |name| name.starts_with("Nats-"));
    put(&mut headers, STATE, state);
    put(&mut headers, COUNT, &redrives.to_string());
    put(&mut headers, "Millstream-Who", clip(&by.who, WHO_BYTES));
    put(&mut headers, "Millstream-Why", clip(&by.why, WHY_BYTES));
    put(&mut headers, "Millstream-Acted", &at.to_string());
    headers
}

/// The same, to be stored only in place of the record that was read.
pub(crate) fn expecting(mut headers: HeaderMap, letter: &DeadLetter) -> HeaderMap {
    put(&mut headers, "Nats-Expected-Last-Subject-Sequence", &letter.record_sequence.to_string());
    headers
}

/// What says in the record that it was given up for good.
pub(crate) fn discarded(letter: &DeadLetter, by: &By, at: Timestamp) -> HeaderMap {
    let mut headers = mark(letter, "discarded", letter.redrives, by, at);
    put(&mut headers, TTL, &ttl());
    headers
}

/// Where a service gets a dead letter of its own back.
pub(crate) fn redrive_subject(letter: &DeadLetter) -> Option<String> {
    let rest = letter.record.strip_prefix("dlq.")?;
    let whole = rest.split('.').count() == 3 && rest.ends_with(&format!(".{}", letter.id));
    whole.then(|| format!("redrive.{rest}"))
}

/// What goes back to the service: the message as it was, what its record knows, and where the record is. All services share the
/// queue, so the id of what is sent there names the service.
pub(crate) fn redrive_of(letter: &DeadLetter, number: u32, record: u64) -> Outgoing {
    const OF_THE_RECORD: [&str; 5] = [STATE, COUNT, "Millstream-Who", "Millstream-Why", "Millstream-Acted"];
    let mut headers = but(&letter.wire, |name| name.starts_with("Nats-") || OF_THE_RECORD.contains(&name));
    put(&mut headers, NUMBER, &number.to_string());
    put(&mut headers, RECORD, &record.to_string());
    put(&mut headers, header::MSG_ID, &format!("{}:{}:{number}", letter.service, letter.id));
    (redrive_subject(letter).unwrap_or_default(), headers, letter.payload.clone())
}

/// The size of a message on the wire.
pub(crate) fn wire_size(headers: &HeaderMap, payload: &[u8]) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let lines: usize = lines.map(|(name, value)| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4).sum();
    12 + lines + payload.len()
}
