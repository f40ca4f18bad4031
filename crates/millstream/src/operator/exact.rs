//! JSON as it was written: a body that is looked at, masked or changed in one place keeps every other digit, and its members in
//! their order. Numbers that pass through [`Value`] lose digits beyond those of a double.

use std::collections::HashMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::operator::personal::MASK;

/// A JSON value whose numbers and texts are as they were written.
#[derive(Clone, Debug)]
pub enum Exact {
    /// An object, its members in order.
    Object(Vec<(String, Exact)>),
    /// An array.
    Array(Vec<Exact>),
    /// Anything else.
    Leaf(Box<RawValue>),
}

impl Exact {
    /// Reads JSON.
    ///
    /// # Errors
    /// When it is none, or nested too deeply.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        // It is valid and not nested too deeply where `Value` says so; the rest cannot fail.
        serde_json::from_slice::<Value>(json)?;
        Self::of(serde_json::from_slice(json)?)
    }

    fn of(raw: Box<RawValue>) -> Result<Self, serde_json::Error> {
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(raw.get())?;
                let members = members.into_iter().map(|(name, value)| Ok((name, Self::of(value)?)));
                Ok(Self::Object(members.collect::<Result<_, serde_json::Error>>()?))
            }
            Some(b'[') => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(raw.get())?;
                Ok(Self::Array(items.into_iter().map(Self::of).collect::<Result<_, _>>()?))
            }
            _ => Ok(Self::Leaf(raw)),
        }
    }

    /// A text.
    pub fn text(text: &str) -> Self {
        Self::from(&Value::from(text))
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<String> {
        match self {
            Self::Leaf(raw) => serde_json::from_str(raw.get()).ok(),
            _ => None,
        }
    }

    /// The value at a JSON pointer.
    pub fn at(&mut self, pointer: &str) -> Option<&mut Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| match value {
            Self::Object(members) => {
                let name = token.replace("~1", "/").replace("~0", "~");
                // Of members twice, readers take the last.
                members.iter_mut().rfind(|(have, _)| *have == name).map(|(_, value)| value)
            }
            Self::Array(items) => {
                let index = token.parse().ok().filter(|_| token == "0" || !token.starts_with(['0', '+']));
                items.get_mut::<usize>(index?)
            }
            Self::Leaf(_) => None,
        })
    }

    /// Sets the value at a JSON pointer, which may be a new member of an object or the next item of an array; whether its place is
    /// there.
    pub fn set(&mut self, pointer: &str, value: Self) -> bool {
        if let Some(place) = self.at(pointer) {
            *place = value;
            return true;
        }
        let Some((parent, name)) = pointer.rsplit_once('/') else { return false };
        match self.at(parent) {
            Some(Self::Object(members)) => members.push((name.replace("~1", "/").replace("~0", "~"), value)),
            Some(Self::Array(items)) if name == "-" || name == items.len().to_string() => items.push(value),
            _ => return false,
        }
        true
    }

    /// Puts [`MASK`] in place of the values of members with these names, at any depth; whether there were any.
    pub fn mask(&mut self, names: &[String]) -> bool {
        let mut any = false;
        match self {
            Self::Object(members) => {
                for (name, value) in members {
                    if names.contains(name) {
                        *value = Self::text(MASK);
                        any = true;
                    } else {
                        any |= value.mask(names);
                    }
                }
            }
            Self::Array(items) => items.iter_mut().for_each(|item| any |= item.mask(names)),
            Self::Leaf(_) => {}
        }
        any
    }

    /// Replaces what members with these names hold, at any depth, and keeps its shape: letters become `x`, digits of a text and
    /// numbers 0.
    pub(crate) fn disguise(&mut self, names: &[String]) {
        match self {
            Self::Object(members) => {
                for (name, value) in members {
                    if names.contains(name) { value.disguise_all() } else { value.disguise(names) }
                }
            }
            Self::Array(items) => items.iter_mut().for_each(|item| item.disguise(names)),
            Self::Leaf(_) => {}
        }
    }

    fn disguise_all(&mut self) {
        match self {
            Self::Object(members) => members.iter_mut().for_each(|(_, value)| value.disguise_all()),
            Self::Array(items) => items.iter_mut().for_each(Self::disguise_all),
            Self::Leaf(_) => match self.value() {
                Value::String(text) if self.as_text().is_some() => {
                    let like = |c: char| match c {
                        c if c.is_uppercase() => 'X',
                        c if c.is_alphabetic() => 'x',
                        c if c.is_numeric() => '0',
                        c => c,
                    };
                    *self = Self::text(&text.chars().map(like).collect::<String>());
                }
                Value::String(_) | Value::Number(_) => *self = Self::from(&Value::from(0)),
                _ => {}
            },
        }
    }

    /// As a `Value`; a number that would lose digits there is a text with all of them.
    pub fn value(&self) -> Value {
        match self {
            Self::Object(members) => members.iter().map(|(name, value)| (name.clone(), value.value())).collect(),
            Self::Array(items) => items.iter().map(Self::value).collect(),
            Self::Leaf(raw) => {
                let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
                let kept = !value.is_number() || raw.get() == format!("{value}").as_str();
                if kept { value } else { raw.get().into() }
            }
        }
    }

    /// In lines for people.
    pub fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl From<&Value> for Exact {
    fn from(value: &Value) -> Self {
        match value {
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (name.clone(), value.into())).collect())
            }
            Value::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            leaf => Self::Leaf(serde_json::value::to_raw_value(leaf).unwrap_or_default()),
        }
    }
}

