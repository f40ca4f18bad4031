//! Discovery: each instance answers the NATS services protocol (`$SRV.PING`, `INFO`, `STATS`) under its service's name, so that
//! stock tools find it (`nats service ls`). Its counters and its health stand in the statistics of the endpoint `status`, which
//! answers the health of one instance, whichever, to whoever asks. The others answer what an operator asks of a service.

use std::sync::Arc;

use async_nats::service::endpoint::Endpoint;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{Request, Service, ServiceExt};
use bytes::Bytes;
use futures_util::stream::{BoxStream, select_all};
use futures_util::{FutureExt, StreamExt};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use crate::answers::{Answers, Problem};
use crate::broker::Broker;
use crate::engine::meters::Meters;
use crate::engine::timing::Timing;
use crate::http::Probe;
use crate::ids::{Id, Timestamp};
use crate::protocol::{Asked, subject};
use crate::release::Release;
use crate::telemetry::REVISION;

/// The endpoint whose statistics hold counters and health.
const STATUS: &str = "status";

/// An instance that can be found.
pub(crate) struct Discovery {
    pub(crate) service: &'static str,
    pub(crate) release: Release,
    pub(crate) instance: Id,
    pub(crate) broker: Broker,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) timing: Timing,
}

/// Questions that are answered at a time; further ones wait.
const AT_ONCE: usize = 4;

impl Discovery {
    /// Answers until it is dropped.
    pub(crate) async fn run(self) {
        let started = Timestamp::system();
        let (_registered, mut status, questions) = loop {
            match self.register(started).await {
                Ok(registered) => break registered,
                Err(error) => tracing::debug!(%error, "cannot register the service yet"),
            }
            tokio::time::sleep(self.timing.gate_retry.longest).await;
        };
        let health = async {
            while let Some(request) = status.next().await {
                let health = self.probe.health().to_json().to_string();
                respond(&request, Ok(health.into())).await;
            }
        };
        let answers = self.answers.clone();
        let questions = select_all(questions)
            .for_each_concurrent(AT_ONCE, move |(asked, request)| answer(answers.clone(), asked, request));
        tokio::join!(health, questions);
    }

    async fn register(
        &self,
        started: Timestamp,
    ) -> Result<(Registered, Endpoint, Vec<BoxStream<'static, (Asked, Request)>>), async_nats::Error> {
        let metadata = [
            ("revision", REVISION.to_owned()),
            ("started", started.to_string()),
            ("instance", self.instance.to_string()),
        ];
        let (probe, meters) = (self.probe.clone(), self.meters.clone());
        let service = self
            .broker
            .client
            .service_builder()
            .metadata(metadata.map(|(name, value)| (name.to_owned(), value)).into())
            .stats_handler(move |endpoint, _| match endpoint.as_str() {
                STATUS => json!({ "totals": meters.totals(), "health": probe.health().to_json() }),
                _ => Value::Null,
            })
            .start(self.service, &self.release)
            .await?;
        let registered = Registered(Some(service));
        let Some(service) = &registered.0 else { return Err("it has ended".into()) };
        let add =
            async |name: &'static str| service.endpoint_builder().name(name).add(subject(name, self.service)).await;
        let status = add(STATUS).await?;
        let mut questions = vec![];
        for asked in Asked::ALL {
            questions.push(add(asked.name()).await?.map(move |request| (asked, request)).boxed());
        }
        Ok((registered, status, questions))
    }
}

async fn answer(answers: Arc<Answers>, asked: Asked, request: Request) {
    let answer = answers.answer(asked, &request.message.payload).await;
    let answer = answer.map_err(|Problem { code, text }| ServiceError { code, status: plain(&text) });
    respond(&request, answer).await;
}

async fn respond(request: &Request, answer: Result<Bytes, ServiceError>) {
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "reply not sent");
    }
}

/// A text as a header value that stock tools show as it is: only what a header cannot hold is encoded.
fn plain(text: &str) -> String {
    const UNFIT: &AsciiSet = &CONTROLS.add(b'%');
    utf8_percent_encode(text, UNFIT).to_string()
}

/// Takes the instance back when it is dropped: the client answers from a task of its own.
struct Registered(Option<Service>);

impl Drop for Registered {
    fn drop(&mut self) {
        // It does not wait for anything.
        drop(self.0.take().map(|service| service.stop().now_or_never()));
    }
}
