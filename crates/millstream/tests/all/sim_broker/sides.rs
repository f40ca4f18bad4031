//! The two brokers that a history is given to: the model, and a real server that is spoken to without a client library's help.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, StatusCode};
use futures_util::StreamExt;
use millstream::sim::broker::{
    Ack, AckToken, ConsumerConfig, Deliver, PublishError, Pull, PullError, SimBroker, StreamConfig,
};
use serde_json::{Value, json};

/// What is done to a broker with one stream and one durable. Subjects are without the stream's prefix.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish {
        subject: &'static str,
        headers: Vec<(&'static str, String)>,
        size: usize,
    },
    Fetch {
        client: usize,
        batch: usize,
    },
    /// Of the delivery with this number among all there were, from 0 on.
    Ack(usize, Ack),
    /// Of the delivery so many before the last one.
    AckBack(usize, Ack),
    Wait(u64),
    Purge(u64),
    Delete(u64),
    Create(ConsumerConfig),
    Update(ConsumerConfig),
    DeleteConsumer,
    CreateStream(StreamConfig),
    UpdateStream(StreamConfig),
    DeleteStream,
    Unpin,
    Reset(Option<u64>),
    Last(&'static str),
}

/// What came out of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// Sequence in the stream, number of the delivery, how often delivered, how many to come.
    Deliveries(Vec<(u64, u64, u64, u64)>),
    Confirmed(bool),
    Said(String),
}

/// A broker.
pub(super) trait Side {
    async fn step(&mut self, now: u64, step: &Step, expected: Option<&Seen>) -> Seen;
    /// The stream and the durable.
    async fn state(&mut self, now: u64) -> String;
}

pub(super) const DURABLE: &str = "reader";

pub(super) struct Model {
    pub(super) broker: SimBroker,
    stream: String,
    tokens: Vec<AckToken>,
    pins: BTreeMap<usize, String>,
}

impl Model {
    pub(super) fn new(stream: &str) -> Self {
        Self { broker: SimBroker::new(), stream: stream.into(), tokens: vec![], pins: BTreeMap::new() }
    }
}

/// The delivery that a step is about.
fn named<'a, T>(step: &Step, tokens: &'a [T]) -> Option<&'a T> {
    match step {
        Step::Ack(nth, _) => tokens.get(*nth),
        Step::AckBack(back, _) => tokens.iter().rev().nth(*back % tokens.len().max(1)),
        _ => None,
    }
}

fn said<T, E: std::fmt::Display>(result: Result<T, E>) -> Seen {
    Seen::Said(result.map_or_else(|error| error.to_string(), |_| "ok".into()))
}

/// A configuration with the names of this run.
fn stream_of(config: &StreamConfig, stream: &str) -> StreamConfig {
    let subjects = config.subjects.iter().map(|subject| format!("{stream}.{subject}")).collect();
    StreamConfig { name: stream.into(), subjects, ..config.clone() }
}

fn consumer_of(config: &ConsumerConfig, stream: &str) -> ConsumerConfig {
    let filter_subjects = config.filter_subjects.iter().map(|filter| format!("{stream}.{filter}")).collect();
    ConsumerConfig { filter_subjects, ..config.clone() }
}

