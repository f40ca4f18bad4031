//! The HTTP face that every service has.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::commands::{Caller, CommandError};
use crate::handler::FieldError;
use crate::store::StoreError;

/// An RFC 9457 answer, `application/problem+json`; the correlation id is added on the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status, 4xx or 5xx.
    pub status: StatusCode,
    /// What is wrong and what would be right.
    pub detail: String,
    /// The fields at fault.
    pub errors: Vec<FieldError>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.status.into_response()
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail: error.to_string(), errors: vec![] }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail: error.to_string(), errors: vec![] }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self::default())
    }
}
