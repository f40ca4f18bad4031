//! Declaring what the services of a release need, before they start: all of it, or nothing if something would be lost.

use std::collections::BTreeSet;

use async_nats::jetstream::stream::{Config, Info};
use futures_util::TryStreamExt;
use millstream_core::declaration::{Declaration, readers};
use serde::Serialize;

use crate::declare::{
    BEST_EFFORT, DeclareError, Done, READERS, changes, dead_letters, declare, events, find, redrives,
};
use crate::operator::{Operator, OperatorError, audit};
use crate::release::Release;

/// A stream, and what was done to have it as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredStream {
    /// The stream.
    pub stream: String,
    /// What was done.
    pub outcome: Outcome,
}

/// What was done to have a stream as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was missing, and was made.
    Made,
    /// These fields were changed.
    Changed(Vec<&'static str>),
    /// It was as it is declared.
    Unchanged,
    /// A newer release has declared it, and it was left as it is.
    LeftToNewer,
}

impl From<Done> for Outcome {
    fn from(done: Done) -> Self {
        match done {
            Done::Made => Self::Made,
            Done::Changed(fields) => Self::Changed(fields),
            Done::Nothing => Self::Unchanged,
            Done::Left => Self::LeftToNewer,
        }
    }
}

impl Operator {
    /// Makes and changes the streams of these services, and those that all share: needs the right to make and change streams.
    /// Repeated it changes nothing more.
    ///
    /// # Errors
    /// When something that is in a stream would be lost, or cannot be changed: then nothing was done. Or the broker refuses it, or
    /// does not answer.
    pub async fn declare(&self, all: &[Declaration]) -> Result<Vec<DeclaredStream>, OperatorError> {
        let num_replicas = all.iter().filter_map(|one| one.replicas).max().unwrap_or_default();
        let shared = [redrives(), audit::stream()].map(|config| Config { num_replicas, ..config });
        let mut wanted: Vec<(Config, Release)> = shared.map(|config| (config, Release::default())).into();
        for Declaration { service, release, publishes, replicas, .. } in all {
            let version = release;
            let release = Release::read(version)
                .map_err(|error| OperatorError::Refused(format!("`{service}`: the release `{version}`: {error}")))?;
            let with = |config: Config| Config { num_replicas: replicas.unwrap_or_default(), ..config };
            wanted.extend(publishes.iter().map(|own| (with(events(own)), release.clone())));
            wanted.push((with(dead_letters(service)), release));
        }
        let own: BTreeSet<String> = all.iter().flat_map(|one| &one.publishes).map(|own| own.stream.clone()).collect();
        let read: BTreeSet<String> = all.iter().flat_map(|one| &one.reads).map(|read| read.stream.clone()).collect();
        for stream in read.difference(&own) {
            if find(&self.jetstream, stream).await.map_err(failure)?.is_none() {
                return Err(OperatorError::Refused(format!(
                    "stream {stream} is to be read, is not there, and none of these services publishes it: declare its owner, too, \
                     or correct its name"
                )));
            }
        }
        for (wanted, release) in &mut wanted {
            let have = find(&self.jetstream, &wanted.name).await.map_err(failure)?;
            if let Some(have) = &have {
                fits(have, wanted, release)?;
            }
            if own.contains(&wanted.name) {
                self.note_readers(all, have.as_ref(), wanted).await?;
            }
        }
        let mut done = vec![];
        for (wanted, release) in wanted {
            let stream = wanted.name.clone();
            let outcome = declare(&self.jetstream, wanted, &release).await.map_err(failure)?.into();
            done.push(DeclaredStream { stream, outcome });
        }
        // Those of others, and those that a newer release has declared: nothing of them is changed but who reads them.
        let left = done.iter().filter(|done| done.outcome == Outcome::LeftToNewer).map(|done| done.stream.clone());
        let noted: BTreeSet<String> =
            left.chain(read.difference(&own).cloned()).filter(|name| read.contains(name)).collect();
        for stream in noted {
            let Some(have) = find(&self.jetstream, &stream).await.map_err(failure)? else { continue };
            let mut with_readers = have.config.clone();
            self.note_readers(all, Some(&have), &mut with_readers).await?;
            if with_readers != have.config {
                let refused =
                    |error| OperatorError::Refused(format!("stream {stream} cannot name its readers: {error}"));
                self.jetstream.update_stream(&with_readers).await.map_err(refused)?;
                done.push(DeclaredStream { stream, outcome: Outcome::Changed(vec!["metadata"]) });
            }
        }
        Ok(done)
    }

