//! Editing: a changed copy of a dead letter goes to its service under an id of its own, and the original says so.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::header::HeaderMap;
use bytes::Bytes;
use fail::fail_point;
use serde_json::{Value, json};

use crate::dead_letter::{EDITED_FROM, NUMBER};
use crate::declare::{declare_ownerless, redrives};
use crate::event::header;
use crate::ids::{Id, Timestamp};
use crate::operator::dead::{DeadLetter, Edited, LetterState};
use crate::operator::exact::{Exact, by_name};
use crate::operator::personal::{MASK, is_personal};
use crate::operator::redrive::{Outgoing, TTL, but, entry, expecting, mark, put, redrive_subject, ttl, wire_size};
use crate::operator::{By, Operator, OperatorError};

/// How long after an edit that was interrupted the same one goes on with it. Later the service may have forgotten the copy, and
/// would handle it once more.
const GOES_ON: Duration = Duration::from_secs(24 * 3600);

impl Operator {
    /// Sends a changed copy of a dead letter to the service that gave it up, under a new id and caused by the original, which is kept.
    /// The id comes of the original and the new body, so that the same edit again, within a day of one that was interrupted, goes on
    /// with it.
    ///
    /// # Errors
    /// When there is no such dead letter, it was dealt with meanwhile, the body is not what the service could read, or the broker
    /// does not answer.
    pub async fn edit(&self, service: &str, id: Id, payload: Bytes, by: &By) -> Result<Edited, OperatorError> {
        let letters = self.letters().await?;
        let letter = letters.get(service, id);
        let letter = letter.ok_or_else(|| OperatorError::NotFound(format!("{service} has no dead letter {id}")))?;
        let copy = copy_id(id, &payload);
        let refused = |why: String| Err(OperatorError::Refused(why));
        let now = Timestamp::system();
        let same = letter.state == LetterState::Edited && letter.edited_to == Some(copy);
        let interrupted = same && now.since(letter.at) < GOES_ON;
        if letter.state != LetterState::Dead && !interrupted {
            let what = match letter.state {
                LetterState::Redriving => "on its way back to its service".into(),
                LetterState::Edited => letter.edited_to.map_or("edited".into(), |copy| format!("edited, as {copy}")),
                state => format!("{state:?}").to_lowercase(),
            };
            return refused(format!("the dead letter {id} is {what}"));
        }
        let difference = difference(letter, &payload)?;
        let Some(message) = changed(letter, copy, payload) else {
            return refused(format!("`{}` is not a dead letter record of a service", letter.record));
        };
        // What is parked once more must fit into a dead letter.
        let (size, most) =
            (wire_size(&message.1, &message.2), self.client.max_payload().saturating_sub(crate::dead_letter::ROOM));
        if size > most {
            return refused(format!("the message would have {size} bytes, and a service takes {most}"));
        }
        let record = expecting(edited(letter, copy, by, now), letter);
        if wire_size(&record, &letter.payload) > self.client.max_payload() {
            return refused("its record is as large as the broker takes, and cannot be marked".into());
        }
        let declared = declare_ownerless(&self.jetstream, redrives()).await;
        declared.map_err(|error| OperatorError::Away(format!("the work queue of redrives: {error}")))?;
        let shown: Vec<Value> = difference.iter().map(|change| masked(letter, change)).collect();
        let details = json!({ "id": copy, "event": letter.event, "difference": shown });
        self.audit(&[entry(letter, "edit", by, now, details)]).await?;
        fail_point!("after_audit");
        if !interrupted {
            let claim = (letter.record.clone(), record, letter.payload.clone());
            for claimed in self.store_all([claim].into_iter(), || fail_point!("before_claim")).await {
                claimed.map_err(|error| match error.is_taken() {
                    true => OperatorError::Refused(format!("the dead letter {id} was changed by another operator")),
                    false => OperatorError::Away(format!("it could not be claimed: {}", error.why())),
                })?;
            }
        }
        fail_point!("after_claim");
        for sent in self.send_all(vec![message]).await {
            sent.map_err(|error| {
                let why = error.why();
                OperatorError::Away(format!("sending failed: {why}; repeat the same edit to continue"))
            })?;
        }
        fail_point!("after_send");
        Ok(Edited { original: id, id: copy, difference })
    }
}

/// The id of a changed copy: that of the same edit is the same.
pub(crate) fn copy_id(of: Id, payload: &[u8]) -> Id {
    Id::derived(of.time().unwrap_or_default(), "edit", &[&of.bytes()[..], payload].concat(), 0)
}

/// What says in the record that a changed copy was sent in its place.
pub(crate) fn edited(letter: &DeadLetter, copy: Id, by: &By, at: Timestamp) -> HeaderMap {
    let mut headers = mark(letter, "edited", letter.redrives, by, at);
    put(&mut headers, "Millstream-Edited-To", &copy.to_string());
    put(&mut headers, TTL, &ttl());
    headers
}

