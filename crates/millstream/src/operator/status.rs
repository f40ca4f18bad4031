//! What is there: streams, consumers, instances.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream::consumer::Info as ConsumerInfo;
use futures_util::TryStreamExt;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::declare::PARTITIONS;
use crate::ids::Timestamp;
use crate::operator::read::{ReadFrom, millis};
use crate::operator::verdict::silences;
use crate::operator::{Operator, OperatorError};
use crate::release;

/// A system at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemStatus {
    /// All streams, by name.
    pub streams: Vec<StreamStatus>,
    /// All durable consumers, by stream and name.
    pub consumers: Vec<ConsumerStatus>,
    /// All instances that answer, by service.
    pub instances: Vec<InstanceStatus>,
}

/// A stream.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub subjects: Vec<String>,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// How many bytes it may hold; `None` if there is no limit.
    pub max_bytes: Option<u64>,
    /// Its first message's sequence.
    pub first_sequence: u64,
    /// Its last message's sequence.
    pub last_sequence: u64,
    /// When it was made.
    pub created: Timestamp,
    /// The number of its partitions, if it is a domain's.
    pub partitions: Option<u32>,
    /// The release that last declared it.
    pub release: Option<String>,
}

/// A durable consumer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStatus {
    /// Its stream.
    pub stream: String,
    /// Its name, which is its service's.
    pub name: String,
    /// The types of event it is given, as far as its filters name them; all that its stream has, if they name none.
    pub events: Vec<String>,
    /// Messages it has not been given.
    pub pending: u64,
    /// Messages it has been given and has not acked.
    pub ack_pending: u64,
    /// Of those, how many it was given more than once.
    pub redelivered: u64,
    /// Pulls that wait.
    pub waiting: u64,
    /// Everything up to this sequence is acked.
    pub ack_floor: u64,
    /// Age of the oldest message that is not acked, in seconds; 0 if there is none.
    pub oldest_age_seconds: f64,
    /// The release of the service that last declared it; none if it is not one of ours.
    pub release: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Until when somebody has paused it.
    pub paused_until: Option<Timestamp>,
}

/// An instance of a service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The service.
    pub service: String,
    /// The instance's id.
    pub instance: String,
    /// Its release.
    pub version: String,
    /// The revision of its source, if known.
    pub revision: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Its health, as `/health` says it.
    pub health: serde_json::Value,
    /// Its counters since it started, by name.
    pub totals: serde_json::Value,
}

impl SystemStatus {
    /// What outside of the system does not answer a service, a sentence for each kind of effect.
    pub fn silences(&self, service: &str, now: Timestamp) -> Vec<String> {
        silences(self, service, now).into_iter().map(|(_, said)| said).collect()
    }

    /// The services that there are or have been: those that answer, that have durable consumers or dead letters.
    pub fn services(&self) -> BTreeSet<String> {
        // Others answer the services protocol too, and have no health of this kind.
        let answer = self.instances.iter().filter(|instance| !instance.health.is_null());
        let answer = answer.map(|instance| instance.service.clone());
        let read = self.consumers.iter().filter(|consumer| consumer.release.is_some());
        let read = read.map(|consumer| consumer.name.clone());
        let dead = self.streams.iter().filter_map(|stream| stream.dead_letters_of().map(Into::into));
        answer.chain(read).chain(dead).collect()
    }
}

impl StreamStatus {
    /// The service whose dead letters it has.
    pub fn dead_letters_of(&self) -> Option<&str> {
        let service = self.subjects.first()?.strip_prefix("dlq.")?.strip_suffix(".>")?;
        self.name.starts_with("DLQ_").then_some(service)
    }
}

/// An answer to `$SRV.PING` or `$SRV.STATS`, as far as it is of interest.
#[derive(Deserialize)]
struct Instance {
    name: String,
    id: String,
    version: String,
    #[serde(default, deserialize_with = "or_default")]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    name: String,
    #[serde(default)]
    data: Value,
}

