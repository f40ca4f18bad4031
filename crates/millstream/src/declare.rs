//! The streams of the broker as they are wanted; making and changing them, or only comparing.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, UpdateStreamError};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use millstream_core::declaration::Published;
use millstream_core::server::{Replicas, replicas};

use crate::dead_letter;
use crate::release::Release;

/// In the metadata of a domain's stream: the number of its partitions.
pub(crate) const PARTITIONS: &str = "millstream.partitions";

/// In a stream's metadata: the durables that hold it, separated by commas.
pub(crate) const READERS: &str = "millstream.readers";

/// The field with the number of a stream's copies.
const REPLICAS: &str = "num_replicas";

/// In a durable's metadata: `true` if what it has not read yet may be taken away.
pub(crate) const BEST_EFFORT: &str = "millstream.best_effort";

/// A domain's stream: file storage, kept until trimmed, refusing what exceeds its size.
pub(crate) fn events(stream: &Published) -> Config {
    let mut wanted = limits(&stream.stream, format!("{}.>", stream.domain));
    wanted.max_bytes = i64::try_from(stream.max_bytes).unwrap_or(i64::MAX);
    wanted.metadata.insert(PARTITIONS.into(), stream.partitions.to_string());
    wanted
}

/// The stream of a service's dead letters, which nobody trims.
pub(crate) fn dead_letters(service: &str) -> Config {
    let mut wanted = limits(&dead_letter::stream_name(service), dead_letter::subjects(service));
    wanted.max_messages_per_subject = 1;
    wanted.allow_message_ttl = true;
    wanted
}

/// The work queue of redrives, which is nobody's own. A later redrive takes the place of an earlier one.
pub(crate) fn redrives() -> Config {
    let mut wanted = limits(dead_letter::REDRIVE, "redrive.>".into());
    wanted.retention = RetentionPolicy::WorkQueue;
    wanted.max_messages_per_subject = 1;
    wanted.discard = DiscardPolicy::Old;
    wanted
}

/// A stream in a file, without limits, that refuses what does not fit. It asks for no number of replicas (`num_replicas: 0`).
pub(crate) fn limits(name: &str, subjects: String) -> Config {
    Config {
        name: name.into(),
        subjects: vec![subjects],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: Duration::from_secs(30),
        allow_direct: true,
        ..Config::default()
    }
}

/// What was done to have a stream as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Made,
    /// Changed in these fields.
    Changed(Vec<&'static str>),
    /// It is as it was.
    Nothing,
    /// A newer release has declared it, and it is as it was.
    Left,
}

/// Reads, compares, writes only a difference, and nothing over a newer release. What cannot be changed is an error that names
/// the field.
pub(crate) async fn declare(jetstream: &Context, mut wanted: Config, release: &Release) -> Result<Done, DeclareError> {
    release.sign(&mut wanted.metadata);
    let asked = Some(wanted.num_replicas).filter(|asked| *asked > 0);
    let Some(info) = find(jetstream, &wanted.name).await? else {
        let clustered = jetstream.client().server_info().cluster.is_some();
        return create(jetstream, wanted, replicas(asked, clustered, None)).await;
    };
    let have = info.config;
    // A single server says nothing of a cluster here. Some versions of it take any number of replicas, and do not find the stream
    // again at their next start.
    let clustered = info.cluster.is_some();
    let Replicas { wanted: number, otherwise } = replicas(asked, clustered, Some(have.num_replicas));
    if !clustered && number > have.num_replicas {
        return Err(DeclareError::TooFew { stream: wanted.name, replicas: number, error: "it is a single one".into() });
    }
    wanted.num_replicas = number;
    let Some((mut fields, mut changed)) = changes(&have, wanted, release)? else { return Ok(Done::Left) };
    if changed.metadata != have.metadata {
        fields.push("metadata");
    }
    loop {
        if changed == have {
            return Ok(Done::Nothing);
        }
        match jetstream.update_stream(&changed).await {
            Ok(_) => break,
            Err(error) if lacks_servers(&error) && otherwise.is_some_and(|fewer| fewer < changed.num_replicas) => {
                let replicas = have.num_replicas;
                tracing::warn!(
                    stream = changed.name,
                    replicas,
                    "the cluster has too few servers to raise the stream's replicas"
                );
                changed.num_replicas = replicas;
                fields.retain(|field| *field != REPLICAS);
            }
            Err(error) => return Err(refusal(changed, &error)),
        }
    }
    if changed.num_replicas > have.num_replicas {
        let (from, to) = (have.num_replicas, changed.num_replicas);
        tracing::info!(stream = changed.name, from, to, "the stream's replicas were raised");
    }
    Ok(Done::Changed(fields))
}

