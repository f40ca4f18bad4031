//! Releases: streams and durables carry the one that declared them, and an older one does not write over a newer.

use std::collections::HashMap;

use semver::Version;

/// In the metadata of a stream or a durable: the release that declared it.
pub(crate) const KEY: &str = "millstream.release";

/// The release of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(Version);

impl Default for Release {
    /// The toolkit's.
    fn default() -> Self {
        Self::read(env!("CARGO_PKG_VERSION")).unwrap_or(Self(Version::new(0, 0, 0)))
    }
}

impl Release {
    /// Reads a version such as `1.4.0` or `1.4.0-rc.1`.
    pub(crate) fn read(version: &str) -> Result<Self, semver::Error> {
        version.parse().map(Self)
    }

    /// Whether what carries these metadata was declared by a newer release than this one.
    pub(crate) fn is_older_than(&self, metadata: &HashMap<String, String>) -> bool {
        let declared = metadata.get(KEY).and_then(|version| Self::read(version).ok());
        // Build metadata have no order, and do not make a release another one.
        declared.is_some_and(|declared| self.0.cmp_precedence(&declared.0).is_lt())
    }

    /// Writes itself down.
    pub(crate) fn sign(&self, metadata: &mut HashMap<String, String>) {
        metadata.insert(KEY.into(), self.0.to_string());
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_as_semantic_versions_and_none_is_the_oldest() {
        let of = |version| Release::read(version).unwrap();
        let signed = |version| {
            let mut metadata = HashMap::new();
            of(version).sign(&mut metadata);
            metadata
        };
        for (older, newer) in [("1.9.0", "1.10.0"), ("1.0.0-rc.1", "1.0.0"), ("0.9.9", "1.0.0-rc.1")] {
            assert!(of(older).is_older_than(&signed(newer)), "{older} {newer}");
            assert!(!of(newer).is_older_than(&signed(older)), "{older} {newer}");
        }
        assert!(!of("1.0.0").is_older_than(&signed("1.0.0+build.2")));
        assert!(!of("0.0.1").is_older_than(&HashMap::new()));
    }
}
