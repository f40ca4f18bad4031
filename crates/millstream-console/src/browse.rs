//! The page's lists: messages of a stream, pending wakes, the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use millstream::Timestamp;
use millstream::http::{Problem, Query};
use millstream::operator::audit::AuditEntry;
use millstream::operator::browse::{Browse, Having, Page};
use millstream::operator::wakes::{PendingWake, WakeFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Console;
use crate::api::problem;

/// Default and maximum number of messages in an answer; their bodies may be large.
const MESSAGES: usize = 50;
const MOST_MESSAGES: usize = 500;
/// Number of wakes that are summed up per service, and of those that are listed.
const SUMMED: usize = 1000;
const LISTED: usize = 200;
/// Number of audit entries that are looked through.
const AUDITED: usize = 10_000;

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/api/messages", get(messages)).route("/api/wakes", get(wakes)).route("/api/audit", get(audit))
}

/// Selects messages; see [`Browse`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    stream: String,
    subject: Option<String>,
    before: Option<u64>,
    until: Option<Timestamp>,
    having: Option<String>,
    limit: Option<usize>,
}

async fn messages(State(console): State<Arc<Console>>, Query(wanted): Query<Wanted>) -> Result<Json<Page>, Problem> {
    let Wanted { stream, subject, before, until, having, limit } = wanted;
    let having = having.map(|having| having.parse::<Having>()).transpose();
    let having = having.map_err(|why| Problem::bad_request(format!("`having` cannot be read: {why}")))?;
    let limit = limit.unwrap_or(MESSAGES).clamp(1, MOST_MESSAGES);
    let browse = Browse { subject, before, until, having, limit };
    console.operator.browse(&stream, &browse).await.map(Json).map_err(problem)
}

/// Pending wakes of one kind.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sum<'a> {
    service: &'a str,
    kind: &'a str,
    count: usize,
    /// Due before now, and not run.
    overdue: usize,
    earliest: Timestamp,
}

fn sums(wakes: &[PendingWake], now: Timestamp) -> Vec<Sum<'_>> {
    let mut sums: BTreeMap<(&str, &str), Sum<'_>> = BTreeMap::new();
    for PendingWake { service, kind, at, .. } in wakes {
        let new = || Sum { service, kind, count: 0, overdue: 0, earliest: *at };
        let sum = sums.entry((service, kind)).or_insert_with(new);
        sum.count += 1;
        sum.overdue += usize::from(*at < now);
        sum.earliest = sum.earliest.min(*at);
    }
    sums.into_values().collect()
}

async fn wakes(State(console): State<Arc<Console>>, Query(filter): Query<WakeFilter>) -> Result<Json<Value>, Problem> {
    let (wakes, silent) = console.operator.wakes(&filter, SUMMED).await.map_err(problem)?;
    let full = |service: &&str| wakes.iter().filter(|wake| wake.service == **service).count() >= SUMMED;
    let mut more: Vec<&str> = wakes.iter().map(|wake| wake.service.as_str()).collect();
    more.dedup();
    more.sort_unstable();
    more.dedup();
    more.retain(|service| full(service));
    let listed = &wakes[..wakes.len().min(LISTED)];
    let sums = sums(&wakes, Timestamp::system());
    Ok(Json(json!({ "sums": sums, "wakes": listed, "total": wakes.len(), "more": more, "silent": silent })))
}

/// Selects audit entries; what is not given is not filtered by.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entries {
    who: Option<String>,
    action: Option<String>,
    service: Option<String>,
    what: Option<String>,
}

impl Entries {
    fn has(&self, entry: &AuditEntry) -> bool {
        let is = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let begins = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| is.starts_with(&**wanted));
        is(&self.action, &entry.action)
            && is(&self.service, &entry.service)
            && begins(&self.who, &entry.who)
            && begins(&self.what, &entry.what)
    }
}

/// Entries that one person has written of one act, on however many targets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Act<'a> {
    who: &'a str,
    action: &'a str,
    service: &'a str,
    why: &'a str,
    /// The time of its last entry.
    at: Timestamp,
    /// The time of its first.
    began: Timestamp,
    count: usize,
    /// The first of its targets.
    what: Vec<&'a str>,
}

/// Number of targets named for an act.
const NAMED: usize = 50;
/// Number of acts in an answer.
const ACTS: usize = 200;

/// Puts what belongs to one act together: entries of one person, action, service and reason that follow each other.
fn acts<'a>(entries: impl Iterator<Item = &'a AuditEntry>) -> Vec<Act<'a>> {
    let mut acts: Vec<Act<'a>> = vec![];
    for AuditEntry { at, who, action, service, what, why, .. } in entries {
        let same = |act: &&mut Act<'a>| (act.who, act.action, act.service, act.why) == (who, action, service, why);
        match acts.last_mut().filter(same) {
            Some(act) => {
                act.began = *at;
                act.count += 1;
                if act.what.len() < NAMED {
                    act.what.push(what);
                }
            }
            None => acts.push(Act { who, action, service, why, at: *at, began: *at, count: 1, what: vec![what] }),
        }
    }
    acts
}

async fn audit(State(console): State<Arc<Console>>, Query(wanted): Query<Entries>) -> Result<Json<Value>, Problem> {
    let entries = console.operator.audited(AUDITED).await.map_err(problem)?;
    let mut acts = acts(entries.iter().filter(|entry| wanted.has(entry)));
    let total = acts.len();
    acts.truncate(ACTS);
    Ok(Json(json!({ "acts": acts, "total": total, "looked": entries.len() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, who: &str, what: &str) -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(at),
            who: who.into(),
            action: "redrive".into(),
            service: "parcels".into(),
            what: what.into(),
            why: "mended".into(),
            details: Value::Null,
        }
    }

    #[test]
    fn entries_of_one_act_are_one_row_and_another_person_s_are_another() {
        let entries = [entry(3, "ada", "c"), entry(2, "ada", "b"), entry(1, "bob", "a"), entry(0, "ada", "a")];
        let acts = acts(entries.iter());
        let rows: Vec<_> = acts.iter().map(|act| (act.who, act.count, act.what.clone())).collect();
        assert_eq!(rows, [("ada", 2, vec!["c", "b"]), ("bob", 1, vec!["a"]), ("ada", 1, vec!["a"])]);
        let millis = Timestamp::from_millis;
        assert_eq!((acts[0].at, acts[0].began), (millis(3), millis(2)));
    }

    #[test]
    fn entries_are_selected_by_the_beginning_of_a_name_or_target_and_by_the_whole_of_an_action() {
        let has = |wanted: Entries| wanted.has(&entry(0, "ada (console)", "01a2"));
        assert!(has(Entries::default()));
        assert!(has(Entries { who: Some("ada".into()), what: Some("01".into()), ..Entries::default() }));
        assert!(!has(Entries { action: Some("re".into()), ..Entries::default() }));
        assert!(!has(Entries { service: Some("other".into()), ..Entries::default() }));
    }
}
