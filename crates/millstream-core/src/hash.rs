//! Maps and sets for the hot path, with a hash that is fast and, being seeded anew in each process, as hard to flood as is needed
//! for keys that are mostly ids of our own.

pub use foldhash::{HashMap, HashSet};