impl PartialEq for Exact {
    /// Numbers are equal if they are written alike, texts if they read alike, objects whatever the order of their members.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(one), Self::Object(other)) => by_name(one) == by_name(other),
            (Self::Array(one), Self::Array(other)) => one == other,
            (Self::Leaf(one), Self::Leaf(other)) => {
                let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
                one.get() == other.get() || text(one).is_some_and(|one| text(other) == Some(one))
            }
            _ => false,
        }
    }
}

impl Eq for Exact {}

impl fmt::Display for Exact {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Leaf(raw) => raw.serialize(serializer),
        }
    }
}

/// Members by name; of members twice, readers take the last.
pub(crate) fn by_name(members: &[(String, Exact)]) -> HashMap<&str, &Exact> {
    members.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

/// The members of an object in order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sequence;
        impl<'de> Visitor<'de> for Sequence {
            type Value = Members;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = vec![];
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Sequence)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BODY: &str =
        r#"{"m":18446744073709551617,"a":[1.50,{"f":0.1234567890123456789}],"t":"x\u00e4","e":1E5,"n":null}"#;

    fn read(json: &str) -> Exact {
        Exact::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_read_is_written_digit_for_digit_and_a_change_changes_nothing_else() {
        let mut body = read(&format!(" {BODY}\n"));
        assert_eq!(body.to_string(), BODY);
        assert!(body.pretty().contains("\"f\": 0.1234567890123456789\n"), "{}", body.pretty());
        assert!(
            body.set("/a/1/g~1h", read("2.0")) && body.set("/a/2", read("true")) && body.set("/t", Exact::text("y"))
        );
        assert!(!body.set("/a/9", read("1")) && !body.set("/none/x", read("1")) && !body.set("/t/x", read("1")));
        let changed = BODY.replace("6789}]", "6789,\"g/h\":2.0},true]").replace(r#""x\u00e4""#, r#""y""#);
        assert_eq!(body.to_string(), changed);
        assert!(body.mask(&["a".into(), "n".into()]) && !body.mask(&["b".into()]));
        assert_eq!(body.to_string(), r#"{"m":18446744073709551617,"a":"•••","t":"y","e":1E5,"n":"•••"}"#);
        assert!(Exact::read(b"{\"a\":}").is_err() && Exact::read("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn values_are_equal_if_no_reader_can_tell_them_apart() {
        assert_eq!(read(r#"{"a":"ä","b":1}"#), read(r#"{"b":1, "a":"\u00e4"}"#));
        assert_eq!(read(r#"{"a":1,"a":2}"#), read(r#"{"a":2}"#));
        for other in ["18446744073709551618", "1.8446744073709552e19", "\"18446744073709551617\"", "{}", "[]"] {
            assert_ne!(read("18446744073709551617"), read(other));
        }
        assert_ne!(read(r#"{"a":null}"#), read("{}"));
        let value = json!({ "m": "18446744073709551617", "a": ["1.50", { "f": "0.1234567890123456789" }],
            "t": "xä", "e": "1E5", "n": null });
        assert_eq!(read(BODY).value(), value);
        assert_eq!(Exact::from(&json!({ "a": [1, "x"] })).value(), json!({ "a": [1, "x"] }));
    }

    #[test]
    fn personal_fields_are_masked_at_any_depth_whatever_they_hold_and_nothing_else_is() {
        let mut body = Exact::from(&json!({
            "orderId": "o1", "userId": "ada", "none": null,
            "lines": [{ "name": { "first": "Ada" }, "product": { "userId": 7 } }, { "name": "Zoë" }],
        }));
        assert!(body.mask(&["userId".into(), "name".into()]));
        let masked = json!({
            "orderId": "o1", "userId": MASK, "none": null,
            "lines": [{ "name": MASK, "product": { "userId": MASK } }, { "name": MASK }],
        });
        assert_eq!(body.value(), masked);
        assert!(!body.mask(&["other".into()]) && !body.mask(&[]));
        assert_eq!(body.value(), masked);
    }
}
