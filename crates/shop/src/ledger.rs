//! What `shop load` was promised, in a file of its own, and what `shop check` holds the shop against: a source that no service has a
//! hand in.
//!
//! A line is JSON: the `Idempotency-Key`, the `status` of the answer or `"unknown"`, and for an accepted order its `id` and the
//! `total` that was sent. Each line is written before the load goes on, so that a load that is killed has lost none of them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use contracts::Money;
use serde::{Deserialize, Serialize};

use crate::wire::Order;

/// What became of one submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) key: String,
    /// `None` if the order was refused or there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// What the order is worth; `None` if its body had no total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Money>,
    pub(crate) status: Status,
}

/// The answer to a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Status {
    /// Its HTTP status.
    Code(u16),
    /// There was none: the order may exist or not.
    Unknown(Unknown),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unknown {
    Unknown,
}

/// A ledger that is being written.
pub(crate) struct Ledger {
    file: File,
    path: PathBuf,
}

impl Ledger {
    /// Opens a ledger; what is in it stays, but for a last line without an end.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let text = std::fs::read(path)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)?;
            Ok::<_, std::io::Error>(file)
        };
        let file = open().with_context(|| format!("--ledger: cannot write {}", path.display()))?;
        Ok(Self { file, path: path.into() })
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text).with_context(|| format!("--ledger: cannot write {}", self.path.display()))
    }
}

/// The total that the body of an order states.
pub(crate) fn total_of(body: &str) -> Option<Money> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        total_amount: Money,
    }
    serde_json::from_str(body).map(|body: Body| body.total_amount).ok()
}

/// Reads ledgers. A last line without an end is what a load had begun to write when it was killed: it is left out.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for path in paths {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("--ledger: cannot read {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (at, line) in whole.lines().enumerate() {
            let line = serde_json::from_str(line);
            lines.push(line.with_context(|| format!("--ledger: {}, line {}", path.display(), at + 1))?);
        }
    }
    if lines.is_empty() && !paths.is_empty() {
        bail!("--ledger: {} holds no orders", paths[0].display());
    }
    Ok(lines)
}

/// By order what contradicts the ledger: an order that was accepted is there, once, with its total.
pub(crate) fn compare(lines: &[Line], orders: &[Order]) -> BTreeMap<String, String> {
    let there: BTreeMap<&str, &Order> = orders.iter().map(|order| (order.id.as_str(), order)).collect();
    let mut broken = BTreeMap::new();
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    for line in lines {
        let Some(id) = &line.id else { continue };
        let mut contradicted = |what: String| drop(broken.insert(format!("order {id}"), what));
        if let Some(other) = by_key.insert(&line.key, id).filter(|other| other != id) {
            contradicted(format!("the key {} was answered with this order and with {other}", line.key));
        }
        match there.get(id.as_str()) {
            None => contradicted("was accepted, and orders does not know it".into()),
            Some(order) if line.total.is_some_and(|total| total != order.total_amount) => {
                let (was, is) = (line.total.unwrap_or(Money::ZERO), order.total_amount);
                contradicted(format!("was accepted with a total of {was}, and orders has {is}"));
            }
            Some(_) => {}
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(key: &str, id: &str, cents: i64) -> Line {
        let total = Some(Money::from_minor(cents).unwrap());
        Line { key: key.into(), id: Some(id.into()), total, status: Status::Code(201) }
    }

    fn order(id: &str, cents: i64) -> Order {
        Order {
            id: id.into(),
            items: vec![],
            total_amount: Money::from_minor(cents).unwrap(),
            status: "CONFIRMED".into(),
            reason: None,
            created_at: millstream::Timestamp::from_millis(0),
            ended_at: None,
        }
    }

    #[test]
    fn an_accepted_order_that_is_gone_or_worth_something_else_contradicts_the_ledger() {
        let lines = [accepted("k1", "a", 450), accepted("k2", "b", 450), accepted("k3", "c", 450)];
        assert!(compare(&lines, &[order("a", 450), order("b", 450), order("c", 450), order("d", 1)]).is_empty());
        let broken = compare(&lines, &[order("a", 450), order("c", 451)]);
        assert!(broken["order b"].contains("does not know it"), "{broken:?}");
        assert!(broken["order c"].contains("4.50") && broken["order c"].contains("4.51"), "{broken:?}");
        assert_eq!(broken.len(), 2);
    }

    #[test]
    fn one_key_that_was_answered_with_two_orders_contradicts_the_ledger() {
        let lines = [accepted("k1", "a", 450), accepted("k1", "b", 450)];
        assert!(compare(&lines, &[order("a", 450), order("b", 450)])["order b"].contains("k1"));
    }

    #[test]
    fn what_was_refused_or_not_answered_demands_nothing() {
        let refused = Line { key: "k".into(), id: None, total: None, status: Status::Code(422) };
        let unknown = Line { status: Status::Unknown(Unknown::Unknown), ..refused.clone() };
        assert!(compare(&[refused, unknown], &[]).is_empty());
    }

    #[test]
    fn a_ledger_comes_back_as_it_was_written_without_the_line_that_a_kill_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let lines = [
            accepted("k1", "a", 450),
            Line { key: "k2".into(), id: None, total: None, status: Status::Unknown(Unknown::Unknown) },
        ];
        let mut ledger = Ledger::open(&path).unwrap();
        lines.iter().for_each(|line| ledger.add(line).unwrap());
        ledger.file.write_all(br#"{"key":"k3","i"#).unwrap();
        assert_eq!(read(std::slice::from_ref(&path)).unwrap(), lines);
        Ledger::open(&path).unwrap().add(&lines[0]).unwrap();
        assert_eq!(read(std::slice::from_ref(&path)).unwrap(), [&lines[..], &lines[..1]].concat());
        std::fs::write(&path, "{}\n").unwrap();
        assert!(format!("{:#}", read(&[path]).unwrap_err()).contains("line 1"));
    }
}
