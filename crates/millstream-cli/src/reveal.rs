//! Personal fields are shown masked; whoever wants to see them says why, and that is audited first.

use anyhow::Result;
use clap::Args;
use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::audit::AuditEntry;
use serde_json::json;

use crate::who::who;

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
    pub(crate) async fn audit(&self, operator: &Operator, command: &str, what: &str) -> Result<()> {
        if let Some(why) = &self.why {
            let entry = AuditEntry {
                at: Timestamp::system(),
                who: self.who.clone(),
                action: "reveal".into(),
                service: "all".into(),
                what: what.into(),
                why: why.clone(),
                details: json!({ "command": command }),
            };
            operator.audit(&[entry]).await?;
        }
        Ok(())
    }
}

/// A text that says something.
pub(crate) fn text(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say something".into()) } else { Ok(text.into()) }
}
