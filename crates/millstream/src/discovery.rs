//! Discovery: each instance answers the NATS services protocol (`$SRV.PING`, `INFO`, `STATS`) under its service's name, so that
//! stock tools find it (`nats service ls`). Its counters and its health stand in the statistics of its one endpoint, which
//! answers the health of one instance, whichever, to whoever asks.

use std::sync::Arc;

use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Service, ServiceExt};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;

use crate::broker::Broker;
use crate::engine::meters::Meters;
use crate::engine::timing::Timing;
use crate::http::Probe;
use crate::ids::{Id, Timestamp};
use crate::release::Release;
use crate::telemetry::REVISION;

/// An instance that can be found.
pub(crate) struct Discovery {
    pub(crate) service: &'static str,
    pub(crate) release: Release,
    pub(crate) instance: Id,
    pub(crate) broker: Broker,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) timing: Timing,
}

/// Where an instance of a service answers how it is. Not below the service's own domain, which is a stream's.
fn status_subject(service: &str) -> String {
    format!("millstream.status.{service}")
}

impl Discovery {
    /// Answers until it is dropped.
    pub(crate) async fn run(self) {
        let started = Timestamp::system();
        let (_registered, mut requests) = loop {
            match self.register(started).await {
                Ok(registered) => break registered,
                Err(error) => tracing::debug!(%error, "the service cannot be registered yet"),
            }
            tokio::time::sleep(self.timing.gate_retry.longest).await;
        };
        while let Some(request) = requests.next().await {
            let health = self.probe.health().to_json().to_string();
            if let Err(error) = request.respond(Ok(health.into())).await {
                tracing::debug!(%error, "nobody was told how the service is");
            }
        }
    }

    async fn register(&self, started: Timestamp) -> Result<(Registered, Endpoint), async_nats::Error> {
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
            .stats_handler(move |_, _| json!({ "totals": meters.totals(), "health": probe.health().to_json() }))
            .start(self.service, &self.release)
            .await?;
        let registered = Registered(Some(service));
        let Some(service) = &registered.0 else { return Err("it has ended".into()) };
        let endpoint = service.endpoint_builder().name("status").add(status_subject(self.service)).await?;
        Ok((registered, endpoint))
    }
}

/// Takes the instance back when it is dropped: the client answers from a task of its own.
struct Registered(Option<Service>);

impl Drop for Registered {
    fn drop(&mut self) {
        // It does not wait for anything.
        drop(self.0.take().map(|service| service.stop().now_or_never()));
    }
}
