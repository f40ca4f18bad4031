//! What a service answers to an operator: what became of messages, which wakes wait; and what it does to a wake when asked.
//!
//! | subject | question | answer |
//! | --- | --- | --- |
//! | `millstream.journal.<service>` | [`JournalQuestion`] | [`JournalAnswer`]: what it wrote of these ids |
//! | `millstream.wakes.<service>` | [`WakesQuestion`] | [`PendingWake`]s, the earliest first |
//! | `millstream.act.<service>` | [`ActQuestion`] | the [`PendingWake`] as it is now |
//! | `millstream.dry-run.<service>` | [`DryRunQuestion`] | a [`DryRun`] for each redrive |
//!
//! Any replica answers. Reads are bounded and go to the store beside the loop; an act goes through the loop as a command does, so
//! it meets a change of its document as a conflict and is in the journal.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commands::{Caller, CommandError, Context};
use crate::handler::{Fault, Key, Keys, Wake};
use crate::ids::{Id, Timestamp};
use crate::protocol::{
    ActQuestion, Asked, DryRun, DryRunQuestion, JournalAnswer, JournalQuestion, Journalled, MOST_IDS, MOST_REDRIVES,
    MOST_WAKES, PendingWake, WakeAct, WakesQuestion, subject,
};
use crate::rehearse::Rehearser;
use crate::store::{Entry, State, StoreError, StoredDoc, Wanted};
use crate::unit::{Unit, WakeChange, Work};
use millstream_core::planner::Kinds;

/// Every wake is due by then.
const FAR_FUTURE: Timestamp = Timestamp::from_millis(253_402_300_799_000);

/// Why there is no answer: an HTTP status and a sentence.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: usize,
    pub(crate) text: String,
}

/// Answers for one service.
pub(crate) struct Answers {
    pub(crate) context: Context,
    pub(crate) rehearser: Rehearser,
}

impl Answers {
    /// Answers a question, as JSON.
    pub(crate) async fn answer(&self, endpoint: Asked, question: &[u8]) -> Result<Bytes, Problem> {
        match endpoint {
            Asked::Journal => json(&self.journal(self.read(endpoint, question, JOURNAL_FORM)?).await?),
            Asked::Wakes => json(&self.wakes(self.read(endpoint, question, WAKES_FORM)?).await?),
            Asked::Act => self.act(self.read(endpoint, question, ACT_FORM)?).await,
            Asked::DryRun => json(&self.dry_run(self.read(endpoint, question, DRY_RUN_FORM)?).await?),
        }
    }

    /// Reads a question, or says what would be right.
    fn read<T: DeserializeOwned>(&self, endpoint: Asked, question: &[u8], form: &str) -> Result<T, Problem> {
        let question = if question.is_empty() { b"{}" } else { question };
        serde_json::from_slice(question).map_err(|error| {
            wrong(format!(
                "{} takes {form}, and this is not of that form: {error}",
                subject(endpoint.name(), self.service())
            ))
        })
    }

