//! The URL of a store.

use std::fmt;
use std::path::PathBuf;

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
    /// Reads `sqlite://PATH`, where the path is relative (`sqlite://data/orders.db`) or absolute (`sqlite:///var/orders.db`), or
    /// `mongodb://…` where there is the feature for it.
    ///
    /// # Errors
    /// Says what would be right, without the URL.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() && !path.contains(['?', '#']) => Ok(Self::Sqlite(path.into())),
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
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            #[cfg(feature = "mongodb")]
            Self::Mongo(url) => fmt::Display::fmt(url, f),
        }
    }
}