impl Side for Model {
    async fn step(&mut self, now: u64, step: &Step, _: Option<&Seen>) -> Seen {
        let (broker, stream) = (&mut self.broker, self.stream.as_str());
        match step {
            Step::Publish { subject, headers, size } => {
                let headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
                let subject = format!("{stream}.{subject}");
                match broker.publish(now, &subject, headers, vec![b'x'; *size].into()) {
                    Ok(ack) => Seen::Said(format!("{} {}", ack.seq, ack.duplicate)),
                    Err(PublishError::TtlInvalid) => Seen::Said("invalid per-message TTL".into()),
                    Err(error) => Seen::Said(error.to_string()),
                }
            }
            Step::Fetch { client, batch } => {
                let pin = self.pins.get(client).map(String::as_str);
                match broker.fetch(now, stream, DURABLE, Pull { batch: *batch, pin }) {
                    Ok(deliveries) => {
                        let mut seen = vec![];
                        for delivery in deliveries {
                            let token = delivery.token.clone();
                            seen.push((token.stream_seq, token.consumer_seq, delivery.delivered, delivery.pending));
                            self.tokens.push(token);
                            if let Some(pin) = delivery.pin {
                                self.pins.insert(*client, pin);
                            }
                        }
                        Seen::Deliveries(seen)
                    }
                    Err(error) => {
                        if error == PullError::PinMismatch {
                            self.pins.remove(client);
                        }
                        Seen::Said(error.to_string())
                    }
                }
            }
            Step::Ack(_, ack) | Step::AckBack(_, ack) => match named(step, &self.tokens) {
                Some(token) => Seen::Confirmed(broker.ack(now, token, *ack)),
                None => Seen::Said("no such delivery".into()),
            },
            Step::Wait(_) => Seen::Said("waited".into()),
            Step::Purge(seq) => said(broker.purge_below(now, stream, *seq)),
            Step::Delete(seq) => said(broker.delete_message(now, stream, *seq)),
            Step::Create(config) => said(broker.create_consumer(now, stream, consumer_of(config, stream))),
            Step::Update(config) => said(broker.update_consumer(now, stream, consumer_of(config, stream))),
            Step::DeleteConsumer => said(broker.delete_consumer(now, stream, DURABLE)),
            Step::CreateStream(config) => said(broker.create_stream(now, stream_of(config, stream))),
            Step::UpdateStream(config) => said(broker.update_stream(now, stream_of(config, stream))),
            Step::DeleteStream => said(broker.delete_stream(stream)),
            Step::Unpin => said(broker.unpin(now, stream, DURABLE)),
            Step::Reset(seq) => said(broker.reset_consumer(now, stream, DURABLE, *seq)),
            Step::Last(subject) => {
                let last = broker.last_by_subject(now, stream, &format!("{stream}.{subject}"));
                Seen::Said(last.map_or("none".into(), |message| message.seq.to_string()))
            }
        }
    }

    async fn state(&mut self, now: u64) -> String {
        let stream = match self.broker.stream_info(now, &self.stream) {
            Ok(info) => format!("{} {} {} {}", info.messages, info.bytes, info.first_seq, info.last_seq),
            Err(_) => "none".into(),
        };
        let consumer = match self.broker.consumer_info(now, &self.stream, DURABLE) {
            Ok(info) => {
                let pinned = info
                    .pin
                    .as_ref()
                    .map(|pin| self.pins.iter().find(|(_, have)| *have == pin).map(|(client, _)| *client));
                format!(
                    "delivered {} {} floor {} {} pending {} unacked {} redelivered {} pinned {pinned:?}",
                    info.delivered.consumer,
                    info.delivered.stream,
                    info.ack_floor.consumer,
                    info.ack_floor.stream,
                    info.num_pending,
                    info.num_ack_pending,
                    info.num_redelivered,
                )
            }
            Err(_) => "none".into(),
        };
        format!("stream {stream}; consumer {consumer}")
    }
}

/// A server. Where a step is to come to nothing that is seen after a moment only; anything else is waited for.
pub(super) struct Real {
    client: Client,
    stream: String,
    pinned: bool,
    tokens: Vec<String>,
    pins: BTreeMap<usize, String>,
    /// When the last step had been done for certain.
    pub(super) acted: Instant,
}

const LONG: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(60);
const GROUP: &str = "writer";

impl Real {
    pub(super) fn new(client: Client, stream: &str) -> Self {
        let (tokens, pins) = (vec![], BTreeMap::new());
        Self { client, stream: stream.into(), pinned: false, tokens, pins, acted: Instant::now() }
    }

