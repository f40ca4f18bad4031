//! A watched document as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;

use super::problem::Problem;
use crate::handler::Document;
use crate::watch::{Watch, WatchError};

/// How long a client waits before it comes again after a break.
const RETRY: Duration = Duration::from_secs(1);
/// How often a comment tells both ends that the connection still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `Last-Event-ID`: what a client that comes again has seen. An extractor; what is no id of ours counts as none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(pub Option<u64>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
        Ok(Self(id))
    }
}

impl<D: Document> Watch<D> {
    /// Answers with the document as it stands and then each of its changes, as events of a name with the version as id and the
    /// document as data. The answer ends after a document that is the `last`, and when the service stops.
    ///
    /// What was `seen` is not repeated. A client that has seen the last one is answered with 204, which tells it not to come again.
    pub fn events(mut self, name: &'static str, seen: LastEventId, last: fn(&D) -> bool) -> Response {
        // Versions only rise: a higher one than there is was not seen here.
        let version = self.present.as_ref().map_or(0, |doc| doc.version);
        let seen = seen.0.filter(|seen| *seen <= version).unwrap_or_default();
        let stands = self.present.as_ref().and_then(|doc| crate::commands::read::<D>(doc).ok());
        if seen == version && stands.is_some_and(|document| last(&document)) {
            return StatusCode::NO_CONTENT.into_response();
        }
        self.told = seen;
        let first = Some(Event::default().retry(RETRY));
        let events = unfold((self, first, false), move |(mut watch, first, over)| async move {
            if let Some(event) = first {
                return Some((Ok::<_, axum::Error>(event), (watch, None, over)));
            }
            if over {
                return None;
            }
            let news = watch.next().await?;
            let event = Event::default().event(name).id(news.version.to_string()).json_data(&news.document);
            Some((event, (watch, None, last(&news.document))))
        });
        let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
        // Some proxies would keep events back until there are many.
        ([("x-accel-buffering", "no")], events).into_response()
    }
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Store(error) => error.into(),
            WatchError::TooMany(_) | WatchError::Stopping => Self::unavailable(error.to_string()),
        }
    }
}
