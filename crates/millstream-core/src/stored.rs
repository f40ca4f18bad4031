//! Headers as a stream stores them. The broker takes any bytes there, and not every client can read them: ours takes headers for
//! text, closes its connection on what is none, and ends altogether on a carriage return within a value.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

const VERSION: &str = "NATS/1.0";

/// What a header's name may not contain.
const NAME: &AsciiSet = &CONTROLS.add(b'%').add(b' ').add(b':');

/// Why the client cannot read a block of headers; `None` if it can. Sees what the client sees: it would not help to be stricter.
pub fn unreadable(block: &[u8]) -> Option<String> {
    if block.is_empty() {
        return None;
    }
    let Ok(text) = std::str::from_utf8(block) else { return Some("its headers are not UTF-8".into()) };
    let mut lines = text.lines().peekable();
    let Some(status) = lines.next().and_then(|first| first.strip_prefix(VERSION)) else {
        return Some(format!("its headers do not begin with `{VERSION}`"));
    };
    let status = status.trim().split(' ').next().unwrap_or_default();
    if !status.is_empty() && !is_status(status) {
        return Some(format!("`{}` is not the status of a message", status.escape_debug()));
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Some(format!("the header line `{}` has no colon", line.escape_debug()));
        };
        if name.contains(|c: char| !c.is_ascii_graphic()) {
            return Some(format!("`{}` is not the name of a header", name.escape_debug()));
        }
        let mut value = value.to_owned();
        // It may go on in the next lines.
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if value.trim().contains('\r') {
            return Some(format!("the value of its header `{name}` contains a carriage return"));
        }
    }
    None
}

/// Three digits, of which the first is none but 1 to 9.
fn is_status(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0')
}

/// The headers of a block, whatever it contains: what is not readable is percent-encoded.
pub fn lenient(block: &[u8]) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = vec![];
    for line in block.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
        if line.is_empty() || line.starts_with(VERSION.as_bytes()) {
            continue;
        }
        if (line.starts_with(b" ") || line.starts_with(b"\t"))
            && let Some((_, value)) = headers.last_mut()
        {
            value.push_str(&value_of(line));
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.map_or((&b"Unreadable"[..], line), |at| (&line[..at], &line[at + 1..]));
        headers.push((name_of(name), value_of(value.trim_ascii_start())));
    }
    headers
}

fn name_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => text.into(),
        _ => percent_encode(bytes, NAME).to_string(),
    }
}

fn value_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\r') => text.into(),
        _ => percent_encode(bytes, CONTROLS).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_the_client_reads_are_read_as_it_does() {
        for (block, expected) in [
            (&b""[..], vec![]),
            (b"NATS/1.0\r\n\r\n", vec![]),
            (b"NATS/1.0 503 gone\r\na: b\r\n\r\n", vec![("a", "b")]),
            (b"NATS/1.0\r\na:  b  \r\nA: c:d\r\nnone:\r\n\r\n", vec![("a", "b"), ("A", "c:d"), ("none", "")]),
            (b"NATS/1.0\r\na%20: b%20\r\n\r\n", vec![("a%20", "b%20")]),
            (b"NATS/1.0\r\na: b\r\n c\r\nd: Zo\xC3\xAB\r\n\r\n", vec![("a", "b c"), ("d", "Zo\u{eb}")]),
        ] {
            assert_eq!(unreadable(block), None);
            let read = lenient(block);
            let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn headers_that_the_client_does_not_read_keep_their_bytes_and_it_is_said_why() {
        for (block, why, name, value) in [
            (&b"NATS/1.0\r\nX-Name: Zo\xEB\r\n\r\n"[..], "not UTF-8", "X-Name", "Zo%EB"),
            (b"NATS/1.0\r\nMy Header: x\r\n\r\n", "`My Header` is not the name", "My%20Header", "x"),
            (b"NATS/1.0\r\nZo\xC3\xAB: x\r\n\r\n", "is not the name", "Zo%C3%AB", "x"),
            (b"NATS/1.0\r\na: b\rc\r\n\r\n", "contains a carriage return", "a", "b%0Dc"),
            (b"NATS/1.0\r\nno colon\r\n\r\n", "has no colon", "Unreadable", "no colon"),
            (b"NATS/1.0 x\r\na: b\r\n\r\n", "`x` is not the status", "a", "b"),
            (b"NATS/1.0 99\r\na: b\r\n\r\n", "`99` is not the status", "a", "b"),
            (b"NATS/1.01\r\na: b\r\n\r\n", "`1` is not the status", "a", "b"),
            (b"garbage\r\n\r\n", "do not begin", "Unreadable", "garbage"),
        ] {
            assert!(unreadable(block).unwrap().contains(why), "{:?}", unreadable(block));
            assert_eq!(lenient(block), [(name.to_owned(), value.to_owned())]);
        }
    }
}
