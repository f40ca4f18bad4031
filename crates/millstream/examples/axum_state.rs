//! State of a service's own beside the toolkit's: settings that routes see as an axum `Extension`, and a command's handler as fields.
//!
//! ```sh
//! cargo run -p millstream --example axum_state
//! curl -X PUT http://127.0.0.1:8080/counters/c/next    # 5
//! curl -X PUT http://127.0.0.1:8080/counters/c/next    # 10
//! ```

use std::process::ExitCode;

use axum::extract::{Path, State};
use axum::routing::put;
use axum::{Extension, Router};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::Problem;
use millstream::{CommandHandler, Document, Fault, Id, Keys, Service, Unit};
use serde::{Deserialize, Serialize};

mod local;

#[derive(Clone, Serialize, Deserialize)]
struct Counter {
    id: String,
    value: u64,
}

impl Document for Counter {
    const COLLECTION: &'static str = "counters";
    fn id(&self) -> &str {
        &self.id
    }
}

/// What a caller asks for: only data, compared when a request is repeated.
#[derive(Serialize)]
struct Next {
    counter: String,
}

/// What the service was set up with.
#[derive(Clone)]
struct Settings {
    step: u64,
}

impl CommandHandler<Next> for Settings {
    type Reply = u64;
    fn touches(&self, next: &Next, _: Id) -> Keys {
        Keys::one::<Counter>(&next.counter)
    }
    fn handle(&self, next: &Next, _: Id, unit: &mut Unit<'_>) -> Result<u64, Fault> {
        let id = next.counter.clone();
        let mut counter = unit.get::<Counter>(&id)?.unwrap_or(Counter { id, value: 0 });
        counter.value += self.step;
        let value = counter.value;
        unit.put(counter);
        Ok(value)
    }
}

async fn next(
    State(cx): State<Context>,
    Extension(settings): Extension<Settings>,
    caller: Caller,
    Path(counter): Path<String>,
) -> Result<Accepted<u64>, Problem> {
    Ok(cx.submit_to(&caller, &settings, Next { counter }).await?)
}

fn service(settings: Settings) -> Service {
    let routes = Router::new().route("/counters/{id}/next", put(next)).layer(Extension(settings));
    Service::new("counters").keeps::<Counter>().routes(routes)
}

#[tokio::main]
async fn main() -> ExitCode {
    local::run(service(Settings { step: 5 }), "curl -X PUT HTTP/counters/c/next").await
}
