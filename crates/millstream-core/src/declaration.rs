//! What a service needs of the broker, as a value: the streams that it owns, and those that it reads.
//!
//! A service prints it (`--declare`), and `millstream declare` makes of the declarations of a release what must be there before its
//! services start. What each user may do at the broker follows from the same value: see [`rights`](crate::rights).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dead_letter;
use crate::event::Stream;
use crate::server::MOST;

/// What a service needs of the broker. The stream of its dead letters follows from its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declaration {
    /// The service's name.
    pub service: String,
    /// Its release, a semantic version.
    pub release: String,
    /// The streams of its events.
    pub publishes: Vec<Published>,
    /// The streams that it reads.
    pub reads: Vec<Read>,
    /// How many servers of a cluster keep each of its streams; `None` leaves that to whoever makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<usize>,
}

impl fmt::Display for Declaration {
    /// As JSON, in lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?)
    }
}

/// A stream of events, which one service owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Published {
    /// The stream's name.
    pub stream: String,
    /// The first token of its subjects.
    pub domain: String,
    /// How many partitions a key is hashed onto.
    pub partitions: u32,
    /// Its size limit in bytes.
    pub max_bytes: u64,
}

impl From<&Stream> for Published {
    fn from(stream: &Stream) -> Self {
        let Stream { name, domain, partitions, max_bytes } = *stream;
        Self { stream: name.into(), domain: domain.into(), partitions, max_bytes }
    }
}

/// A stream that a service reads, through a durable of the service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Read {
    /// The stream's name.
    pub stream: String,
    /// Whether what the service has not read yet may be trimmed.
    pub best_effort: bool,
}

/// Reads declarations: JSON objects one after the other, as the services print them.
///
/// # Errors
/// Says which of them cannot be used, and why; or which two contradict each other.
pub fn read(text: &str) -> Result<Vec<Declaration>, String> {
    let mut all: Vec<Declaration> = vec![];
    for read in serde_json::Deserializer::from_str(text).into_iter() {
        all.push(read.map_err(|error| format!("declaration {}: {error}", all.len() + 1))?);
    }
    check(&all)?;
    Ok(all)
}

/// Whether declarations can hold side by side, and their names stand in a subject.
fn check(all: &[Declaration]) -> Result<(), String> {
    if all.is_empty() {
        return Err("there is no declaration in it".into());
    }
    let (mut streams, mut domains, mut services) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let reserved = [dead_letter::REDRIVE.to_owned(), "AUDIT".into()];
    // Subjects of the toolkit's, and users of the broker that are no services.
    let (taken, users) = (["audit", "dlq", "millstream", "redrive"], ["check", "console", "operator"]);
    for Declaration { service, publishes, reads, replicas, .. } in all {
        if replicas.is_some_and(|replicas| !(1..=MOST).contains(&replicas)) {
            return Err(format!("`{service}`: a stream has from 1 to {MOST} replicas"));
        }
        let names =
            publishes.iter().flat_map(|own| [&own.stream, &own.domain]).chain(reads.iter().map(|of| &of.stream));
        for name in [service].into_iter().chain(names) {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
                return Err(format!("`{service}`: the name `{name}` has something else than letters, digits, - and _"));
            }
            if name.starts_with('_') {
                return Err(format!("`{service}`: the name `{name}` begins with `_`, as the broker's own subjects do"));
            }
        }
        if users.contains(&service.as_str()) {
            return Err(format!("`{service}` is another user of the broker: rename the service"));
        }
        if let Some(own) = publishes.iter().find(|own| taken.contains(&own.domain.as_str())) {
            return Err(format!(
                "`{service}`: the subjects `{}.>` belong to the toolkit: rename the domain",
                own.domain
            ));
        }
        if !services.insert(service) {
            return Err(format!("`{service}` is declared twice"));
        }
        let own = publishes.iter().map(|own| (own.stream.clone(), Some(&own.domain)));
        for (stream, domain) in own.chain([(dead_letter::stream_name(service), None)]) {
            if reserved.contains(&stream) {
                return Err(format!("`{service}`: the stream {stream} belongs to the toolkit: rename it"));
            }
            if let Some(other) = streams.insert(stream.clone(), service) {
                return Err(format!("the stream {stream} has two owners, `{other}` and `{service}`"));
            }
            if let Some(other) = domain.and_then(|domain| domains.insert(domain, service)) {
                return Err(format!("`{other}` and `{service}` both publish below the subject of {stream}"));
            }
        }
    }
    Ok(())
}

