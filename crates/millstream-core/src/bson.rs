//! A document as BSON, which is also the measure of what a document may contain: what BSON cannot carry digit by digit is refused
//! when it is staged, whatever the store, so that a service can go from one store to another.

use std::borrow::Cow;

use crate::hash::HashSet;
use crate::json::{Token, text_length, tokens};
use crate::number::Number;

/// The member that is the document.
pub const DOC: &str = "doc";

/// How many objects and arrays may be within each other. MongoDB takes 100, of which some are the toolkit's own.
const DEEPEST: usize = 90;

/// How large it may be. A record of MongoDB's has at most 16 MiB, of which some are the toolkit's own.
const LARGEST: usize = 15 << 20;

/// Why a document cannot be stored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// It is too large.
    #[error("it would be {0} bytes as BSON, over the limit of {LARGEST}")]
    TooLarge(usize),
    /// Something in it cannot be kept.
    #[error("{0}")]
    Wrong(String),
}

/// An object or array that has not ended yet.
struct Open<'a> {
    /// Where it begins.
    start: usize,
    array: bool,
    /// How many values it has.
    values: u32,
    /// The name of the value that is next, or is open.
    name: Cow<'a, str>,
    names: HashSet<Cow<'a, str>>,
}

impl Open<'_> {
    fn new(start: usize, array: bool) -> Self {
        Self { start, array, values: 0, name: Cow::Borrowed(DOC), names: HashSet::default() }
    }
}

/// Up to this size what `serde_json` has written is never over [`LARGEST`]: a value takes at most nine times as much as BSON, as a
/// number of one digit in a long array does.
const SURELY_FITS: usize = 1 << 20;

/// How many names of one object are compared with one another.
const FEW_NAMES: usize = 32;

/// Whether what `serde_json` has written can be stored.
///
/// # Errors
/// Those of [`encode`].
pub(crate) fn check(json: &[u8]) -> Result<(), Unstorable> {
    if is_plain(json) { Ok(()) } else { encode(json).map(drop) }
}

