//! Personal fields are shown masked; whoever wants to see them says why, and that is audited first.

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
    /// Shows personal fields too, which is audited
    #[arg(long, requires = "why")]
    pub(crate) reveal: bool,
    /// Why they are looked at
    #[arg(long, requires = "reveal", value_parser = text)]
    why: Option<String>,
    /// Who you are
    #[arg(long, default_value_t = who(), value_parser = text)]
    who: String,
}

impl Reveal {
    /// Writes down that personal fields are looked at, if they are; nothing is shown before.
    pub(crate) async fn audit(&self, operator: &Operator, command: &str, service: &str, what: &str) -> Result<()> {
        if let Some(why) = &self.why {
            let by = By { who: self.who.clone(), why: why.clone() };
            revealed(operator, command, service, what, &by).await?;
        }
        Ok(())
    }
}

/// Writes down that somebody looks at personal fields.
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
