//! JSON token by token, as it is written.

use std::borrow::Cow;
use std::iter;

use serde_json::value::RawValue;

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// The name of the value that follows.
    Name(Cow<'a, str>),
    /// An object begins.
    Object,
    /// An array begins.
    Array,
    /// The innermost object or array ends.
    End,
    Text(Cow<'a, str>),
    /// A number as it is written.
    Number(&'a str),
    Bool(bool),
    Null,
}

/// The tokens of a value, or why it is none.
pub(crate) fn tokens(json: &[u8]) -> serde_json::Result<impl Iterator<Item = serde_json::Result<Token<'_>>>> {
    let valid: &RawValue = serde_json::from_slice(json)?;
    let mut rest = valid.get();
    Ok(iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',']);
        let first = *rest.as_bytes().first()?;
        let length = match first {
            b'"' => 2 + text_length(&rest.as_bytes()[1..]),
            b'{' | b'[' | b'}' | b']' => 1,
            _ => rest.find([',', ':', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len()),
        };
        let (this, after) = rest.split_at(length);
        rest = after;
        Some(Ok(match first {
            b'"' => {
                let text = match text(this) {
                    Ok(text) => text,
                    Err(error) => return Some(Err(error)),
                };
                match rest.trim_start().strip_prefix(':') {
                    Some(after) => {
                        rest = after;
                        Token::Name(text)
                    }
                    None => Token::Text(text),
                }
            }
            b'{' => Token::Object,
            b'[' => Token::Array,
            b'}' | b']' => Token::End,
            b't' => Token::Bool(true),
            b'f' => Token::Bool(false),
            b'n' => Token::Null,
            _ => Token::Number(this),
        }))
    }))
}

/// How many bytes there are up to the quotation mark that ends a text.
pub(crate) fn text_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
        at += if *byte == b'\\' { 2 } else { 1 };
    }
    at
}

/// A text without its quotation marks and escapes.
fn text(quoted: &str) -> serde_json::Result<Cow<'_, str>> {
    if quoted.contains('\\') {
        return serde_json::from_str(quoted).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_piece_by_piece_whatever_its_spaces_and_escapes() {
        let json = br#" { "a" : [1 , -2.50e+1, true,false,null,{}], "b\"\u00e9:" :"x\\", "" : "y:" } "#;
        let name = |name: &str| Token::Name(Cow::Owned(name.to_owned()));
        let text = |text: &str| Token::Text(Cow::Owned(text.to_owned()));
        let expected = [
            Token::Object,
            name("a"),
            Token::Array,
            Token::Number("1"),
            Token::Number("-2.50e+1"),
            Token::Bool(true),
            Token::Bool(false),
            Token::Null,
            Token::Object,
            Token::End,
            Token::End,
            name("b\"é:"),
            text("x\\"),
            name(""),
            text("y:"),
            Token::End,
        ];
        assert_eq!(tokens(json).unwrap().collect::<Result<Vec<_>, _>>().unwrap(), expected);
        assert_eq!(tokens(b" 7 ").unwrap().collect::<Result<Vec<_>, _>>().unwrap(), [Token::Number("7")]);
    }

    #[test]
    fn what_is_no_json_or_no_text_is_an_error() {
        for json in [&b""[..], b"{", b"[1,]", b"NaN", b"\"\xff\""] {
            assert!(tokens(json).is_err(), "{}", String::from_utf8_lossy(json));
        }
        let mut lone = tokens(br#""\ud800""#).unwrap();
        assert!(lone.next().unwrap().is_err(), "half a character");
    }
}