    fn service(&self) -> &'static str {
        self.context.0.service
    }

    fn kinds(&self) -> &Kinds {
        &self.rehearser.planner.kinds
    }

    async fn dry_run(&self, question: DryRunQuestion) -> Result<Vec<DryRun>, Problem> {
        let asked = question.redrives.len();
        if asked > MOST_REDRIVES {
            return Err(wrong(format!("at most {MOST_REDRIVES} redrives at once, not {asked}")));
        }
        Ok(self.rehearser.dry_run(&self.context, question.redrives).await?)
    }

    async fn journal(&self, question: JournalQuestion) -> Result<JournalAnswer, Problem> {
        if question.ids.len() > MOST_IDS {
            return Err(wrong(format!("at most {MOST_IDS} ids at once, not {}", question.ids.len())));
        }
        let wanted = Wanted { journal: question.ids, ..Wanted::default() };
        let loaded = self.context.in_time(self.context.0.store.load(wanted)).await?;
        Ok(JournalAnswer { entries: loaded.journal.into_iter().map(Journalled::from).collect() })
    }

    async fn wakes(&self, question: WakesQuestion) -> Result<Vec<PendingWake>, Problem> {
        let store = &self.context.0.store;
        let limit = question.limit.unwrap_or(MOST_WAKES).min(MOST_WAKES);
        let is_wanted = |kind: &str| question.kind.as_ref().is_none_or(|wanted| wanted == kind);
        let kinds: Vec<&'static str> = self.kinds().names().filter(|kind| is_wanted(kind)).collect();
        let found: Vec<StoredDoc> = match &question.document {
            Some(id) => {
                let mut collections: Vec<_> = kinds.iter().filter_map(|kind| self.kinds().collection(kind)).collect();
                collections.sort_unstable();
                collections.dedup();
                let mut found = vec![];
                for collection in collections {
                    found.extend(self.context.in_time(store.get(Key { collection, id: id.clone() })).await?);
                }
                found
            }
            None if kinds.is_empty() => vec![],
            None => self.context.in_time(store.due_wakes(&kinds, FAR_FUTURE, limit)).await?,
        };
        let waits = found.into_iter().filter_map(|doc| Some((doc.key, doc.wake?)));
        let waits = waits.filter(|(_, wake)| is_wanted(&wake.kind));
        let mut waits: Vec<_> = waits.map(|(key, wake)| pending(self.service(), self.kinds(), &key, &wake)).collect();
        waits.sort_by_key(|wake| wake.at);
        waits.truncate(limit);
        Ok(waits)
    }

    async fn act(&self, question: ActQuestion) -> Result<Bytes, Problem> {
        let ActQuestion { kind, collection, document, who, why, .. } = &question;
        if who.trim().is_empty() || why.trim().is_empty() {
            return Err(wrong(format!("`who` and `why` are to be said; this service takes {ACT_FORM}")));
        }
        let Some(known) = self.kinds().collection(kind).filter(|known| known == collection) else {
            let kinds: Vec<&str> = self.kinds().names().collect();
            let service = self.service();
            let text = format!("`{service}` has no wakes of kind `{kind}` in `{collection}`; its kinds are {kinds:?}");
            return Err(Problem { code: 404, text });
        };
        let (who, why, act) = (who.clone(), why.clone(), question.act);
        let key = Key { collection: known, id: document.clone() };
        let id = Id::random(self.context.0.clock.now());
        // What comes of it belongs to what the wake belongs to.
        let stored = self.context.in_time(self.context.0.store.get(key.clone())).await?;
        let correlation = stored.and_then(|doc| doc.wake).map_or_else(|| id.to_string(), |wake| wake.correlation);
        let caller = Caller { correlation: correlation.clone(), ..Caller::default() };
        let work = ActOnWake { service: self.service(), kinds: self.kinds().clone(), key, question };
        let accepted = self.context.submit_work(&caller, id, Box::new(work), None).await.map_err(|error| {
            let code = match &error {
                CommandError::Rejected(reject) => usize::from(reject.status),
                CommandError::Unavailable(_) | CommandError::OutcomeUnknown => 503,
                _ => 500,
            };
            let text = match error {
                CommandError::OutcomeUnknown => "the store has not said whether it was done: look again".into(),
                error => error.to_string(),
            };
            Problem { code, text }
        })?;
        tracing::info!(who, why, ?act, correlation, command = %id, "an operator has acted on a wake");
        Ok(accepted.reply)
    }
}

const DRY_RUN_FORM: &str = r#"{"redrives": [{"subject": "…", "headers": [["…", "…"]], "payload": "<base64>"}, …]}"#;
const JOURNAL_FORM: &str = r#"{"ids": ["<uuid>", …]}"#;
const WAKES_FORM: &str = r#"{"kind": "…", "document": "…", "limit": 100}, each of which may be left out"#;
const ACT_FORM: &str = r#"{"collection": "…", "document": "…", "kind": "…", "generation": 1, "attempt": 0, "act": {"action": "move", "to": "<RFC 3339 time>"} or {"action": "fire"} or {"action": "cancel"}, "who": "…", "why": "…"}"#;

