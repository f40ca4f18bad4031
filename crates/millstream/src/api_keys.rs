//! Keys that callers prove themselves by. Only their hashes are kept.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 hash of a key. It tells nothing about a key that is long and random, as each has to be.
#[derive(Clone)]
pub struct HashedKey([u8; 32]);

impl HashedKey {
    /// The hash of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether it is the hash of this key, found in a time that does not tell how much of it is right.
    pub fn is_of(&self, key: &str) -> bool {
        self.0.ct_eq(&Self::of(key).0).into()
    }

    fn read(hex: &str) -> Option<Self> {
        let digits = hex.bytes().map(|digit| char::from(digit).to_digit(16)).collect::<Option<Vec<_>>>()?;
        let bytes = digits.chunks(2).map(|pair| u8::try_from(pair.iter().fold(0, |byte, digit| byte * 16 + digit)));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok().filter(|_| digits.len() == 64)?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for HashedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedKey(…)")
    }
}

/// The callers that a service answers, by their keys. A caller may have several, as long as an old one is being replaced.
#[derive(Clone, Debug)]
pub struct ApiKeys(Arc<[(String, HashedKey)]>);

impl ApiKeys {
    /// Reads lines `name:hash`, where the hash is the SHA-256 of the caller's key in hexadecimal. A line that begins with `#` is a
    /// comment.
    ///
    /// # Errors
    /// Names the line that is wrong, and what would be right.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut all: Vec<(String, HashedKey)> = vec![];
        let lines = text.lines().map(str::trim).enumerate();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |what: &str| Err(format!("line {}: {what}", at + 1));
            let Some((name, hash)) = line.split_once(':') else { return wrong("expected name:hash") };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(plain) {
                return wrong("a name is made of letters, digits and `._-`, and begins with a letter or a digit");
            }
            let Some(hash) = HashedKey::read(hash) else {
                return wrong(
                    "expected the SHA-256 of the key as 64 hexadecimal digits: printf %s \"$KEY\" | sha256sum",
                );
            };
            if all.iter().any(|(other, known)| other != name && known.0 == hash.0) {
                return wrong("another caller has the same key");
            }
            all.push((name.into(), hash));
        }
        if all.is_empty() { Err("names no caller".into()) } else { Ok(Self(all.into())) }
    }

    /// The caller that has this key. It looks at all of them, however early it finds one.
    pub fn caller(&self, key: &str) -> Option<&str> {
        self.0.iter().fold(None, |found, (name, hash)| if hash.is_of(key) { Some(name) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `one` and `two`, by `sha256sum`.
    const ONE: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    const TWO: &str = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

    #[test]
    fn a_caller_is_known_by_each_of_its_keys_and_by_nothing_else() {
        let keys = ApiKeys::read(&format!("# Since May.\n\nweb:{ONE}\n  till-7:{}\nweb:{}\n", TWO.to_uppercase(), {
            "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f"
        }))
        .unwrap();
        for (key, caller) in [("one", Some("web")), ("two", Some("till-7")), ("three", Some("web"))] {
            assert_eq!(keys.caller(key), caller, "{key}");
        }
        for key in ["", "web", "One", ONE, "one "] {
            assert_eq!(keys.caller(key), None, "{key}");
        }
        assert!(!format!("{keys:?}").contains("7692"), "{keys:?}");
    }

    #[test]
    fn a_line_that_is_wrong_is_named_with_what_would_be_right() {
        for (text, wrong) in [
            ("", "names no caller"),
            ("# web", "names no caller"),
            ("\nweb", "line 2: expected name:hash"),
            ("web:one", "64 hexadecimal digits"),
            (&format!("web:{ONE}0"), "64 hexadecimal digits"),
            (&format!("web:{}é", &ONE[2..]), "64 hexadecimal digits"),
            (&format!("-:{ONE}"), "begins with a letter or a digit"),
            (&format!("a b:{ONE}"), "a name is made of"),
            (&format!(":{ONE}"), "begins with a letter"),
            (&format!("web:{ONE}\ntill:{ONE}"), "line 2: another caller has the same key"),
        ] {
            let error = ApiKeys::read(text).unwrap_err();
            assert!(error.contains(wrong) && !error.contains(&ONE[..8]), "{text}: {error}");
        }
    }
}
