//! The URL of a store.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// What a path may hold and the text of a URL may not, or not unchanged. Bytes beyond ASCII are escaped as well.
const SPECIAL: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%').add(b':').add(b'?');

/// Where a service keeps its data. Printing it shows neither user nor password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A MongoDB replica set.
    #[cfg(feature = "mongodb")]
    Mongo(crate::store::mongo::MongoUrl),
}

impl StoreUrl {
    /// Reads `sqlite://PATH`, where the path is relative (`sqlite://data/orders.db`) or absolute (`sqlite:///var/orders.db`) and
    /// what a URL cannot carry is percent-encoded (`sqlite://data%231/orders.db`), or `mongodb://…` where there is the feature for it.
    ///
    /// # Errors
    /// Says what would be right, without the URL.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() && !path.contains(['?', '#']) => {
                let path = percent_decode_str(path).collect::<Vec<u8>>();
                // Names with a meaning of their own to SQLite: a database in memory would be another one for each connection.
                if path.starts_with(b":") || path.starts_with(b"file:") {
                    return Err("expected the path of a file after sqlite://; begin it with ./ if it is one".into());
                }
                Ok(Self::Sqlite(OsString::from_vec(path).into()))
            }
            Some(("sqlite", _)) => Err("expected the path of a file after sqlite://, without `?` or `#`".into()),
            #[cfg(feature = "mongodb")]
            Some(("mongodb" | "mongodb+srv", _)) => crate::store::mongo::MongoUrl::read(text).map(Self::Mongo),
            #[cfg(not(feature = "mongodb"))]
            Some(("mongodb" | "mongodb+srv", _)) => Err("this program was built without MongoDB: build it with \
                 `--features mongodb`, or use sqlite://PATH"
                .into()),
            _ => Err("expected sqlite://PATH, for example sqlite://data/orders.db, or mongodb://HOST/DATABASE".into()),
        }
    }

    /// The user that it names, if that has this password.
    pub(crate) fn user_with(&self, password: &str) -> Option<String> {
        match self {
            Self::Sqlite(_) => {
                let _ = password;
                None
            }
            #[cfg(feature = "mongodb")]
            Self::Mongo(url) => url.user_with(password),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => {
                f.write_str("sqlite://")?;
                percent_encode(path.as_os_str().as_bytes(), SPECIAL).fmt(f)
            }
            #[cfg(feature = "mongodb")]
            Self::Mongo(url) => fmt::Display::fmt(url, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_carries_the_path_of_any_folder_there_and_back() {
        for folder in ["d 2026-11-26T17:40", "d#1", "d?x", "d%20e", "dä ö", "plain", "/var/lib"] {
            let url = StoreUrl::Sqlite(format!("{folder}/a.db").into());
            assert_eq!(StoreUrl::read(&url.to_string()), Ok(url.clone()), "{url}");
        }
        let url = StoreUrl::Sqlite("/d #1/a.db".into());
        assert_eq!(url.to_string(), "sqlite:///d%20%231/a.db");
        for wrong in ["sqlite://", "sqlite://a.db?mode=ro", "sqlite://a#b.db", "sqlite://:memory:", "sqlite://file%3Aa"]
        {
            assert!(StoreUrl::read(wrong).unwrap_err().contains("path of a file"), "{wrong}");
        }
    }
}
