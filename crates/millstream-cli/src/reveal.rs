//! Personal fields are masked; revealing them needs a reason and is audited first.

use anyhow::Result;
use clap::Args;
use millstream::Timestamp;
use millstream::operator::audit::AuditEntry;
use millstream::operator::{By, Operator};
use serde_json::json;

use crate::who::{text, who};

/// Whether personal fields are shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reveal {
    /// Show personal fields unmasked; this is audited
    #[arg(long, requires = "why")]
    pub(crate) reveal: bool,
    /// Reason for revealing them, recorded in the audit log
    #[arg(long, requires = "reveal", value_parser = text)]
    why: Option<String>,
    /// Name recorded in the audit log
    #[arg(long, default_value_t = who(), value_parser = text)]
    who: String,
}

impl Reveal {
    /// Audits that personal fields are revealed, if they are, before anything is shown.
    pub(crate) async fn audit(&self, operator: &Operator, command: &str, service: &str, what: &str) -> Result<()> {
        if let Some(why) = &self.why {
            let by = By { who: self.who.clone(), why: why.clone() };
            revealed(operator, command, service, what, &by).await?;
        }
        Ok(())
    }
}

/// Audits that personal fields are revealed.
pub(crate) async fn revealed(operator: &Operator, command: &str, service: &str, what: &str, by: &By) -> Result<()> {
    let By { who, why } = by.clone();
    let entry = AuditEntry {
        at: Timestamp::system(),
        who,
        action: "reveal".into(),
        service: service.into(),
        what: what.into(),
        why,
        details: json!({ "command": command }),
    };
    Ok(operator.audit(&[entry]).await?)
}
