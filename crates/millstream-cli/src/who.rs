//! Who acts, unless they say so themselves.

use std::env;
use std::fs;

/// The user and the host that this runs on: `ada@laptop`.
pub(crate) fn who() -> String {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = set("USER").or_else(|| set("LOGNAME")).unwrap_or_else(|| "somebody".into());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let host = host.or_else(|| set("HOSTNAME")).unwrap_or_else(|| "somewhere".into());
    format!("{user}@{host}")
}
