//! What services will do later: deadlines, charges, refunds, mails, and their retries. Asked of the services, and executed by
//! them as commands.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ids::Timestamp;
use crate::operator::audit::AuditEntry;
use crate::operator::{By, Operator, OperatorError};
use crate::protocol::{ActQuestion, Asked, WakesQuestion, subject};
pub use crate::protocol::{PendingWake, WakeAct};

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