async fn create(jetstream: &Context, mut wanted: Config, number: Replicas) -> Result<Done, DeclareError> {
    wanted.num_replicas = number.wanted;
    let stream = wanted.name.clone();
    match (jetstream.create_stream(wanted.clone()).await, number.otherwise) {
        (Ok(_), _) => Ok(Done::Made),
        (Err(error), Some(fewer)) if fewer < number.wanted && lacks_servers(&error) => {
            tracing::warn!(
                stream,
                replicas = fewer,
                "the cluster has too few servers for three replicas of the stream"
            );
            wanted.num_replicas = fewer;
            let created = jetstream.create_stream(wanted).await;
            created.map(|_| Done::Made).map_err(|error| unmade(&stream, &error))
        }
        (Err(error), None) if lacks_servers(&error) => Err(refusal(wanted, &error)),
        (Err(error), _) => Err(unmade(&stream, &error)),
    }
}

fn unmade(stream: &str, error: &UpdateStreamError) -> DeclareError {
    DeclareError::Away(format!("stream {stream} cannot be made: {error}"))
}

fn refusal(wanted: Config, error: &UpdateStreamError) -> DeclareError {
    let (stream, replicas, error_text) = (wanted.name, wanted.num_replicas, error.to_string());
    match lacks_servers(error) {
        true => DeclareError::TooFew { stream, replicas, error: error_text },
        false => DeclareError::Refused { stream, error: error_text },
    }
}

/// Whether the broker has too few servers for so many replicas.
fn lacks_servers(error: &UpdateStreamError) -> bool {
    let codes =
        [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::INSUFFICIENT_RESOURCES, ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED];
    matches!(error.kind(), CreateStreamErrorKind::JetStream(reply) if codes.contains(&reply.error_code()))
}

/// Declares a stream that is nobody's own, in the toolkit's release: whoever uses it has it as it is wanted, and changes nothing
/// only to say that its release is newer.
pub(crate) async fn declare_ownerless(jetstream: &Context, wanted: Config) -> Result<Done, DeclareError> {
    let release = Release::default();
    match expect(jetstream, &wanted, &release).await {
        Ok(()) => Ok(Done::Nothing),
        Err(DeclareError::Missing(_) | DeclareError::Differs { .. }) => declare(jetstream, wanted, &release).await,
        Err(error) => Err(error),
    }
}

/// Whether a stream is there as it is wanted, or as a newer release has declared it. Changes nothing.
pub(crate) async fn expect(jetstream: &Context, wanted: &Config, release: &Release) -> Result<(), DeclareError> {
    let stream = wanted.name.clone();
    let Some(have) = find(jetstream, &stream).await?.map(|info| info.config) else {
        return Err(DeclareError::Missing(stream));
    };
    match changes(&have, wanted.clone(), release)? {
        Some((fields, _)) if !fields.is_empty() => Err(DeclareError::Differs { stream, fields: fields.join(", ") }),
        _ => Ok(()),
    }
}

/// A stream as it is; `None` if there is none.
pub(crate) async fn find(jetstream: &Context, name: &str) -> Result<Option<Info>, DeclareError> {
    match jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(DeclareError::Away(error.to_string())),
        },
    }
}