fn wrong(text: String) -> Problem {
    Problem { code: 400, text }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self { code: 503, text: error.to_string() }
    }
}

fn json(answer: &impl Serialize) -> Result<Bytes, Problem> {
    let written = serde_json::to_vec(answer).map_err(|error| Problem { code: 500, text: error.to_string() })?;
    Ok(written.into())
}

impl From<Entry> for Journalled {
    fn from(entry: Entry) -> Self {
        let state = match entry.state {
            State::Open => "open",
            State::Done => "done",
            State::Parked => "parked",
        };
        Self {
            id: entry.id,
            state: state.into(),
            attempts: entry.attempts,
            started: entry.started,
            redrives: entry.redrives,
            error: entry.error,
            first_failure: entry.first_failure,
            last_failure: entry.last_failure,
            at: entry.at,
            instance: entry.instance,
            stream: entry.stream,
            seq: entry.seq,
        }
    }
}

fn pending(service: &str, kinds: &Kinds, key: &Key, wake: &Wake) -> PendingWake {
    PendingWake {
        service: service.into(),
        collection: key.collection.into(),
        document: key.id.clone(),
        kind: wake.kind.clone(),
        opened: wake.opened,
        at: wake.at,
        attempt: wake.attempt,
        lease: wake.lease,
        generation: wake.generation,
        cancellable: wake.attempt == 0 && kinds.cancellable(&wake.kind),
        correlation: wake.correlation.clone(),
    }
}

/// An act on a wake, as work for the loop.
struct ActOnWake {
    service: &'static str,
    kinds: Kinds,
    key: Key,
    question: ActQuestion,
}

impl Work for ActOnWake {
    fn touches(&self) -> Keys {
        Keys(vec![self.key.clone()])
    }

    fn handle(&self, unit: &mut Unit<'_>) -> Result<Option<Bytes>, Fault> {
        let ActQuestion { collection, document, kind, generation, attempt, act, .. } = &self.question;
        let name = format!("the `{kind}` of {collection}/{document}");
        let Some(wake) = unit.standing_wake(&self.key).cloned() else {
            return Err(Fault::not_found(format!("{name} is no longer pending: the document has no wake")));
        };
        let now = unit.now();
        if wake.kind != *kind {
            return Err(Fault::conflict(format!(
                "{name} is no longer pending: the document now waits for a `{}`",
                wake.kind
            )));
        }
        if wake.generation != *generation {
            let (opened, at) = (wake.opened, wake.at);
            return Err(Fault::conflict(format!(
                "{name} has been replaced: it was set at {opened} and is due at {at}"
            )));
        }
        if let Some(until) = wake.lease.filter(|until| *until > now) {
            return Err(Fault::conflict(format!(
                "{name} is running now (attempt {}): an instance holds it until {until} at the latest",
                wake.attempt
            )));
        }
        if wake.attempt != *attempt {
            let (tried, at) = (wake.attempt, wake.at);
            return Err(Fault::conflict(format!(
                "{name} has been tried since: {tried} times, not {attempt}; it is due at {at}"
            )));
        }
        let mut left = pending(self.service, &self.kinds, &self.key, &wake);
        let move_to = match act {
            // A time that has passed is now: a wake is not due before it was asked for.
            WakeAct::Move { to } => Some((*to).max(now)),
            WakeAct::Fire => Some(now),
            WakeAct::Cancel if !self.kinds.cancellable(kind) => {
                return Err(Fault::conflict(format!(
                    "a `{kind}` cannot be cancelled: its document would not be in a valid state without it"
                )));
            }
            WakeAct::Cancel if wake.attempt > 0 => {
                return Err(Fault::conflict(format!("{name} was tried already: something may have been sent")));
            }
            WakeAct::Cancel => None,
        };
        match move_to {
            Some(at) => {
                left.at = at;
                unit.change_wake(&self.key, WakeChange::Move(at));
            }
            None => self.kinds.cancel(kind, document, unit)?,
        }
        let reply = serde_json::to_vec(&left).unwrap_or_else(|error| panic!("a reply cannot be written: {error}"));
        Ok(Some(reply.into()))
    }
}
