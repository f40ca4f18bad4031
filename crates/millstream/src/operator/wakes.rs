//! What services will do later: deadlines, charges, refunds, mails, and their retries. Asked of the services, and executed by
//! them as commands.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answers::{ActQuestion, Asked, WakesQuestion};
use crate::discovery::subject;
use crate::ids::Timestamp;
use crate::operator::audit::AuditEntry;
use crate::operator::{By, Operator, OperatorError};

/// A wake that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingWake {
    /// The service.
    pub service: String,
    /// The collection of its document.
    pub collection: String,
    /// The document's id.
    pub document: String,
    /// What it is for: `deadline`, `charge`.
    pub kind: String,
    /// When it was set.
    pub opened: Timestamp,
    /// When it is due.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempt: u32,
    /// Until when the instance that tries it has it to itself; none while no attempt is under way.
    #[serde(default)]
    pub lease: Option<Timestamp>,
    /// Tells one wake of a document from the next.
    pub generation: u64,
    /// Whether it may be cancelled.
    pub cancellable: bool,
    /// The correlation id of what set it.
    pub correlation: String,
}

/// What is done to a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum WakeAct {
    /// It is due at another time.
    Move {
        /// When.
        to: Timestamp,
    },
    /// It is due now.
    Fire,
    /// It is not due any more. Only what its kind allows: a deadline, never a charge that may have been sent.
    Cancel,
}

/// Which wakes are meant; what is not named is not filtered by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WakeFilter {
    /// Of this service.
    pub service: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this document.
    pub document: Option<String>,
}

impl Operator {
    /// What waits, the earliest first, at most `limit` for each service; and the services that did not answer.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn wakes(
        &self,
        filter: &WakeFilter,
        limit: usize,
    ) -> Result<(Vec<PendingWake>, Vec<String>), OperatorError> {
        let services = match &filter.service {
            Some(service) => vec![service.clone()],
            None => self.status().await?.services().into_iter().collect(),
        };
        Ok(self.wakes_of(&services, filter, limit).await)
    }

    /// The same of these services.
    pub(crate) async fn wakes_of(
        &self,
        services: &[String],
        filter: &WakeFilter,
        limit: usize,
    ) -> (Vec<PendingWake>, Vec<String>) {
        let WakeFilter { kind, document, .. } = filter.clone();
        let question = WakesQuestion { kind, document, limit: Some(limit) };
        let answers = services.iter().map(|service| {
            let subject = subject(Asked::Wakes.name(), service);
            self.ask::<Vec<PendingWake>>(service, subject, &question)
        });
        let answers = futures_util::future::join_all(answers).await;
        let (mut wakes, mut silent) = (vec![], vec![]);
        for (service, answer) in services.iter().zip(answers) {
            match answer {
                Ok(found) => wakes.extend(found),
                Err(error) => {
                    tracing::debug!(service, %error, "wakes are not known");
                    silent.push(service.clone());
                }
            }
        }
        wakes.sort_by(|one, other| (one.at, &one.service).cmp(&(other.at, &other.service)));
        (wakes, silent)
    }

    /// Does something to a wake, if it is still as it was seen.
    ///
    /// # Errors
    /// When it has changed meanwhile, its kind does not allow it, or its service does not answer.
    pub async fn act_on(&self, wake: &PendingWake, act: WakeAct, by: &By) -> Result<PendingWake, OperatorError> {
        let to = if let WakeAct::Move { to } = act { Some(to) } else { None };
        let entry = AuditEntry {
            at: Timestamp::system(),
            who: by.who.clone(),
            action: act.name().into(),
            service: wake.service.clone(),
            what: format!("{}/{}", wake.collection, wake.document),
            why: by.why.clone(),
            details: json!({
                "kind": wake.kind, "generation": wake.generation, "attempt": wake.attempt, "from": wake.at, "to": to
            }),
        };
        self.audit(&[entry]).await?;
        let question = ActQuestion {
            collection: wake.collection.clone(),
            document: wake.document.clone(),
            kind: wake.kind.clone(),
            generation: wake.generation,
            attempt: wake.attempt,
            act,
            who: by.who.clone(),
            why: by.why.clone(),
        };
        self.ask(&wake.service, subject(Asked::Act.name(), &wake.service), &question).await
    }
}

impl WakeAct {
    /// As the audit names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Move { .. } => "move",
            Self::Fire => "fire",
            Self::Cancel => "cancel",
        }
    }
}
