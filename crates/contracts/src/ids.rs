//! Ids as distinct types, so that an order's id cannot be mistaken for a product's.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum length of an id in characters.
const MAX_LENGTH: usize = 64;

/// The error for an invalid id. Its message describes a valid id, and does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an id must have 1 to {MAX_LENGTH} characters of A-Z, a-z, 0-9 and . _ : -, and be neither `.` nor `..`"
        )
    }
}

impl std::error::Error for InvalidId {}

fn is_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    // Clients drop these two from a path before they send it, so nobody could ask for one.
    let is_dots = matches!(text, "." | "..");
    (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(legal) && !is_dots
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                if is_id(&text) { Ok(Self(text)) } else { Err(InvalidId) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.to_owned().try_into()
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&$name> for String {
            fn from(id: &$name) -> Self {
                id.0.clone()
            }
        }
    };
}

id! {
    /// An order's id: the id of the command that placed it.
    OrderId
}
id! {
    /// A product's id, chosen by the client that stocks it.
    ProductId
}
id! {
    /// A customer's id, as given by the caller.
    UserId
}

impl From<millstream_core::Id> for OrderId {
    fn from(id: millstream_core::Id) -> Self {
        Self(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_of_plain_characters() {
        for good in ["a", "...", ".a", "ALFKI", "sku:12.5_x-y", &"x".repeat(64)] {
            assert_eq!(&*good.parse::<ProductId>().unwrap(), good);
        }
        for bad in ["", ".", "..", " ", "a b", "a/b", "ü", "a\n", "a\0", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ProductId>(), Err(InvalidId), "{bad:?}");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<ProductId>(&json).is_err(), "{bad:?}");
        }
    }
}