    /// Notes on a stream who reads it, so that its owner trims nothing that one of them has not handled, also while the durable is
    /// missing: the services that are declared to, and whoever has a durable on it.
    async fn note_readers(
        &self,
        all: &[Declaration],
        have: Option<&Info>,
        wanted: &mut Config,
    ) -> Result<(), OperatorError> {
        let (holding, best_effort) = readers(all, &wanted.name);
        let mut known: BTreeSet<String> = holding.into_iter().map(Into::into).collect();
        let noted = have.and_then(|have| have.config.metadata.get(READERS));
        if have.is_some() {
            known.extend(
                noted.into_iter().flat_map(|noted| noted.split(',')).filter(|name| !name.is_empty()).map(Into::into),
            );
            let away = |error: &dyn std::fmt::Display| {
                OperatorError::Away(format!("the consumers of {}: {error}", wanted.name))
            };
            let stream = self.jetstream.get_stream_no_info(&wanted.name).await.map_err(|error| away(&error))?;
            let durables: Vec<_> = stream.consumers().try_collect().await.map_err(|error| away(&error))?;
            for durable in durables.into_iter().map(|info| info.config) {
                let Some(name) = durable.durable_name else { continue };
                match durable.metadata.get(BEST_EFFORT).is_some_and(|value| value == "true") {
                    true => known.remove(&name),
                    false => known.insert(name),
                };
            }
        }
        known.retain(|name| !best_effort.contains(name.as_str()));
        // Without a reader the stream is to be kept whole for its first one, unless its owner says otherwise. One whose last reader
        // was retired has had its first.
        if !known.is_empty() || noted.is_some() {
            wanted.metadata.insert(READERS.into(), known.into_iter().collect::<Vec<_>>().join(","));
        }
        Ok(())
    }
}

/// Whether a stream can become what is wanted without losing anything.
fn fits(have: &Info, wanted: &Config, release: &Release) -> Result<(), OperatorError> {
    let Some((fields, _)) = changes(&have.config, wanted.clone(), release).map_err(failure)? else { return Ok(()) };
    // A smaller number of messages a subject, or a shorter time, takes away what is there.
    let of_subject = |config: &Config| u64::try_from(config.max_messages_per_subject).ok().filter(|most| *most > 0);
    let shortens =
        |have: Option<u64>, wanted: Option<u64>| wanted.is_some_and(|most| have.is_none_or(|have| most < have));
    let age = |config: &Config| Some(config.max_age.as_secs()).filter(|age| *age > 0);
    let shorter = [
        ("max_msgs_per_subject", shortens(of_subject(&have.config), of_subject(wanted))),
        ("max_age", shortens(age(&have.config), age(wanted))),
    ];
    if let Some((field, _)) = shorter.into_iter().find(|(_, shorter)| *shorter && have.state.messages > 0) {
        return Err(OperatorError::Refused(format!(
            "stream {} has messages, and a smaller `{field}`, which release {release} declares, would take some of them away",
            wanted.name
        )));
    }
    let (holds, most) = (have.state.bytes, u64::try_from(wanted.max_bytes).unwrap_or(u64::MAX));
    if fields.contains(&"max_bytes") && holds > most {
        return Err(OperatorError::Refused(format!(
            "stream {} holds {holds} bytes, and release {release} declares {most} at most: wait until it is trimmed, or \
             declare a larger limit",
            wanted.name
        )));
    }
    Ok(())
}

fn failure(error: DeclareError) -> OperatorError {
    match error {
        DeclareError::Away(_) => OperatorError::Away(error.to_string()),
        DeclareError::Missing(_) => OperatorError::NotFound(error.to_string()),
        _ => OperatorError::Refused(error.to_string()),
    }
}
