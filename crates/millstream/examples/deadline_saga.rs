//! A saga with a deadline: a table is held until the guest confirms; if nobody does within five seconds, it is given back.
//!
//! ```sh
//! cargo run -p millstream --example deadline_saga
//! curl -X PUT http://127.0.0.1:8080/tables/7/held          # then ../confirmed within five seconds, or not
//! curl http://127.0.0.1:8080/tables/7
//! ```

use std::process::ExitCode;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::Problem;
use millstream::{Command, Document, Event, Fault, Id, Keys, Kind, Service, Stream, Timer, Unit};
use serde::{Deserialize, Serialize};

mod local;

const TABLES: Stream = Stream::new("TABLES", "tables");

/// What others do something about: the compensation.
#[derive(Serialize, Deserialize)]
struct Released {
    table: String,
}

impl Event for Released {
    const TYPE: &'static str = "tables.released";
    const STREAM: Stream = TABLES;
    fn key(&self) -> &str {
        &self.table
    }
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Free,
    Held,
    Confirmed,
}

#[derive(Clone, Serialize, Deserialize)]
struct Table {
    id: String,
    stage: Stage,
}

impl Document for Table {
    const COLLECTION: &'static str = "tables";
    fn id(&self) -> &str {
        &self.id
    }
}

/// The deadline: it lies with the document in the database, so it outlives the process.
struct GiveBack;

impl Timer for GiveBack {
    type Document = Table;
    const KIND: Kind<Table> = Kind::new("give-back");
    fn fire(&self, table: &mut Table, unit: &mut Unit<'_>) {
        table.stage = Stage::Free;
        unit.emit(&Released { table: table.id.clone() });
    }
}

#[derive(Serialize)]
struct Change {
    table: String,
    to: Stage,
}

impl Command for Change {
    type Reply = Table;
    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Table>(&self.table)
    }
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<Table, Fault> {
        let now = unit.get::<Table>(&self.table)?.map_or(Stage::Free, |table| table.stage);
        let table = Table { id: self.table.clone(), stage: self.to };
        match (now, self.to) {
            (Stage::Free, Stage::Held) => {
                unit.put_with_wake(table.clone(), GiveBack::KIND, unit.now() + Duration::from_secs(5));
            }
            (Stage::Held, Stage::Confirmed) => unit.put_without_wake(table.clone()),
            _ => return Err(Fault::conflict("a free table is held, a held one confirmed")),
        }
        Ok(table)
    }
}

type ToStage = Path<(String, Stage)>;

async fn change(
    State(cx): State<Context>,
    caller: Caller,
    Path((table, to)): ToStage,
) -> Result<Accepted<Table>, Problem> {
    Ok(cx.submit(&caller, Change { table, to }).await?)
}

async fn show(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<Option<Table>>, Problem> {
    Ok(Json(cx.get::<Table>(&id).await?))
}

fn service() -> Service {
    let routes = Router::new().route("/tables/{id}/{to}", put(change)).route("/tables/{id}", get(show));
    Service::new("tables").publishes(TABLES).timer(GiveBack).routes(routes)
}

#[tokio::main]
async fn main() -> ExitCode {
    local::run(service(), "curl -X PUT HTTP/tables/7/held\ncurl HTTP/tables/7").await
}
