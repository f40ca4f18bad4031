//! A message that cannot be handled is parked as a dead letter with its history, and those behind it go on.
//!
//! ```sh
//! cargo run -p millstream --example dead_letters
//! curl -X POST http://127.0.0.1:8080/readings -H 'content-type: application/json' -d '{"sensor":"roof","celsius":-300}'
//! curl http://127.0.0.1:8080/metrics | grep dead_letters   # and `millstream dead list`, `millstream dead redrive`
//! ```

use std::process::ExitCode;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, Problem};
use millstream::{Command, Document, Event, Fault, Handler, Id, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

mod local;

const READINGS: Stream = Stream::new("READINGS", "readings");

/// The event, the command that emits it, and the document with the last one: all have the same fields.
#[derive(Clone, Serialize, Deserialize)]
struct Reading {
    sensor: String,
    celsius: i32,
}

impl Event for Reading {
    const TYPE: &'static str = "readings.taken";
    const STREAM: Stream = READINGS;
    fn key(&self) -> &str {
        &self.sensor
    }
}

impl Document for Reading {
    const COLLECTION: &'static str = "readings";
    fn id(&self) -> &str {
        &self.sensor
    }
}

impl Command for Reading {
    type Reply = ();
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        unit.emit(self);
        Ok(())
    }
}

struct Keep;

impl Handler<Reading> for Keep {
    fn handle(&self, reading: &Received<Reading>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        if reading.celsius < -273 {
            // Never: parked at once. What may pass is `Fault::Retry`, which is parked after its last attempt.
            return Err(Fault::unprocessable("nothing is that cold").at("celsius", "must be -273 or more"));
        }
        unit.put(reading.body.clone());
        Ok(())
    }
}

async fn take(State(cx): State<Context>, caller: Caller, Body(new): Body<Reading>) -> Result<Accepted<()>, Problem> {
    Ok(cx.submit(&caller, new).await?)
}

async fn show(State(cx): State<Context>, Path(sensor): Path<String>) -> Result<Json<Option<Reading>>, Problem> {
    Ok(Json(cx.get::<Reading>(&sensor).await?))
}

fn service() -> Service {
    Service::new("weather")
        .publishes(READINGS)
        .keeps::<Reading>()
        .reads(READINGS, Start::Beginning)
        .on(Keep)
        .routes(Router::new().route("/readings", post(take)).route("/readings/{sensor}", get(show)))
}

const TRY_IT: &str = r#"curl -X POST HTTP/readings -H 'content-type: application/json' -d '{"sensor":"roof","celsius":-300}'
curl HTTP/metrics | grep dead_letters"#;

#[tokio::main]
async fn main() -> ExitCode {
    local::run(service(), TRY_IT).await
}