    async fn api(&self, call: &str, request: Value) -> Value {
        let payload = if request.is_null() { String::new() } else { request.to_string() };
        let answer = self.client.request(format!("$JS.API.{call}"), payload.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    async fn ask(&self, call: &str, request: Value) -> Seen {
        let answer = self.api(call, request).await;
        let error = answer["error"]["description"].as_str();
        // There are several ways to say that a message is not there.
        let missing =
            |error: &&str| error.ends_with(" not found") && error.starts_with("sequence") || error.ends_with("EOF");
        Seen::Said(error.map_or("ok", |error| if missing(&error) { "no message found" } else { error }).to_owned())
    }

    async fn create(&mut self, config: &ConsumerConfig, action: &str) -> Seen {
        let stream = self.stream.clone();
        let config = consumer_of(config, &stream);
        self.pinned = config.pinned.is_some();
        let mut wanted = json!({
            "durable_name": config.durable,
            "ack_policy": "explicit",
            "ack_wait": config.ack_wait_ms * 1_000_000,
            "max_deliver": -1,
            "max_ack_pending": config.max_ack_pending,
            "filter_subjects": config.filter_subjects,
            "deliver_policy": match config.deliver {
                Deliver::All => "all",
                Deliver::New => "new",
                Deliver::ByStartSequence(_) => "by_start_sequence",
            },
        });
        if let Deliver::ByStartSequence(seq) = config.deliver {
            wanted["opt_start_seq"] = seq.into();
        }
        if let Some(pinned) = config.pinned {
            wanted["priority_policy"] = "pinned_client".into();
            wanted["priority_groups"] = json!([GROUP]);
            wanted["priority_timeout"] = (pinned.timeout_ms * 1_000_000).into();
        }
        let request = json!({ "stream_name": stream, "config": wanted, "action": action });
        self.ask(&format!("CONSUMER.CREATE.{stream}.{DURABLE}"), request).await
    }

    fn stream_config(&self, config: &StreamConfig) -> Value {
        let config = stream_of(config, &self.stream);
        let limit = |limit: Option<u64>| limit.map_or(json!(-1), |limit| json!(limit));
        json!({
            "name": config.name,
            "subjects": config.subjects,
            "storage": "file",
            "num_replicas": 1,
            "max_consumers": -1,
            "max_msgs": -1,
            "retention": if config.work_queue { "workqueue" } else { "limits" },
            "discard": if config.discard_new { "new" } else { "old" },
            "max_bytes": limit(config.max_bytes),
            "max_msgs_per_subject": limit(config.max_msgs_per_subject),
            "duplicate_window": config.duplicate_window_ms * 1_000_000,
            "allow_msg_ttl": config.allow_message_ttl,
            "allow_direct": true,
        })
    }

    async fn fetch(&mut self, client: usize, batch: usize, expected: usize) -> Seen {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.unwrap();
        // Nothing is left of the pull when it is over, or it would be given what comes later.
        let expires = if expected > 0 { LONG } else { MOMENT };
        let expires = u64::try_from(expires.as_nanos()).unwrap();
        let mut request = json!({ "batch": batch, "no_wait": true, "expires": expires });
        if self.pinned {
            request["group"] = GROUP.into();
            if let Some(pin) = self.pins.get(&client) {
                request["id"] = pin.as_str().into();
            }
        }
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{DURABLE}", self.stream);
        self.client.publish_with_reply(subject, inbox, request.to_string().into()).await.unwrap();
        let mut seen = vec![];
        let mut refused = None;
        while seen.len() < batch {
            let patience = if expected > 0 && seen.len() == expected { MOMENT } else { LONG };
            let Ok(Some(message)) = tokio::time::timeout(patience, answers.next()).await else { break };
            match message.status {
                None | Some(StatusCode::OK) => {}
                Some(StatusCode::NO_RESPONDERS) => refused = Some("no responders"),
                Some(status) if status.as_u16() == 423 => {
                    self.pins.remove(&client);
                    refused = Some("Nats-Pin-Id mismatch");
                }
                Some(_) => break,
            }
            if refused.is_some() {
                break;
            }
            self.acted = Instant::now();
            let token = message.reply.unwrap().to_string();
            let parts: Vec<&str> = token.split('.').collect();
            // `…<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, of nine parts or more.
            let at = if parts.len() == 9 { 4 } else { 6 };
            let number = |nth: usize| parts[at + nth].parse::<u64>().unwrap();
            seen.push((number(1), number(2), number(0), number(4)));
            if let Some(pin) = message.headers.as_ref().and_then(|headers| headers.get_last("Nats-Pin-Id")) {
                self.pins.insert(client, pin.to_string());
            }
            self.tokens.push(token);
        }
        answers.unsubscribe().await.unwrap();
        self.client.flush().await.unwrap();
        refused.map_or(Seen::Deliveries(seen), |why| Seen::Said(why.into()))
    }

    async fn ack(&self, step: &Step, ack: Ack, expected: bool) -> Seen {
        let Some(token) = named(step, &self.tokens) else { return Seen::Said("no such delivery".into()) };
        let said = match ack {
            Ack::Ack => "+ACK".into(),
            Ack::Nak(None) => "-NAK".into(),
            Ack::Nak(Some(delay_ms)) => format!("-NAK {{\"delay\":{}}}", delay_ms * 1_000_000),
            Ack::Term => "+TERM".into(),
            Ack::InProgress => "+WPI".into(),
        };
        let answer = self.client.request(token.clone(), said.into());
        let answer = tokio::time::timeout(if expected { LONG } else { MOMENT }, answer).await;
        Seen::Confirmed(matches!(answer, Ok(Ok(_))))
    }
}

impl Side for Real {
    async fn step(&mut self, _: u64, step: &Step, expected: Option<&Seen>) -> Seen {
        self.acted = Instant::now();
        let stream = self.stream.clone();
        let seen = match step {
            Step::Publish { subject, headers, size } => {
                let mut map = HeaderMap::new();
                headers.iter().for_each(|(name, value)| map.append(*name, value.as_str()));
                let subject = format!("{stream}.{subject}");
                let payload = vec![b'x'; *size].into();
                let answer = if headers.is_empty() {
                    self.client.request(subject, payload).await
                } else {
                    self.client.request_with_headers(subject, map, payload).await
                };
                match answer {
                    Ok(answer) => {
                        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
                        match answer["error"]["description"].as_str() {
                            Some(error) => Seen::Said(error.into()),
                            None => Seen::Said(format!("{} {}", answer["seq"], answer["duplicate"] == true)),
                        }
                    }
                    Err(_) => Seen::Said("no responders".into()),
                }
            }
            Step::Fetch { client, batch } => {
                let expected = match expected {
                    Some(Seen::Deliveries(expected)) => expected.len(),
                    _ => 0,
                };
                // It is the deliveries that it notes the time of.
                return self.fetch(*client, *batch, expected).await;
            }
            Step::Ack(_, ack) | Step::AckBack(_, ack) => {
                self.ack(step, *ack, expected == Some(&Seen::Confirmed(true))).await
            }
            Step::Wait(_) => Seen::Said("waited".into()),
            Step::Purge(seq) => self.ask(&format!("STREAM.PURGE.{stream}"), json!({ "seq": seq })).await,
            Step::Delete(seq) => self.ask(&format!("STREAM.MSG.DELETE.{stream}"), json!({ "seq": seq })).await,
            Step::Create(config) => self.create(config, "create").await,
            Step::Update(config) => self.create(config, "update").await,
            Step::DeleteConsumer => self.ask(&format!("CONSUMER.DELETE.{stream}.{DURABLE}"), Value::Null).await,
            Step::CreateStream(config) => {
                self.ask(&format!("STREAM.CREATE.{stream}"), self.stream_config(config)).await
            }
            Step::UpdateStream(config) => {
                self.ask(&format!("STREAM.UPDATE.{stream}"), self.stream_config(config)).await
            }
            Step::DeleteStream => self.ask(&format!("STREAM.DELETE.{stream}"), Value::Null).await,
            Step::Unpin => self.ask(&format!("CONSUMER.UNPIN.{stream}.{DURABLE}"), json!({ "group": GROUP })).await,
            Step::Reset(seq) => {
                let request = seq.map_or(Value::Null, |seq| json!({ "seq": seq }));
                self.ask(&format!("CONSUMER.RESET.{stream}.{DURABLE}"), request).await
            }
            Step::Last(subject) => {
                let request = json!({ "last_by_subj": format!("{stream}.{subject}") }).to_string();
                let subject = format!("$JS.API.DIRECT.GET.{stream}");
                let found = self.client.request(subject, request.into()).await.unwrap();
                let seq = found.headers.as_ref().and_then(|headers| headers.get("Nats-Sequence"));
                Seen::Said(seq.map_or("none".into(), ToString::to_string))
            }
        };
        self.acted = Instant::now();
        seen
    }

    async fn state(&mut self, _: u64) -> String {
        let info = self.api(&format!("STREAM.INFO.{}", self.stream), Value::Null).await;
        let state = &info["state"];
        let stream = match info.get("error") {
            None => format!("{} {} {} {}", state["messages"], state["bytes"], state["first_seq"], state["last_seq"]),
            Some(_) => "none".into(),
        };
        let info = self.api(&format!("CONSUMER.INFO.{}.{DURABLE}", self.stream), Value::Null).await;
        let consumer = if info.get("error").is_some() {
            "none".into()
        } else {
            let pin = info["priority_groups"][0]["pinned_client_id"].as_str().filter(|pin| !pin.is_empty());
            let pinned = pin.map(|pin| self.pins.iter().find(|(_, have)| *have == pin).map(|(client, _)| *client));
            format!(
                "delivered {} {} floor {} {} pending {} unacked {} redelivered {} pinned {pinned:?}",
                info["delivered"]["consumer_seq"],
                info["delivered"]["stream_seq"],
                info["ack_floor"]["consumer_seq"],
                info["ack_floor"]["stream_seq"],
                info["num_pending"],
                info["num_ack_pending"],
                info["num_redelivered"],
            )
        };
        format!("stream {stream}; consumer {consumer}")
    }
}
