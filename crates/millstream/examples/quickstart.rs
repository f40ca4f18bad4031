//! A whole service: a command comes in over HTTP and emits an event, a handler of that event keeps a count, a query shows it.
//!
//! ```sh
//! cargo run -p millstream --example quickstart
//! curl -X POST http://127.0.0.1:8080/greetings -H 'content-type: application/json' -d '{"name":"Ada"}'
//! curl http://127.0.0.1:8080/greetings/Ada
//! ```
//!
//! It starts its own broker if `NATS_URL` is not set, with the `nats-server` on PATH or the one that `cargo xtask` has
//! downloaded. Your own program calls `millstream::run(service()).await` instead of `local::run`.

use std::process::ExitCode;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, Problem};
use millstream::{Command, Document, Event, Fault, Handler, Id, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

mod local;

const GREETINGS: Stream = Stream::new("GREETINGS", "greetings");

/// The event.
#[derive(Serialize, Deserialize)]
struct Greeted {
    name: String,
}

impl Event for Greeted {
    const TYPE: &'static str = "greetings.greeted";
    const STREAM: Stream = GREETINGS;
    fn key(&self) -> &str {
        &self.name
    }
}

/// The command, and the body of its request.
#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Command for Greet {
    type Reply = String;
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<String, Fault> {
        if self.name.is_empty() {
            return Err(Fault::unprocessable("nobody can be greeted").at("name", "must not be empty"));
        }
        unit.emit(&Greeted { name: self.name.clone() });
        Ok(format!("Hello, {}!", self.name))
    }
}

/// The document: how often somebody was greeted.
#[derive(Clone, Serialize, Deserialize)]
struct Count {
    name: String,
    greetings: u64,
}

impl Document for Count {
    const COLLECTION: &'static str = "counts";
    fn id(&self) -> &str {
        &self.name
    }
}

/// The handler: however often an event is delivered, it counts once.
struct Counting;

impl Handler<Greeted> for Counting {
    fn touches(&self, event: &Received<Greeted>) -> Keys {
        Keys::one::<Count>(&event.name)
    }
    fn handle(&self, event: &Received<Greeted>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let name = event.name.clone();
        let mut count = unit.get::<Count>(&name)?.unwrap_or(Count { name, greetings: 0 });
        count.greetings += 1;
        unit.put(count);
        Ok(())
    }
}

async fn greet(
    State(cx): State<Context>,
    caller: Caller,
    Body(greet): Body<Greet>,
) -> Result<Accepted<String>, Problem> {
    Ok(cx.submit(&caller, greet).await?)
}

async fn show(State(cx): State<Context>, Path(name): Path<String>) -> Result<Json<Count>, Problem> {
    let count = cx.get::<Count>(&name).await?;
    count.map(Json).ok_or_else(|| Problem::not_found(format!("nobody has greeted {name}")))
}

fn service() -> Service {
    Service::new("greetings")
        .publishes(GREETINGS)
        .keeps::<Count>()
        .reads(GREETINGS, Start::Beginning)
        .on(Counting)
        .routes(Router::new().route("/greetings", post(greet)).route("/greetings/{name}", get(show)))
}

const TRY_IT: &str = r#"curl -X POST HTTP/greetings -H 'content-type: application/json' -d '{"name":"Ada"}'
curl HTTP/greetings/Ada"#;

#[tokio::main]
async fn main() -> ExitCode {
    local::run(service(), TRY_IT).await
}
