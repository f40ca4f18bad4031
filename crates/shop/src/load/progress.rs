//! How far it is: a bar on a terminal, a plain line now and then elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use millstream::terminal::note;

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress of one phase, on standard error.
pub(super) struct Progress {
    what: &'static str,
    bar: ProgressBar,
    last_line: Mutex<Instant>,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: usize) -> Self {
        let bar = ProgressBar::new(total as u64);
        let template = "{msg:10} {wide_bar} {pos}/{len}  {per_sec}  {elapsed}";
        // The template is a constant; were it wrong, the plain style would do.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Self { what, bar, last_line: Mutex::new(Instant::now()) }
    }

    /// `done` of `total`.
    pub(super) fn at(&self, done: usize, total: usize) {
        self.bar.set_position(done as u64);
        if self.bar.is_hidden() {
            let mut last = self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.elapsed() >= LINE_EVERY {
                *last = Instant::now();
                note(&format!("{}: {done} of {total}", self.what));
            }
        }
    }

    /// A remark beside it.
    pub(super) fn say(&self, text: &str) {
        if self.bar.is_hidden() { note(text) } else { self.bar.println(text) }
    }

    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