/// Whether one look shows that [`encode`] takes it; almost all documents are like this. It must be JSON.
fn is_plain(json: &[u8]) -> bool {
    if json.len() > SURELY_FITS {
        return false;
    }
    // The names so far of all objects that have not ended, and where those of the outer ones begin.
    let (mut names, mut open): (Vec<&[u8]>, Vec<usize>) = (vec![], vec![]);
    let (mut first, mut rest) = (0, json);
    while let Some((byte, after)) = rest.split_first() {
        let length = match byte {
            b'"' => {
                let length = text_length(after);
                if after.get(length + 1) == Some(&b':') {
                    let (name, known) = (&after[..length], names.get(first..).unwrap_or_default());
                    if name.contains(&b'\\') || known.len() == FEW_NAMES || known.contains(&name) {
                        return false;
                    }
                    names.push(name);
                }
                length + 2
            }
            b'{' | b'[' => {
                if open.len() == DEEPEST {
                    return false;
                }
                open.push(std::mem::replace(&mut first, names.len()));
                1
            }
            b'}' | b']' => {
                names.truncate(first);
                first = open.pop().unwrap_or_default();
                1
            }
            b'-' | b'0'..=b'9' => {
                let digits = rest.iter().take_while(|byte| matches!(byte, b'-' | b'.' | b'0'..=b'9')).count();
                let exponent = matches!(rest.get(digits), Some(b'e' | b'E'));
                if digits > 18 || exponent {
                    return false;
                }
                digits
            }
            b',' | b':' | b'a'..=b'z' => 1,
            _ => return false,
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    true
}

/// Writes the BSON document `{ doc: … }` of a JSON value: integers of 64 bits as such, all other numbers as Decimal128.
///
/// # Errors
/// When it is not JSON, or contains what cannot be kept.
pub fn encode(json: &[u8]) -> Result<Vec<u8>, Unstorable> {
    let no_json = |error: serde_json::Error| Unstorable::Wrong(format!("it is not JSON: {error}"));
    let mut out = Vec::with_capacity(json.len() + json.len() / 4);
    out.extend([0; 4]);
    let mut open = vec![Open::new(0, false)];
    for token in tokens(json).map_err(no_json)? {
        let token = token.map_err(no_json)?;
        let Some(innermost) = open.last_mut() else { break };
        match token {
            Token::Name(name) => {
                let twice = !innermost.names.insert(name.clone());
                if twice || name.contains('\0') {
                    let what = if twice { "more than once" } else { "in it, and a name cannot contain NUL" };
                    return Err(wrong(&open[..open.len() - 1], &format!("has the name {name:?} {what}")));
                }
                innermost.name = name;
                continue;
            }
            Token::End => {
                end(&mut out, innermost.start);
                open.pop();
                continue;
            }
            _ => {}
        }
        let at = out.len();
        out.push(0);
        if innermost.array {
            innermost.name = innermost.values.to_string().into();
        }
        innermost.values += 1;
        out.extend(innermost.name.as_bytes());
        out.push(0);
        out[at] = match token {
            Token::Null => 0x0a,
            Token::Bool(value) => {
                out.push(value.into());
                0x08
            }
            Token::Number(digits) => match Number::read(digits) {
                Some(Number::Integer(integer)) => {
                    out.extend(integer.to_le_bytes());
                    0x12
                }
                Some(Number::Decimal(decimal)) => {
                    out.extend(decimal.bits().to_le_bytes());
                    0x13
                }
                None => {
                    return Err(wrong(
                        &open,
                        "is a number of more than 34 digits, or with an exponent beyond 6111 or -6176",
                    ));
                }
            },
            Token::Text(text) => {
                out.extend((text.len() as i32 + 1).to_le_bytes());
                out.extend(text.as_bytes());
                out.push(0);
                0x02
            }
            Token::Object | Token::Array => {
                if open.len() > DEEPEST {
                    return Err(wrong(&open, &format!("is nested more than {DEEPEST} levels deep")));
                }
                let array = token == Token::Array;
                open.push(Open::new(out.len(), array));
                out.extend([0; 4]);
                if array { 0x04 } else { 0x03 }
            }
            Token::Name(_) | Token::End => 0,
        };
    }
    end(&mut out, 0);
    if out.len() > LARGEST { Err(Unstorable::TooLarge(out.len())) } else { Ok(out) }
}

fn end(out: &mut Vec<u8>, start: usize) {
    out.push(0);
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn wrong(open: &[Open<'_>], what: &str) -> Unstorable {
    let path: Vec<&str> = open.iter().skip(1).map(|open| &*open.name).collect();
    Unstorable::Wrong(if path.is_empty() { format!("it {what}") } else { format!("`{}` {what}", path.join(".")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_becomes_bson_byte_by_byte() {
        let expected = [
            &[0x4d, 0, 0, 0, 3][..],
            b"doc\0",
            &[0x43, 0, 0, 0, 0x12],
            b"n\0",
            &[1, 0, 0, 0, 0, 0, 0, 0, 0x13],
            b"d\0",
            &[15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3e, 0xb0, 2],
            b"t\0",
            &[3, 0, 0, 0],
            "\u{e9}\0".as_bytes(),
            &[4],
            b"a\0",
            &[12, 0, 0, 0, 8],
            b"0\0",
            &[1, 10],
            b"1\0",
            &[0, 3],
            b"\0",
            &[5, 0, 0, 0, 0, 0, 0],
        ];
        let json = r#"{"n":1,"d":-1.5,"t":"\u00e9","a":[true,null],"":{}}"#;
        assert_eq!(encode(json.as_bytes()).unwrap(), expected.concat());
    }

    #[test]
    fn what_cannot_be_kept_is_named_with_its_place() {
        for (json, expected) in [
            ("1e7000", "it is a number of more than 34 digits, or with an exponent beyond 6111 or -6176"),
            (
                r#"{"a":[1,{"b":1e-7000}]}"#,
                "`a.1.b` is a number of more than 34 digits, or with an exponent beyond 6111 or -6176",
            ),
            (r#"{"a":{"b\u0000":1}}"#, r#"`a` has the name "b\0" in it, and a name cannot contain NUL"#),
            (r#"{"a":1,"b":2,"\u0061":3}"#, r#"it has the name "a" more than once"#),
        ] {
            assert_eq!(encode(json.as_bytes()), Err(Unstorable::Wrong(expected.into())));
        }
        assert!(matches!(encode(b"{"), Err(Unstorable::Wrong(why)) if why.starts_with("it is not JSON")));
    }

    #[test]
    fn what_one_look_takes_is_what_can_be_encoded() {
        for json in
            [r#"{"a":{"b":1,"c":[{"b":2},{"b":-3.5}]},"b":"a \"quoted\" text: {","c":null,"d":true}"#, "[]", "1.25"]
        {
            assert!(encode(json.as_bytes()).is_ok() && is_plain(json.as_bytes()), "{json}");
        }
        let deep = [vec![b'['; DEEPEST + 1], vec![b']'; DEEPEST + 1]].concat();
        let long = format!("[{}1]", "1,".repeat(1 << 20));
        let wrong = [
            r#"{"a":1,"a":2}"#,
            r#"{"x":[{"a":1,"b":{},"a":2}]}"#,
            r#"{"b\u0000":1}"#,
            "[1e7000]",
            "[1e-7000]",
            &"9".repeat(40),
        ];
        for json in wrong.map(str::as_bytes).into_iter().chain([&*deep, long.as_bytes()]) {
            assert!(
                encode(json).is_err() && !is_plain(json),
                "{:?}",
                String::from_utf8_lossy(&json[..json.len().min(80)])
            );
        }
        // The same name in objects beside and within each other is not twice in one.
        assert!(is_plain(br#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#));
        // As large as it may be, every value of it as much larger in BSON as can be.
        let numbers = format!("[{}1]", "1,".repeat(SURELY_FITS / 2 - 2));
        assert!(is_plain(numbers.as_bytes()) && encode(numbers.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_nested_too_deep_or_too_large_is_refused() {
        let nested = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(encode(&nested(DEEPEST)).is_ok());
        let Err(Unstorable::Wrong(why)) = encode(&nested(DEEPEST + 1)) else { panic!("it is too deep") };
        assert!(why.ends_with("is nested more than 90 levels deep"), "{why}");
        // Small as JSON, and each number has a name of its own in BSON.
        let numbers = format!("[{}1]", "1,".repeat(1 << 20));
        assert!(matches!(encode(numbers.as_bytes()), Err(Unstorable::TooLarge(_))));
    }
}