/// The fields in which a stream is not as it is wanted, and its configuration when it is; `None` if a newer release has declared
/// it.
pub(crate) fn changes(
    have: &Config,
    wanted: Config,
    release: &Release,
) -> Result<Option<(Vec<&'static str>, Config)>, DeclareError> {
    let fixed = |field: &'static str, same: bool| {
        if same { Ok(()) } else { Err(DeclareError::Fixed { stream: wanted.name.clone(), field }) }
    };
    fixed("storage", have.storage == wanted.storage)?;
    fixed("retention", have.retention == wanted.retention)?;
    fixed("mirror", have.mirror.is_none())?;
    fixed("sealed", !have.sealed)?;
    // What is read is trimmed.
    fixed("deny_purge", !have.deny_purge)?;
    fixed("partitions", have.metadata.get(PARTITIONS) == wanted.metadata.get(PARTITIONS))?;
    if have.persist_mode == Some(PersistenceMode::Async) {
        return Err(DeclareError::Async(wanted.name));
    }
    if release.is_older_than(&have.metadata) {
        return Ok(None);
    }
    let fields = [
        ("subjects", have.subjects == wanted.subjects),
        ("max_bytes", have.max_bytes == wanted.max_bytes),
        ("discard", have.discard == wanted.discard),
        ("max_msgs_per_subject", have.max_messages_per_subject == wanted.max_messages_per_subject),
        ("allow_msg_ttl", have.allow_message_ttl == wanted.allow_message_ttl),
        ("max_age", have.max_age == wanted.max_age),
        ("duplicate_window", have.duplicate_window == wanted.duplicate_window),
        (REPLICAS, have.num_replicas >= wanted.num_replicas),
        ("max_msgs", have.max_messages == wanted.max_messages),
        // The broker writes none as -1.
        ("max_msg_size", have.max_message_size <= 0),
        ("no_ack", !have.no_ack),
        ("allow_direct", have.allow_direct == wanted.allow_direct),
        // With one message a subject, none could be replaced.
        ("discard_new_per_subject", !have.discard_new_per_subject),
        // A durable that is idle would vanish, and what it has not read be trimmed.
        ("consumer_limits", have.consumer_limits.is_none()),
        // By these a stream gets messages of others, or gives them away, past all permissions.
        ("sources", have.sources.as_ref().is_none_or(Vec::is_empty)),
        ("republish", have.republish.is_none()),
        ("subject_transform", have.subject_transform.is_none()),
    ];
    let mut metadata = have.metadata.clone();
    metadata.extend(wanted.metadata);
    let changed = Config {
        subjects: wanted.subjects,
        max_bytes: wanted.max_bytes,
        discard: wanted.discard,
        max_messages_per_subject: wanted.max_messages_per_subject,
        allow_message_ttl: wanted.allow_message_ttl,
        max_age: wanted.max_age,
        duplicate_window: wanted.duplicate_window,
        num_replicas: wanted.num_replicas.max(have.num_replicas),
        max_messages: wanted.max_messages,
        max_message_size: have.max_message_size.min(0),
        no_ack: false,
        allow_direct: wanted.allow_direct,
        discard_new_per_subject: false,
        consumer_limits: None,
        sources: None,
        republish: None,
        subject_transform: None,
        metadata,
        ..have.clone()
    };
    Ok(Some((fields.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect(), changed)))
}

