//! Two replicas of one service on one database: whichever takes a command, none is lost and none done twice.
//!
//! ```sh
//! cargo run -p millstream --example replicas    # prints the addresses of both
//! for i in $(seq 10); do curl -X PUT http://127.0.0.1:8080/counters/c/next; done
//! curl -X PUT http://127.0.0.1:PORT/counters/c/next    # of the other: 11
//! ```

use std::process::ExitCode;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::put;
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::Problem;
use millstream::{Command, Document, Fault, Id, Keys, Service, Unit};
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

#[derive(Serialize)]
struct Next {
    counter: String,
}

impl Command for Next {
    type Reply = u64;
    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Counter>(&self.counter)
    }
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<u64, Fault> {
        // What is read is guarded: if the other replica commits first, this runs again with what it has left.
        let id = self.counter.clone();
        let mut counter = unit.get::<Counter>(&id)?.unwrap_or(Counter { id, value: 0 });
        counter.value += 1;
        let value = counter.value;
        unit.put(counter);
        Ok(value)
    }
}

async fn next(
    State(cx): State<Context>,
    caller: Caller,
    Path(counter): Path<String>,
) -> Result<Accepted<u64>, Problem> {
    Ok(cx.submit(&caller, Next { counter }).await?)
}

fn service() -> Service {
    Service::new("counters").keeps::<Counter>().routes(Router::new().route("/counters/{id}/next", put(next)))
}

#[tokio::main]
async fn main() -> ExitCode {
    local::run_all(vec![service(), service()], "curl -X PUT HTTP/counters/c/next").await
}
