//! The page's actions. Each is one call of the operator's library, which writes to the audit log before it acts.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use millstream::dead_letter::stream_name;
use millstream::http::{Body, NoBody, Problem};
use millstream::operator::audit::AuditEntry;
use millstream::operator::dead::{DeadFilter, Edited, Outcome, Progress, Redrive, Report};
use millstream::operator::personal::MASK;
use millstream::operator::read::ReadFrom;
use millstream::operator::wakes::{PendingWake, WakeAct};
use millstream::operator::{By, OperatorError};
use millstream::terminal::steers;
use millstream::{Id, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::Console;
use crate::api::{letter, problem};

/// Time limit for a demo request.
const DEMO: Duration = Duration::from_secs(10);
/// Maximum number of failed dead letters named in an answer.
const NAMED: usize = 200;
/// Maximum number of dead letters of a dry run named in an answer.
const TRIED: usize = 20;
/// Maximum length of a demo's answer that is shown.
const ANSWER: usize = 2000;
/// The longest name of an actor, and the longest reason.
const WHO: usize = 64;
const WHY: usize = 500;

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/api/dead/redrive", post(redrive))
        .route("/api/dead/discard", post(discard))
        .route("/api/dead/edit", post(edit))
        .route("/api/wakes", post(wake))
        .route("/api/reveal", post(reveal))
        .route("/api/demo/{index}", post(demo))
}

/// The operator's name and reason.
fn by(who: &str, why: &str) -> Result<By, Problem> {
    let (who, why) = (who.trim(), why.trim());
    let fits = |text: &str, most| (1..=most).contains(&text.chars().count()) && !text.chars().any(steers);
    let problem =
        |field, wanted| Err(Problem::unprocessable(format!("`{field}` is missing: {wanted}")).at(field, wanted));
    if !fits(who, WHO) {
        return problem("who", "give your name, up to 64 characters");
    }
    if !fits(why, WHY) {
        return problem("why", "give a reason, one line of up to 500 characters");
    }
    Ok(By { who: format!("{who} (console)"), why: why.into() })
}

/// An action on dead letters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Many {
    filter: DeadFilter,
    #[serde(default)]
    dry_run: bool,
    /// Include those that have failed again too often.
    #[serde(default)]
    force: bool,
    /// Go step by step, and stop at the first that fails again.
    #[serde(default)]
    canary: bool,
    #[serde(default)]
    who: String,
    #[serde(default)]
    why: String,
}

impl Many {
    fn by(&self) -> Result<By, Problem> {
        // A dry run needs no reason.
        if self.dry_run { by("-", "dry run") } else { by(&self.who, &self.why) }
    }
}

async fn redrive(State(console): State<Arc<Console>>, Body(many): Body<Many>) -> Result<Response, Problem> {
    let by = many.by()?;
    let how = Redrive { force: many.force, canary: many.canary, dry_run: many.dry_run, ..Redrive::default() };
    Ok(told_as_it_goes(async move |progress: watch::Sender<Progress>| {
        let tell = move |now| {
            progress.send_replace(now);
        };
        console.operator.redrive(&many.filter, &how, &by, tell).await
    }))
}

async fn discard(State(console): State<Arc<Console>>, Body(many): Body<Many>) -> Result<Response, Problem> {
    let by = many.by()?;
    Ok(told_as_it_goes(async move |progress: watch::Sender<Progress>| {
        let tell = move |now| {
            progress.send_replace(now);
        };
        let limit = Redrive::default().limit;
        console.operator.discard(&many.filter, limit, many.dry_run, &by, tell).await
    }))
}

/// Runs a long action and answers with one line of JSON per step: `progress`, and finally `report` or
/// `error`. The action continues if the client disconnects.
fn told_as_it_goes<F>(work: impl FnOnce(watch::Sender<Progress>) -> F) -> Response
where
    F: Future<Output = Result<Report, OperatorError>> + Send + 'static,
{
    let (progress_tx, progress) = watch::channel(Progress::default());
    let (end_tx, end) = oneshot::channel();
    let work = work(progress_tx);
    tokio::spawn(async move {
        let ended = work.await;
        if let Err(error) = &ended {
            tracing::warn!(%error, "an action on dead letters failed");
        }
        drop(end_tx.send(ended));
    });
    let lines = stream::unfold(Some((progress, end)), async |state| {
        let (mut progress, mut end) = state?;
        let moved = tokio::select! {
            biased;
            Ok(()) = progress.changed() => Some(*progress.borrow_and_update()),
            ended = &mut end => return Some((line(&last_line(ended.ok())), None)),
        };
        // Steps in quick succession are merged.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((line(&json!({ "progress": moved })), Some((progress, end))))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Answer::from_stream(lines)).into_response()
}

fn line(value: &Value) -> Result<Bytes, std::convert::Infallible> {
    Ok(format!("{value}\n").into())
}

fn last_line(ended: Option<Result<Report, OperatorError>>) -> Value {
    match ended {
        Some(Ok(report)) => {
            let odd = report.fates.iter().filter(|fate| !matches!(fate.outcome, Outcome::Done | Outcome::WouldGo));
            let odd: Vec<_> = odd.take(NAMED).collect();
            // The failures first.
            let mut tried: Vec<_> = report.fates.iter().filter(|fate| fate.dry_run.is_some()).collect();
            tried.sort_by_key(|fate| Reverse(fate.dry_run.as_ref().map(|dry_run| dry_run.end)));
            let number = tried.len();
            tried.truncate(TRIED);
            let dry_runs = json!({ "ends": report.dry_ends(), "total": number, "fates": tried });
            json!({ "report": { "counts": report.counts, "fates": odd, "dryRuns": dry_runs } })
        }
        Some(Err(error)) => json!({ "error": error.to_string() }),
        None => json!({ "error": "interrupted: see the console's log, and try again" }),
    }
}

/// The edited copy of a dead letter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Edit {
    service: String,
    id: Id,
    payload: String,
    who: String,
    why: String,
}

async fn edit(State(console): State<Arc<Console>>, Body(edit): Body<Edit>) -> Result<Json<Edited>, Problem> {
    let by = by(&edit.who, &edit.why)?;
    let wrong = |what: String| Problem::unprocessable(format!("`payload` {what}")).at("payload", what);
    let original = letter(&console, &edit.service, edit.id).await?;
    if serde_json::from_slice::<Value>(&original.payload).is_ok() {
        serde_json::from_str::<Value>(&edit.payload).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    }
    if edit.payload.contains(MASK) && !String::from_utf8_lossy(&original.payload).contains(MASK) {
        return Err(wrong("contains masked values, which would be sent literally: reveal them first".into()));
    }
    let edited = console.operator.edit(&edit.service, edit.id, edit.payload.into(), &by).await;
    edited.map(Json).map_err(problem)
}

/// An action on a wake, which is identified by its state when it was shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wake {
    wake: PendingWake,
    act: WakeAct,
    who: String,
    why: String,
}

