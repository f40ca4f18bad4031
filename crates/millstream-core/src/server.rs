//! What is known of the broker's server: in how many copies it can keep a stream, and what a version of it lacks.

/// How many replicas a stream has in a cluster unless told otherwise: with three, one server may be lost.
pub const IN_A_CLUSTER: usize = 3;

/// The most that a server takes.
pub const MOST: usize = 5;

/// How many replicas a stream is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// So many.
    pub wanted: usize,
    /// And so many where the cluster has too few servers for that; `None` if it is then an error.
    pub otherwise: Option<usize>,
}

/// How many replicas a stream is to have: as many as are asked for, else three in a cluster and one on a single server. What a stream
/// has it keeps: it is never lowered.
pub fn replicas(asked: Option<usize>, clustered: bool, have: Option<usize>) -> Replicas {
    let have = have.unwrap_or(1).max(1);
    let wanted = asked.unwrap_or(if clustered { IN_A_CLUSTER } else { 1 }).max(have);
    Replicas { wanted, otherwise: asked.is_none().then_some(have) }
}

/// What is known of a server of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Why it is not to be used at all.
    pub refused: Option<String>,
    /// What it lacks, for the log and `/health`.
    pub lacks: Vec<String>,
}

/// The oldest version that has what the engine uses.
const MINIMUM: (u32, u32, u32) = (2, 12, 0);

/// The first version in which removing a server from a cluster no longer takes what others have acknowledged.
const MEMBERSHIP: (u32, u32, u32) = (2, 12, 3);

/// The first version that keeps what `sync_interval: always` promises.
const SYNCED: (u32, u32, u32) = (2, 14, 6);

/// What is known of a server that says it is `version`, alone or in a cluster.
pub fn known(version: &str, clustered: bool) -> Known {
    let Some(this) = read(version) else {
        let unknown = format!("the broker says that it is version `{version}`, of which nothing is known");
        return Known { refused: None, lacks: vec![unknown] };
    };
    if this < MINIMUM {
        return Known {
            refused: Some(format!("nats-server {version} is too old: 2.12.0 or newer is needed")),
            lacks: vec![],
        };
    }
    if clustered && this < MEMBERSHIP {
        let why = "a cluster of it can lose acknowledged messages, without a power failure, when servers are killed while one is removed \
                   (nats-server#7545): 2.12.3 or newer is needed";
        return Known { refused: Some(format!("nats-server {version}: {why}")), lacks: vec![] };
    }
    let mut lacks = vec![];
    if this < SYNCED {
        lacks.push(format!(
            "nats-server {version} may acknowledge a message before it is on the disk, even with `sync_interval: always` \
             (nats-server#8456): a power failure can take it; 2.14.6 or newer keeps that promise"
        ));
    }
    Known { refused: None, lacks }
}

/// `2.14.0-RC.1` as numbers: what follows the third is left out.
fn read(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.').map(|part| {
        let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_three_replicas_in_a_cluster_unless_told_otherwise_and_never_fewer_than_it_has() {
        for (asked, clustered, have, wanted, otherwise) in [
            (None, false, None, 1, Some(1)),
            (None, false, Some(1), 1, Some(1)),
            (None, true, None, 3, Some(1)),
            (None, true, Some(1), 3, Some(1)),
            (None, true, Some(5), 5, Some(5)),
            // As a server of a single one says that has lost its cluster.
            (None, false, Some(3), 3, Some(3)),
            (Some(1), true, None, 1, None),
            (Some(1), true, Some(3), 3, None),
            (Some(5), true, Some(3), 5, None),
            (Some(3), false, None, 3, None),
        ] {
            let case = format!("{asked:?} {clustered} {have:?}");
            assert_eq!(replicas(asked, clustered, have), Replicas { wanted, otherwise }, "{case}");
        }
    }

    #[test]
    fn what_a_version_lacks_is_told_and_one_that_loses_without_a_power_failure_is_refused() {
        for (version, clustered, refused, lacking) in [
            ("2.15.1", true, "", 0),
            ("2.15.0-RC.1", true, "", 0),
            ("2.16.0", false, "", 0),
            ("2.14.6", true, "", 0),
            ("2.14.5", true, "", 1),
            ("2.14.0", false, "", 1),
            ("2.12.3", true, "", 1),
            ("2.12.1", true, "nats-server#7545", 0),
            ("2.12.0", true, "2.12.3 or newer", 0),
            ("2.12.1", false, "", 1),
            ("2.9.25", false, "too old", 0),
            ("of our own", true, "", 1),
        ] {
            let known = known(version, clustered);
            assert_eq!(known.lacks.len(), lacking, "{version}: {known:?}");
            assert!(known.lacks.iter().all(|lack| lack.contains(version)), "{known:?}");
            match refused {
                "" => assert_eq!(known.refused, None, "{version}"),
                part => assert!(known.refused.as_ref().is_some_and(|why| why.contains(part)), "{version}: {known:?}"),
            }
        }
    }
}