/// Other clients write `null` where there is nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Operator {
    /// What is there now.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn status(&self) -> Result<SystemStatus, OperatorError> {
        let streams = async {
            let streams = self.streams().await?;
            let consumers = streams.iter().map(|stream| self.consumers(&stream.name));
            let consumers = futures_util::future::try_join_all(consumers).await?;
            Ok((streams, consumers.into_iter().flatten().collect()))
        };
        let ((streams, consumers), instances) = tokio::try_join!(streams, self.instances())?;
        Ok(SystemStatus { streams, consumers, instances })
    }

    /// All streams, by name.
    pub(crate) async fn streams(&self) -> Result<Vec<StreamStatus>, OperatorError> {
        let found = self.jetstream.streams().map_ok(|info| {
            let (config, state) = (info.config, info.state);
            StreamStatus {
                partitions: config.metadata.get(PARTITIONS).and_then(|partitions| partitions.parse().ok()),
                release: config.metadata.get(release::KEY).cloned(),
                max_bytes: u64::try_from(config.max_bytes).ok().filter(|bytes| *bytes > 0),
                name: config.name,
                subjects: config.subjects,
                messages: state.messages,
                bytes: state.bytes,
                first_sequence: state.first_sequence,
                last_sequence: state.last_sequence,
                created: millis(info.created.unix_timestamp_nanos()),
            }
        });
        let found = found.try_collect::<Vec<_>>().await;
        let mut found = found.map_err(|error| OperatorError::Away(format!("the streams cannot be listed: {error}")))?;
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// The durable consumers of a stream, by name.
    pub(crate) async fn consumers(&self, stream: &str) -> Result<Vec<ConsumerStatus>, OperatorError> {
        let away = |error: &dyn std::fmt::Display| {
            OperatorError::Away(format!("the consumers of {stream} cannot be listed: {error}"))
        };
        let infos = match self.jetstream.get_stream_no_info(stream).await {
            Ok(stream) => stream.consumers().try_collect::<Vec<ConsumerInfo>>().await.map_err(|error| away(&error))?,
            Err(error) => return Err(away(&error)),
        };
        let durable = |info: &ConsumerInfo| info.config.durable_name.is_some();
        let found = infos.into_iter().filter(durable).map(|info| async move {
            let mut filters = info.config.filter_subjects;
            filters.extend(Some(info.config.filter_subject).filter(|filter| !filter.is_empty()));
            let floor = info.ack_floor.stream_sequence;
            let behind = info.num_pending > 0 || info.num_ack_pending > 0;
            let oldest_age_seconds = if behind { self.oldest(stream, floor, &filters).await? } else { 0.0 };
            let event = |filter: String| filter.strip_suffix(".*").map(Into::into);
            Ok(ConsumerStatus {
                stream: stream.into(),
                name: info.name,
                events: filters.into_iter().filter_map(event).collect(),
                pending: info.num_pending,
                ack_pending: info.num_ack_pending as u64,
                redelivered: info.num_redelivered as u64,
                waiting: info.num_waiting as u64,
                ack_floor: floor,
                oldest_age_seconds,
                release: info.config.metadata.get(release::KEY).cloned(),
                created: millis(info.created.unix_timestamp_nanos()),
                paused_until: info
                    .config
                    .pause_until
                    .filter(|_| info.paused)
                    .map(|until| millis(until.unix_timestamp_nanos())),
            })
        });
        let mut found = futures_util::future::try_join_all(found).await?;
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// The age in seconds of the first message after an ack floor that a consumer with these filters is for.
    async fn oldest(&self, stream: &str, floor: u64, filters: &[String]) -> Result<f64, OperatorError> {
        let all = [">".to_owned()];
        let filters = if filters.is_empty() { &all } else { filters };
        let first = filters.iter().map(|filter| self.first(stream, filter, ReadFrom::Sequence(floor + 1)));
        let first = futures_util::future::try_join_all(first).await?;
        let oldest = first.into_iter().flatten().min_by_key(|message| message.sequence);
        Ok(oldest.map_or(0.0, |oldest| Timestamp::system().since(oldest.at).as_secs_f64()))
    }

    /// All instances that answer, by service.
    pub(crate) async fn instances(&self) -> Result<Vec<InstanceStatus>, OperatorError> {
        let (pongs, stats) = tokio::try_join!(self.ask_all("$SRV.PING"), self.ask_all("$SRV.STATS"))?;
        let read = |answers: Vec<async_nats::Message>| {
            answers.into_iter().filter_map(|answer| serde_json::from_slice::<Instance>(&answer.payload).ok())
        };
        let mut stats: BTreeMap<String, Instance> = read(stats).map(|stats| (stats.id.clone(), stats)).collect();
        let mut found: Vec<_> = read(pongs)
            .map(|pong| {
                let endpoints = stats.remove(&pong.id).map_or(vec![], |stats| stats.endpoints);
                let status = endpoints.into_iter().find(|endpoint| endpoint.name == "status");
                let mut data = status.map_or(Value::Null, |status| status.data);
                let mut part = |name: &str| data.get_mut(name).map_or(Value::Null, Value::take);
                let tag = |name: &str| pong.metadata.get(name);
                InstanceStatus {
                    instance: tag("instance").unwrap_or(&pong.id).clone(),
                    revision: tag("revision").cloned().unwrap_or_default(),
                    started: tag("started").and_then(|started| started.parse().ok()),
                    service: pong.name,
                    version: pong.version,
                    health: part("health"),
                    totals: part("totals"),
                }
            })
            .collect();
        found.sort_unstable_by(|one, other| (&one.service, &one.instance).cmp(&(&other.service, &other.instance)));
        Ok(found)
    }
}
