//! The toolkit from outside: over real stores and brokers.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod sqlite;
