//! Who did what, when and why. An entry is stored before the act, so that nothing is done that nobody answers for.

use std::ops::ControlFlow;

use async_nats::header::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde::{Deserialize, Serialize};

use crate::dead_letter::subject_token;
use crate::declare::{declare_ownerless, limits};
use crate::ids::{Id, Timestamp};
use crate::operator::read::ReadFrom;
use crate::operator::{By, Operator, OperatorError, WINDOW};

/// The stream of audit entries; `audit.<service>.<action>.<subject's id>`.
pub const STREAM: &str = "AUDIT";
/// How large it may become in bytes.
pub const MAX_BYTES: u64 = 1 << 30;

/// What was about to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// `redrive`, `edit`, `discard`, `move`, `fire`, `cancel`, `reveal`.
    pub action: String,
    /// The service it is done to.
    pub service: String,
    /// What it is done to: the id of a dead letter, or a wake's `collection/document`.
    pub what: String,
    /// Why, in the actor's own words.
    pub why: String,
    /// More of it: the redrive's number, the new time of a wake, the difference that an edit makes.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

impl Operator {
    /// Stores entries, and returns when the broker has them all.
    ///
    /// # Errors
    /// When an actor's name or reason is not one line of text, or the broker does not take them; then nothing may be done.
    pub async fn audit(&self, entries: &[AuditEntry]) -> Result<(), OperatorError> {
        for AuditEntry { who, why, .. } in entries {
            By { who: who.clone(), why: why.clone() }.check()?;
        }
        let declared = declare_ownerless(&self.jetstream, stream()).await;
        declared.map_err(|error| OperatorError::Away(format!("the audit cannot be written: {error}")))?;
        for window in entries.chunks(WINDOW) {
            let messages = window.iter().map(|entry| {
                let tokens = [&entry.service, &entry.action, &entry.what].map(|token| subject_token(token));
                let payload = serde_json::to_vec(entry).unwrap_or_default();
                (format!("audit.{}", tokens.join(".")), HeaderMap::new(), payload.into())
            });
            for stored in self.store_all(messages, || ()).await {
                stored.map_err(|error| OperatorError::Away(format!("the audit cannot be written: {}", error.why())))?;
            }
        }
        Ok(())
    }

    /// The last entries, the newest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn audited(&self, limit: usize) -> Result<Vec<AuditEntry>, OperatorError> {
        let info = match self.jetstream.get_stream(STREAM).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    return Ok(vec![]);
                }
                _ => return Err(OperatorError::Away(format!("the audit cannot be read: {error}"))),
            },
        };
        let from = (info.state.last_sequence + 1).saturating_sub(limit as u64);
        let mut entries = self.audit_of("audit.>", from).await?;
        entries.reverse();
        entries.truncate(limit);
        Ok(entries)
    }

    /// The entries about one dead letter, the oldest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn audited_about(&self, id: Id) -> Result<Vec<AuditEntry>, OperatorError> {
        match self.audit_of(&format!("audit.*.*.{id}"), 1).await {
            Err(OperatorError::NotFound(_)) => Ok(vec![]),
            read => read,
        }
    }

    async fn audit_of(&self, filter: &str, from: u64) -> Result<Vec<AuditEntry>, OperatorError> {
        let mut entries = vec![];
        self.read(STREAM, filter, ReadFrom::Sequence(from), |stored| {
            // Whatever else lies there is no entry.
            entries.extend(serde_json::from_slice::<AuditEntry>(&stored.payload));
            ControlFlow::Continue(())
        })
        .await?;
        Ok(entries)
    }
}

/// The stream of what operators do, which forgets the oldest when it is full.
pub(crate) fn stream() -> Config {
    let mut wanted = limits(STREAM, "audit.>".into());
    wanted.max_bytes = MAX_BYTES as i64;
    wanted.discard = DiscardPolicy::Old;
    wanted
}
