//! What programs write for people: a closed or full output is an error of the caller's, never a panic, and text that comes from
//! elsewhere cannot steer the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

/// Prints a line on standard output.
///
/// # Errors
/// When the output is closed, as after `| head`, or full.
pub fn line(line: &str) -> io::Result<()> {
    // Line and end together, so that what is cut is cut between lines.
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Prints a remark on standard error, if anybody still reads it: without a place to say so there is nothing else to do.
pub fn note(line: &str) {
    drop(io::stderr().lock().write_all(format!("{line}\n").as_bytes()));
}

/// Whether an error says that nobody reads the output any more.
pub fn is_unread(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Whether a character steers the terminal or the order of what stands beside it, rather than being text.
pub fn steers(letter: char) -> bool {
    let turns =
        matches!(letter, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns || matches!(letter, '\u{2028}' | '\u{2029}')
}

/// A text for one line or one cell of a table: what would steer the terminal is shown as its escape, `\u{1b}` or `\n`.
pub fn visible(text: &str) -> Cow<'_, str> {
    shown(text, steers)
}

/// A text of several lines: as [`visible`], but for its ends of lines and tabs.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    shown(text, |letter| steers(letter) && letter != '\n' && letter != '\t')
}

fn shown(text: &str, escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escaped) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if !escaped(letter) {
            shown.push(letter);
        } else if matches!(letter, '\n' | '\r' | '\t') {
            shown.extend(letter.escape_default());
        } else {
            // A string takes everything.
            let _ = write!(shown, "{}", letter.escape_unicode());
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_the_terminal_is_shown_and_all_else_stays() {
        let sent = "key\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}evil\r\n\u{9b}31m\u{7f}";
        let seen = visible(sent);
        assert_eq!(seen, r"key\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}evil\r\n\u{9b}31m\u{7f}");
        assert!(!seen.chars().any(steers));
        for plain in ["", "a key", "Zoë — 注文 🙂", r"C:\n"] {
            assert!(matches!(visible(plain), Cow::Borrowed(text) if text == plain), "{plain}");
        }
        assert_eq!(visible_lines("{\n\t\u{1b}[1m\r\n}"), "{\n\t\\u{1b}[1m\\r\n}");
    }
}
