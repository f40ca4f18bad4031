//! The operator's name and reason.

use std::env;
use std::fs;

use clap::Args;
use millstream::operator::By;

/// The operator's name and reason.
#[derive(Args, Clone, Debug)]
pub(crate) struct Actor {
    /// Reason, recorded in the audit log
    #[arg(long, value_parser = text)]
    why: String,
    /// Name recorded in the audit log
    #[arg(long, default_value_t = who(), value_parser = text)]
    who: String,
}

impl From<Actor> for By {
    fn from(Actor { why, who }: Actor) -> Self {
        Self { who, why }
    }
}

/// A name or a reason that can stand in the audit.
pub(crate) fn text(text: &str) -> Result<String, String> {
    let text = text.trim();
    let by = By { who: "-".into(), why: text.into() };
    by.check().map(|()| text.into()).map_err(|_| "expected one line of text, without control characters".into())
}

/// User and host of this process: `ada@laptop`.
pub(crate) fn who() -> String {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = set("USER").or_else(|| set("LOGNAME")).unwrap_or_else(|| "somebody".into());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let host = host.or_else(|| set("HOSTNAME")).unwrap_or_else(|| "somewhere".into());
    format!("{user}@{host}")
}