/// Why a stream is not as it is wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeclareError {
    /// The broker does not answer; worth another try.
    #[error("{0}")]
    Away(String),
    /// It is not there, and whoever asks may not make it.
    #[error("stream {0} is missing: run `millstream declare`, which makes it from the services' declarations")]
    Missing(String),
    /// It is another one, and whoever asks may not change it.
    #[error(
        "stream {stream} differs from what this release declares ({fields}): run `millstream declare` with this release's \
         declarations"
    )]
    Differs { stream: String, fields: String },
    /// The stream exists with another value of something that cannot be changed.
    #[error("stream {stream} exists with another `{field}`, which cannot be changed: rename the stream or delete it")]
    Fixed { stream: String, field: &'static str },
    /// Fewer servers than replicas.
    #[error(
        "stream {stream} cannot have {replicas} replicas on the broker's servers: {error}; see --stream-replicas (STREAM_REPLICAS)"
    )]
    TooFew { stream: String, replicas: usize, error: String },
    /// What it acknowledges it may not have written.
    #[error(
        "stream {0} has `persist_mode: async`: it acknowledges messages before they are written, and loses them when the broker is \
         killed; that cannot be changed: delete the stream or rename it"
    )]
    Async(String),
    /// The broker refuses the change.
    #[error("stream {stream} cannot be changed to what is declared: {error}")]
    Refused { stream: String, error: String },
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::{ConsumerLimits, Republish, Source};

    use super::*;

    fn bank(max_bytes: u64) -> Config {
        events(&Published { stream: "BANK".into(), domain: "bank".into(), partitions: 8, max_bytes })
    }

    fn declared(max_bytes: u64, version: &str) -> Config {
        let mut config = bank(max_bytes);
        Release::read(version).unwrap().sign(&mut config.metadata);
        config
    }

    #[test]
    fn what_differs_is_named_and_a_newer_release_is_left_alone() {
        let release = Release::read("1.1.0").unwrap();
        let fields = |have: &Config, wanted| changes(have, wanted, &release).unwrap().map(|(fields, _)| fields);
        assert_eq!(fields(&declared(10, "1.0.0"), bank(10)), Some(vec![]));
        assert_eq!(fields(&declared(10, "1.0.0"), bank(20)), Some(vec!["max_bytes"]));
        assert_eq!(fields(&declared(10, "1.2.0"), bank(20)), None);
        let fixed = changes(&declared(10, "1.2.0"), dead_letters("bank"), &release).unwrap_err();
        assert!(matches!(fixed, DeclareError::Fixed { field: "partitions", .. }), "{fixed}");
    }

    #[test]
    fn a_stream_that_loses_or_gives_away_messages_by_another_setting_is_put_right_or_refused() {
        let release = Release::read("1.0.0").unwrap();
        let right = declared(10, "1.0.0");
        let source = Source { name: "OTHER".into(), ..Source::default() };
        let elsewhere = Republish { source: ">".into(), destination: "copy.>".into(), headers_only: false };
        for (field, have) in [
            ("max_msgs", Config { max_messages: 1, ..right.clone() }),
            ("max_msg_size", Config { max_message_size: 10, ..right.clone() }),
            ("no_ack", Config { no_ack: true, ..right.clone() }),
            ("allow_direct", Config { allow_direct: false, ..right.clone() }),
            ("discard_new_per_subject", Config { discard_new_per_subject: true, ..right.clone() }),
            ("consumer_limits", Config { consumer_limits: Some(ConsumerLimits::default()), ..right.clone() }),
            ("sources", Config { sources: Some(vec![source.clone()]), ..right.clone() }),
            ("republish", Config { republish: Some(elsewhere), ..right.clone() }),
        ] {
            let (fields, changed) = changes(&have, right.clone(), &release).unwrap().unwrap();
            assert_eq!(fields, [field]);
            assert_eq!(changes(&changed, right.clone(), &release).unwrap().unwrap().0, Vec::<&str>::new(), "{field}");
        }
        for have in [
            Config { mirror: Some(source), ..right.clone() },
            Config { sealed: true, ..right.clone() },
            Config { deny_purge: true, ..right.clone() },
        ] {
            assert!(matches!(changes(&have, right.clone(), &release), Err(DeclareError::Fixed { .. })));
        }
    }

    #[test]
    fn a_stream_is_raised_and_never_lowered_and_one_that_acknowledges_too_early_is_refused() {
        let release = Release::read("1.0.0").unwrap();
        let with = |num_replicas| Config { num_replicas, ..declared(10, "1.0.0") };
        let changed = |have, wanted| changes(&with(have), with(wanted), &release).unwrap().unwrap();
        assert_eq!(changed(1, 3), (vec!["num_replicas"], with(3)));
        assert_eq!(changed(5, 3), (vec![], with(5)));
        assert_eq!(changed(3, 0), (vec![], with(3)), "what asks for no number takes any");
        let early = Config { persist_mode: Some(PersistenceMode::Async), ..with(1) };
        let refused = changes(&early, with(1), &release).unwrap_err().to_string();
        assert!(refused.contains("BANK has `persist_mode: async`"), "{refused}");
    }

    #[test]
    fn what_others_have_noted_on_a_stream_stays() {
        let mut have = declared(10, "1.0.0");
        have.metadata.insert(READERS.into(), "ledger".into());
        let (_, changed) = changes(&have, declared(10, "1.1.0"), &Release::read("1.1.0").unwrap()).unwrap().unwrap();
        assert_eq!(changed.metadata[READERS], "ledger");
        assert_ne!(changed, have, "the newer release signs it");
    }
}
