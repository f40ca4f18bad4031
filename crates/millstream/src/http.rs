//! The HTTP face that every service has.

use axum::extract::{FromRequest, FromRequestParts, Request};
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

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bad = |detail: String| Problem { status: StatusCode::BAD_REQUEST, detail, errors: vec![] };
        let bytes = bytes::Bytes::from_request(request, state).await.map_err(|error| bad(error.to_string()))?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut json).map(Self).map_err(|error| bad(error.to_string()))
    }
}
