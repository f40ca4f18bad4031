//! Questions to services: one that all instances answer, one that any replica of a service answers.

use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::event::decode_header;
use crate::operator::{Operator, OperatorError, PATIENCE};

/// How long after an instance's answer another one is waited for.
const QUIET: Duration = Duration::from_millis(300);
/// How long answers of instances are waited for.
const ANSWERS: Duration = Duration::from_secs(1);

/// The headers of an error by the NATS services protocol.
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";

impl Operator {
    /// What all instances answer to a question, however many there are.
    pub(crate) async fn ask_all(&self, subject: &str) -> Result<Vec<Message>, OperatorError> {
        let away = |error: &dyn std::fmt::Display| OperatorError::Away(format!("{subject} cannot be asked: {error}"));
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| away(&error))?;
        let sent = self.client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await;
        sent.map_err(|error| away(&error))?;
        let until = Instant::now() + ANSWERS;
        let mut found = vec![];
        loop {
            // The first answer may take its time: whoever gives it may be busy.
            let quiet = if found.is_empty() { until } else { (Instant::now() + QUIET).min(until) };
            match timeout_at(quiet, answers.next()).await {
                Ok(Some(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => return Ok(found),
                Ok(Some(answer)) => found.push(answer),
                Ok(None) => return Err(away(&"the connection is closed")),
                Err(_) => return Ok(found),
            }
        }
    }

    /// What a service answers to a question, by any of its replicas.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        service: &str,
        subject: String,
        question: &impl Serialize,
    ) -> Result<T, OperatorError> {
        let away = |error: &dyn std::fmt::Display| OperatorError::Away(format!("`{service}` does not answer: {error}"));
        let body = serde_json::to_vec(question).map_err(|error| away(&error))?;
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(PATIENCE));
        let answer = self.client.send_request(subject, request).await.map_err(|error| away(&error))?;
        let header = |name: &str| answer.headers.as_ref()?.get(name).map(|value| decode_header(value.as_str()));
        if let Some(error) = header(ERROR) {
            return Err(match header(ERROR_CODE).as_deref() {
                Some("404") => OperatorError::NotFound(error),
                Some("503") => OperatorError::Away(format!("`{service}` cannot do it now: {error}")),
                _ => OperatorError::Refused(error),
            });
        }
        serde_json::from_slice(&answer.payload).map_err(|error| away(&format!("its answer cannot be read: {error}")))
    }
}