/// The durables that hold a stream back from being trimmed, and those that do not.
pub fn readers<'a>(all: &'a [Declaration], stream: &str) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut holding, mut best_effort) = (BTreeSet::new(), BTreeSet::new());
    for Declaration { service, reads, .. } in all {
        for read in reads.iter().filter(|read| read.stream == stream) {
            if read.best_effort { &mut best_effort } else { &mut holding }.insert(service.as_str());
        }
    }
    (holding, best_effort)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(service: &str, publishes: &[(&str, &str)], reads: &[(&str, bool)]) -> Declaration {
        let published = |(stream, domain): &(&str, &str)| Published {
            stream: (*stream).into(),
            domain: (*domain).into(),
            partitions: 8,
            max_bytes: 1 << 30,
        };
        let read = |(stream, best_effort): &(&str, bool)| Read { stream: (*stream).into(), best_effort: *best_effort };
        Declaration {
            service: service.into(),
            release: "1.0.0".into(),
            publishes: publishes.iter().map(published).collect(),
            reads: reads.iter().map(read).collect(),
            replicas: None,
        }
    }

    fn text(all: &[Declaration]) -> String {
        all.iter().map(|one| format!("{one}\n")).collect()
    }

    #[test]
    fn what_services_print_one_after_the_other_is_read_back() {
        let all = [
            declaration("bank", &[("BANK", "bank")], &[]),
            Declaration { replicas: Some(3), ..declaration("ledger", &[("LEDGER", "ledger")], &[("BANK", false)]) },
            declaration("mirror", &[], &[("BANK", true), ("LEDGER", false)]),
        ];
        assert_eq!(read(&text(&all)).unwrap(), all);
        assert_eq!(readers(&all, "BANK"), (BTreeSet::from(["ledger"]), BTreeSet::from(["mirror"])));
        assert_eq!(readers(&all, "NONE"), (BTreeSet::new(), BTreeSet::new()));
    }

    #[test]
    fn what_contradicts_itself_or_could_not_stand_in_a_subject_is_refused_by_name() {
        let bank = || declaration("bank", &[("BANK", "bank")], &[]);
        for (all, part) in [
            (vec![], "no declaration"),
            (vec![bank(), bank()], "`bank` is declared twice"),
            (vec![bank(), declaration("b", &[("BANK", "b")], &[])], "BANK has two owners, `bank` and `b`"),
            (vec![bank(), declaration("b", &[("B", "bank")], &[])], "`bank` and `b` both publish"),
            (vec![bank(), declaration("b", &[("DLQ_BANK", "b")], &[])], "DLQ_BANK has two owners"),
            (vec![declaration("b", &[("REDRIVE", "b")], &[])], "REDRIVE belongs to the toolkit"),
            (vec![declaration("b", &[("B", "millstream")], &[])], "`millstream.>` belong to the toolkit"),
            (vec![declaration("b", &[("B", "redrive")], &[])], "`redrive.>` belong to the toolkit"),
            (vec![declaration("b", &[("B", "_INBOX_orders")], &[])], "`_INBOX_orders` begins with `_`"),
            (vec![declaration("console", &[], &[])], "`console` is another user"),
            (vec![declaration("a-b", &[], &[]), declaration("a_b", &[], &[])], "DLQ_A_B has two owners"),
            (vec![declaration("b", &[("B", "b.>")], &[])], "`b.>`"),
            (vec![declaration("b", &[], &[("A\", \">", false)])], "`A\", \">`"),
            (vec![declaration("", &[], &[])], "``"),
            (vec![Declaration { replicas: Some(7), ..bank() }], "from 1 to 5 replicas"),
        ] {
            let why = read(&text(&all)).unwrap_err();
            assert!(why.contains(part), "`{part}` is missing in: {why}");
        }
        let why = read(&(text(&[bank()]) + "{\"service\": 7}")).unwrap_err();
        assert!(why.contains("declaration 2"), "{why}");
    }
}
