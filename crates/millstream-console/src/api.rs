//! The page's queries.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use millstream::Id;
use millstream::http::{Problem, Query};
use millstream::operator::OperatorError;
use millstream::operator::dead::{DeadFilter, DeadLetter};
use millstream::operator::exact::Exact;
use millstream::operator::personal::MASK;
use millstream::operator::trace::{Look, Trace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Console;

/// Default number of rows in an answer.
const PAGE: usize = 100;
/// Maximum number of rows in an answer.
const LARGEST_PAGE: usize = 10_000;

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/api/trace/{id}", get(trace))
        .route("/api/dead", get(groups))
        .route("/api/dead/list", get(list))
        .route("/api/dead/{service}/{id}", get(record))
        .route("/api/system", get(system))
}

/// The HTTP answer for an operator error.
pub(crate) fn problem(error: OperatorError) -> Problem {
    match error {
        OperatorError::Away(why) => Problem::unavailable(why),
        OperatorError::NotFound(why) => Problem::not_found(why),
        OperatorError::Refused(why) => Problem::new(axum::http::StatusCode::CONFLICT, why),
    }
}

async fn trace(State(console): State<Arc<Console>>, Path(id): Path<String>) -> Result<Json<Trace>, Problem> {
    let mut trace = console.operator.trace(&id, Look::default()).await.map_err(problem)?;
    trace.events.iter_mut().for_each(|traced| traced.event.mask());
    Ok(Json(trace))
}

/// Selects dead letters; see [`DeadFilter`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    service: Option<String>,
    event: Option<String>,
    reason: Option<String>,
    fingerprint: Option<String>,
    key: Option<String>,
    correlation: Option<String>,
    all: bool,
    offset: usize,
    limit: Option<usize>,
}

impl Wanted {
    fn filter(self) -> DeadFilter {
        let Self { service, event, reason, fingerprint, key, correlation, all, .. } = self;
        DeadFilter { service, event, reason, fingerprint, key, correlation, all, ..DeadFilter::default() }
    }
}

async fn groups(State(console): State<Arc<Console>>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, Problem> {
    let filter = wanted.filter();
    let mut letters = console.letters.lock().await;
    letters.update(&console.operator).await.map_err(problem)?;
    let groups = letters.groups(&filter);
    let (count, redriving) =
        groups.iter().fold((0, 0), |(count, redriving), group| (count + group.count, redriving + group.redriving));
    Ok(Json(json!({ "groups": groups, "count": count, "redriving": redriving })))
}

async fn list(State(console): State<Arc<Console>>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, Problem> {
    let (offset, limit) = (wanted.offset, wanted.limit.unwrap_or(PAGE).min(LARGEST_PAGE));
    let filter = wanted.filter();
    let mut letters = console.letters.lock().await;
    letters.update(&console.operator).await.map_err(problem)?;
    let all = letters.list(&filter);
    // The newest are the most interesting.
    let page: Vec<&DeadLetter> = all.iter().rev().skip(offset).take(limit).copied().collect();
    Ok(Json(json!({ "letters": page, "total": all.len() })))
}

/// A dead letter with all its details.
#[derive(Serialize)]
pub(crate) struct Record {
    letter: DeadLetter,
    headers: Vec<(String, String)>,
    payload: String,
    /// Whether personal values are masked.
    masked: bool,
    audit: Vec<millstream::operator::audit::AuditEntry>,
    /// Why the audit log cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

async fn record(
    State(console): State<Arc<Console>>,
    Path((service, id)): Path<(String, Id)>,
) -> Result<Json<Record>, Problem> {
    let letter = letter(&console, &service, id).await?;
    let (audit, trouble) = match console.operator.audited_about(id).await {
        Ok(audit) => (audit, None),
        Err(error) => (vec![], Some(error.to_string())),
    };
    let (payload, masked) = masked(&letter);
    Ok(Json(Record { headers: letter.headers.clone(), payload, masked, audit, trouble, letter }))
}

/// The current state of a dead letter.
pub(crate) async fn letter(console: &Console, service: &str, id: Id) -> Result<DeadLetter, Problem> {
    let mut letters = console.letters.lock().await;
    letters.update(&console.operator).await.map_err(problem)?;
    let found = letters.get(service, id).cloned();
    found.ok_or_else(|| Problem::not_found(format!("{service} has no dead letter {id}; it may have expired")))
}

/// A dead letter's body as a text without personal values, and whether there were any.
fn masked(letter: &DeadLetter) -> (String, bool) {
    let text = || String::from_utf8_lossy(&letter.payload).into_owned();
    if letter.personal.is_empty() {
        return (text(), false);
    }
    let Ok(mut body) = Exact::read(&letter.payload) else {
        // An unreadable body may contain personal data anywhere.
        return (format!("{MASK} ({} bytes, not JSON)", letter.payload.len()), true);
    };
    if body.mask(&letter.personal) { (body.to_string(), true) } else { (text(), false) }
}

async fn system(State(console): State<Arc<Console>>) -> Json<Value> {
    let (status, trouble) = match console.operator.status().await {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(format!("streams, consumers, instances: {error}"))),
    };
    Json(json!({ "status": status, "troubles": trouble.as_slice() }))
}
