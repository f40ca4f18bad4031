//! Errors as callers see them: RFC 9457, with the correlation id, without internals.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use problem_details::ProblemDetails;
use serde::Serialize;

use crate::commands::CommandError;
use crate::handler::{FieldError, Reject};
use crate::store::StoreError;

/// An RFC 9457 answer, `application/problem+json`; the correlation id is added on the way out. A 503 asks to be tried again
/// after a second, and a 401 for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status, 4xx or 5xx.
    pub status: StatusCode,
    /// What is wrong and what would be right.
    pub detail: String,
    /// The fields at fault.
    pub errors: Vec<FieldError>,
}

/// The members that RFC 9457 leaves to us.
#[derive(Serialize)]
struct Members<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(rename = "correlationId", skip_serializing_if = "Option::is_none")]
    correlation: Option<&'a str>,
}

impl Problem {
    /// A problem that is about no field.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: vec![] }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 422: the request can be read, and breaks rules.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 503: not now; the caller is asked to try again after a second.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 500, without a word about why: that is in the log.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error: this is the service's fault; its log has the cause under the correlation id",
        )
    }

    /// With one field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
        self
    }

    /// With fields at fault.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        self.errors.extend(errors);
        self
    }

    pub(super) fn render(&self, correlation: Option<&str>) -> Response {
        let mut response = ProblemDetails::from_status_code(self.status)
            .with_detail(self.detail.as_str())
            .with_extensions(Members { errors: &self.errors, correlation })
            .into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        // The shell, which knows the correlation id, writes it again.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Reject> for Problem {
    fn from(reject: Reject) -> Self {
        let status = StatusCode::from_u16(reject.status).ok().filter(StatusCode::is_client_error);
        let status = status.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
        Self { status, detail: reject.detail, errors: reject.errors }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let status = match &error {
            CommandError::Rejected(_) | CommandError::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            CommandError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            CommandError::Unavailable(_) | CommandError::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
            CommandError::Panicked | CommandError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match error {
            CommandError::Rejected(reject) => reject.into(),
            CommandError::Panicked => Self::internal(),
            CommandError::Unreadable(error) => {
                tracing::error!(error, "a reply is not of the type expected");
                Self::internal()
            }
            other => Self::new(status, other.to_string()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a request could not be answered from the store");
        Self::unavailable("the service's database does not answer: try again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_error_has_its_status_and_leaks_nothing() {
        let reject = |status| Reject { status, detail: "no".into(), errors: vec![] };
        for (error, status) in [
            (CommandError::Rejected(reject(409)), 409),
            (CommandError::Rejected(reject(200)), 422),
            (CommandError::KeyReused, 422),
            (CommandError::TooLarge("too large".into()), 413),
            (CommandError::Unavailable("the broker is away".into()), 503),
            (CommandError::OutcomeUnknown, 503),
            (CommandError::Panicked, 500),
            (CommandError::Unreadable("missing field".into()), 500),
        ] {
            let text = error.to_string();
            let problem = Problem::from(error);
            assert_eq!(problem.status.as_u16(), status, "{text}");
            let retry = problem.into_response().headers().get(RETRY_AFTER).cloned();
            assert_eq!(retry.is_some(), status == 503, "{text}");
        }
        let problem = Problem::from(CommandError::OutcomeUnknown);
        assert_eq!(problem.detail, "outcome unknown: repeat with the same Idempotency-Key");
        let problem = Problem::from(StoreError::new("/var/orders.db: disk I/O error"));
        assert!(problem.status == StatusCode::SERVICE_UNAVAILABLE && !problem.detail.contains("/var"));
    }
}