/// The changed copy, as its service gets it.
pub(crate) fn changed(letter: &DeadLetter, copy: Id, payload: Bytes) -> Option<Outgoing> {
    const ITS_OWN: [&str; 3] = [header::ID, header::CAUSATION, header::MSG_ID];
    let ours = |name: &str| name.starts_with("Nats-") || name.starts_with("Millstream-");
    let mut headers = but(&letter.wire, |name| ours(name) || ITS_OWN.contains(&name));
    put(&mut headers, header::ID, &copy.to_string());
    put(&mut headers, header::CAUSATION, &letter.id.to_string());
    if letter.correlation.is_none() {
        put(&mut headers, header::CORRELATION, &letter.id.to_string());
    }
    put(&mut headers, header::MSG_ID, &format!("{}:{copy}:0", letter.service));
    put(&mut headers, NUMBER, "0");
    put(&mut headers, EDITED_FROM, &letter.id.to_string());
    put(&mut headers, "Millstream-Stream", &letter.stream);
    put(&mut headers, "Millstream-Sequence", &letter.sequence.to_string());
    put(&mut headers, "Millstream-Subject", &letter.subject);
    let subject = redrive_subject(letter)?;
    let (place, _) = subject.rsplit_once('.')?;
    Some((format!("{place}.{copy}"), headers, payload))
}

/// What differs between the body and a new one, which must be JSON if the old one is.
fn difference(letter: &DeadLetter, payload: &[u8]) -> Result<Vec<(String, Value, Value)>, OperatorError> {
    let refused = |why: String| OperatorError::Refused(why);
    let old = Exact::read(&letter.payload).ok();
    let says_json = letter.headers.iter().any(|(name, value)| name == header::CONTENT_TYPE && value.contains("json"));
    let mut changes = vec![];
    match (old, Exact::read(payload)) {
        (Some(old), Ok(new)) => differ(String::new(), Some(&old), Some(&new), &mut changes),
        (Some(_), Err(error)) => return Err(refused(format!("the old body is JSON, and the new one is not: {error}"))),
        (None, Err(error)) if says_json => {
            return Err(refused(format!("the event is to be JSON, and the new body is not: {error}")));
        }
        (None, _) if letter.payload == payload => {}
        (None, _) => {
            let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
            changes.push((String::new(), text(&letter.payload), text(payload)));
        }
    }
    if changes.is_empty() {
        Err(refused("nothing differs from the dead letter: redrive it".into()))
    } else {
        Ok(changes)
    }
}

/// Collects where two values differ, as JSON pointers.
fn differ(at: String, old: Option<&Exact>, new: Option<&Exact>, changes: &mut Vec<(String, Value, Value)>) {
    let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match (old, new) {
        _ if old == new => {}
        (Some(Exact::Object(old)), Some(Exact::Object(new))) => {
            let (of_old, of_new) = (by_name(old), by_name(new));
            let mut seen = HashSet::new();
            for name in old.iter().chain(new).map(|(name, _)| name.as_str()).filter(|name| seen.insert(*name)) {
                differ(below(name), of_old.get(name).copied(), of_new.get(name).copied(), changes);
            }
        }
        (Some(Exact::Array(old)), Some(Exact::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                differ(below(&index.to_string()), old.get(index), new.get(index), changes);
            }
        }
        _ => changes.push((at, old.map_or(Value::Null, Exact::value), new.map_or(Value::Null, Exact::value))),
    }
}

/// A change as the audit keeps it: what is personal does not outlive the dead letter there.
fn masked(letter: &DeadLetter, (at, old, new): &(String, Value, Value)) -> Value {
    if is_personal(at, &letter.personal) { json!([at, MASK, MASK]) } else { json!([at, old, new]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_was_changed_added_and_taken_away_and_no_more() {
        let old = json!({ "a": 1, "b": { "c/d": [1, 2], "e": "x" }, "f": true });
        let new = json!({ "a": 1, "b": { "c/d": [1, 3, 4], "e": "x" }, "g": null, "h": "y" });
        let mut changes = vec![];
        differ(String::new(), Some(&Exact::from(&old)), Some(&Exact::from(&new)), &mut changes);
        let null = Value::Null;
        assert_eq!(
            changes,
            [
                ("/b/c~1d/1".into(), json!(2), json!(3)),
                ("/b/c~1d/2".into(), null.clone(), json!(4)),
                ("/f".into(), json!(true), null.clone()),
                ("/g".into(), null.clone(), null.clone()),
                ("/h".into(), null, json!("y")),
            ]
        );
    }

    #[test]
    fn a_changed_digit_is_a_difference_however_many_there_are() {
        let exact = |json: &str| Exact::read(json.as_bytes()).unwrap();
        let (old, new) =
            (exact(r#"{"m":18446744073709551617,"p":1.0}"#), exact(r#"{"m":1.8446744073709552e19,"p":1.0}"#));
        let mut changes = vec![];
        differ(String::new(), Some(&old), Some(&new), &mut changes);
        assert_eq!(changes, [("/m".into(), json!("18446744073709551617"), json!("1.8446744073709552e19"))]);
    }
    #[test]
    fn a_body_of_a_hundred_thousand_members_does_not_hold_up_whoever_edits_it() {
        let body = |of_last: u32| {
            let members =
                (0..100_000).map(|at| (format!("m{at}"), Exact::from(&json!(at / 99_999 * of_last)))).collect();
            Exact::Object(members)
        };
        let (began, mut changes) = (std::time::Instant::now(), vec![]);
        differ(String::new(), Some(&body(1)), Some(&body(2)), &mut changes);
        assert_eq!(changes, [("/m99999".into(), json!(1), json!(2))]);
        // It takes a tenth of a second. If each member were looked for among all, it would be minutes.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
}