async fn wake(State(console): State<Arc<Console>>, Body(asked): Body<Wake>) -> Result<Json<PendingWake>, Problem> {
    let by = by(&asked.who, &asked.why)?;
    // The audit is written before the act, and is not to have what was made up.
    let service = &asked.wake.service;
    let letters = stream_name(service);
    console.operator.first(&letters, ">", ReadFrom::Sequence(1)).await.map_err(|error| match error {
        OperatorError::NotFound(_) => {
            Problem::not_found(format!("there is no service `{service}`")).at("wake.service", "is not known")
        }
        other => problem(other),
    })?;
    let acted = console.operator.act_on(&asked.wake, asked.act, &by).await;
    acted.map(Json).map_err(problem)
}

/// The body to reveal: a dead letter's, by `service` and `id`, or an event's, by `stream` and `sequence`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reveal {
    service: Option<String>,
    id: Option<Id>,
    stream: Option<String>,
    sequence: Option<u64>,
    who: String,
    why: String,
}

async fn reveal(State(console): State<Arc<Console>>, Body(asked): Body<Reveal>) -> Result<Json<Value>, Problem> {
    let by = by(&asked.who, &asked.why)?;
    let (service, what, payload) = match asked {
        Reveal { service: Some(service), id: Some(id), .. } => {
            let payload = letter(&console, &service, id).await?.payload;
            (service, id.to_string(), payload)
        }
        Reveal { stream: Some(stream), sequence: Some(sequence), .. } => {
            let found = console.operator.first(&stream, ">", ReadFrom::Sequence(sequence)).await.map_err(problem)?;
            let found = found.filter(|stored| stored.sequence == sequence);
            let found =
                found.ok_or_else(|| Problem::not_found(format!("{stream} no longer has message {sequence}")))?;
            let service = found.header(millstream::event::header::SOURCE).unwrap_or_else(|| "unknown".into());
            let id = found.id().map_or_else(|| format!("{stream}:{sequence}"), |id| id.to_string());
            (service, id, found.payload)
        }
        _ => return Err(Problem::bad_request("give either `service` and `id`, or `stream` and `sequence`")),
    };
    let entry = AuditEntry {
        at: Timestamp::system(),
        who: by.who,
        action: "reveal".into(),
        service,
        what,
        why: by.why,
        details: Value::Null,
    };
    console.operator.audit(&[entry]).await.map_err(problem)?;
    Ok(Json(json!({ "payload": String::from_utf8_lossy(&payload) })))
}

async fn demo(
    State(console): State<Arc<Console>>,
    Path(index): Path<usize>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let action = console.demo.get(index).ok_or_else(|| Problem::not_found("no such action"))?;
    let method = action.method.parse().map_err(|_| Problem::bad_request("the action's HTTP method is invalid"))?;
    let mut request = console.http.request(method, &action.url).timeout(DEMO);
    if let Some(body) = &action.body {
        request = request.json(body);
    }
    let away = |error: reqwest::Error| {
        let why = if error.is_timeout() { "did not answer in time" } else { "is unreachable" };
        tracing::warn!(error = %error.without_url(), action = action.label, "a demo action failed");
        Problem::new(StatusCode::BAD_GATEWAY, format!("`{}`: the server {why}", action.label))
    };
    let answer = request.send().await.map_err(away)?;
    let status = answer.status().as_u16();
    // The id of what was created is the last segment of its location.
    let made = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok()?.rsplit('/').next());
    let made = made.map(str::to_owned);
    let text: String = answer.text().await.map_err(away)?.chars().take(ANSWER).collect();
    Ok(Json(json!({ "status": status, "made": made, "answer": text })))
}
