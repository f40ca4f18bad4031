//! Output: tables for people, JSON for programs.

use std::fmt;

use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table, presets};
use millstream::terminal::{self, visible, visible_lines};
use serde::Serialize;

/// A table: aligned, without lines, as wide as the terminal at most. Its cells hold what others have chosen, and none may steer
/// the terminal or pass for a row.
#[derive(Debug)]
pub(crate) struct Listing(Table);

impl Listing {
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        self.0.add_row(cells.into_iter().map(|cell| visible(cell.as_ref()).into_owned()));
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A table with these columns.
pub(crate) fn table<const N: usize>(columns: [&str; N]) -> Listing {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(columns);
    Listing(table)
}

/// Prints text for people.
pub(crate) fn line(line: &str) -> Result<()> {
    raw(&visible_lines(line))
}

/// Prints text for programs, as it is.
pub(crate) fn raw(line: &str) -> Result<()> {
    terminal::line(line).context("cannot write the output")
}

/// Prints a remark on standard error.
pub(crate) fn note(line: &str) {
    terminal::note(&visible_lines(line));
}

/// Whether the error is a closed output pipe.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    error.chain().any(terminal::is_unread)
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    raw(&serde_json::to_string_pretty(value)?)
}
