//! Submitting one order, and cancelling it: tried again under the same key until there is an answer.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::source::Submission;
use crate::dice::Dice;
use crate::ledger::{Line, Status, Unknown};
use crate::wire::{self, Api};

/// What became of a submission.
pub(super) enum Submitted {
    /// The order is durable under this id.
    Accepted { id: String, status: u16, took: Duration, cancel: Option<JoinHandle<Cancelled>> },
    /// The service said no, and why.
    Refused { status: u16, reason: String },
    /// No answer within the time: whether the order exists is unknown.
    Unanswered(String),
}

impl Submitted {
    /// What the ledger says of it, but for key and total.
    pub(super) fn line(&self) -> Line {
        let (id, status) = match self {
            Self::Accepted { id, status, .. } => (Some(id.clone()), Status::Code(*status)),
            Self::Refused { status, .. } => (None, Status::Code(*status)),
            Self::Unanswered(_) => (None, Status::Unknown(Unknown::Unknown)),
        };
        Line { key: String::new(), id, total: None, status }
    }
}

/// What became of a customer's cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    Taken,
    /// The order was confirmed before.
    TooLate,
    Unanswered,
}

#[derive(Deserialize)]
struct Accepted {
    id: String,
}

/// Submits and keeps trying for `patience`. The `Idempotency-Key` makes it one order however often it is sent.
pub(super) async fn submit(api: &Api, key: &str, order: Submission, patience: Duration) -> (Submitted, u32) {
    let started = Instant::now();
    let post = || {
        let request = api.http.post(api.url("/orders")).header("Idempotency-Key", key);
        request.header("Content-Type", "application/json").body(order.body.clone())
    };
    let (answer, retries) = insist(post, patience, key).await;
    let submitted = match answer {
        Ok((status, body)) if status.is_success() => match serde_json::from_slice::<Accepted>(&body) {
            Ok(Accepted { id }) => {
                let took = started.elapsed();
                let cancel =
                    order.cancel_after.map(|after| tokio::spawn(cancel(api.clone(), id.clone(), after, patience)));
                Submitted::Accepted { id, status: status.as_u16(), took, cancel }
            }
            Err(error) => Submitted::Unanswered(format!("{status} without an order's id: {error}")),
        },
        Ok((status, body)) => {
            Submitted::Refused { status: status.as_u16(), reason: format!("{status}: {}", detail(&body)) }
        }
        Err(last) => Submitted::Unanswered(last),
    };
    (submitted, retries)
}

async fn cancel(api: Api, id: String, after: Duration, patience: Duration) -> Cancelled {
    tokio::time::sleep(after).await;
    let post = || api.http.post(api.url(&format!("/orders/{id}/cancel")));
    match insist(post, patience, &id).await.0 {
        Ok((StatusCode::CONFLICT, _)) => Cancelled::TooLate,
        Ok((status, _)) if status.is_success() => Cancelled::Taken,
        _ => Cancelled::Unanswered,
    }
}

/// The text of a problem, or what there is instead.
fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    serde_json::from_slice(body).map_or_else(|_| wire::excerpt(body), |problem: Problem| problem.detail)
}

/// The longest pause between two tries, whatever `Retry-After` says.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sends until there is an answer that is not "later": neither 429 nor 5xx. Returns the last trouble if the time runs out.
async fn insist(
    request: impl Fn() -> reqwest::RequestBuilder,
    patience: Duration,
    salt: &str,
) -> (Result<(StatusCode, Vec<u8>), String>, u32) {
    let deadline = Instant::now() + patience;
    let mut dice = Dice::new(salt.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into())));
    let mut retries = 0;
    loop {
        let (trouble, asked) = match once(request()).await {
            Ok((status, body, _)) if !is_later(status) => return (Ok((status, body)), retries),
            Ok((status, body, after)) => (format!("{status}: {}", detail(&body)), after),
            Err(error) => (format!("{:#}", anyhow::Error::from(error.without_url())), None),
        };
        // Doubling from 50 ms, spread by half, so that those who were turned away together do not come back together.
        let backoff = Duration::from_millis(50 << retries.min(6)).mul_f64(0.5 + dice.roll());
        let pause = asked.map_or(backoff, |asked| asked.mul_f64(1.0 + 0.2 * dice.roll())).min(LONGEST_PAUSE);
        if Instant::now() + pause >= deadline {
            return (Err(trouble), retries);
        }
        tokio::time::sleep(pause).await;
        retries += 1;
    }
}

fn is_later(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

async fn once(request: reqwest::RequestBuilder) -> reqwest::Result<(StatusCode, Vec<u8>, Option<Duration>)> {
    let answer = request.send().await?;
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let (status, after) = (answer.status(), seconds.map(Duration::from_secs));
    Ok((status, answer.bytes().await?.to_vec(), after))
}
