//! Two accounts that may be drawn on as long as something is left in them together: each withdrawal writes one account and only
//! reads the other.

use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use millstream::commands::{Caller, Context};
use millstream::http::{Body, Problem};
use millstream::{Command, Document, Fault, Id, Keys, Unit};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::Place;
use super::child::Child;
use super::ledger::Errand;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Account {
    id: String,
    balance: u64,
}

impl Document for Account {
    const COLLECTION: &'static str = "accounts";

    fn id(&self) -> &str {
        &self.id
    }
}

/// Opens both accounts of a round, each with a balance of one.
#[derive(Serialize, Deserialize)]
struct Open {
    round: u64,
}

impl Command for Open {
    type Reply = ();

    fn touches(&self, _: Id) -> Keys {
        Keys::none().and_all::<Account>([account(self.round, 0), account(self.round, 1)])
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        for which in 0..2 {
            unit.put(Account { id: account(self.round, which), balance: 1 });
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Withdraw {
    round: u64,
    from: u64,
}

impl Command for Withdraw {
    type Reply = ();

    fn touches(&self, id: Id) -> Keys {
        Open { round: self.round }.touches(id)
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let unknown = || Fault::not_found("there is no such account");
        let own = unit.get::<Account>(&account(self.round, self.from))?.ok_or_else(unknown)?;
        let other = unit.get::<Account>(&account(self.round, 1 - self.from))?.ok_or_else(unknown)?;
        if own.balance + other.balance < 2 {
            return Err(Fault::conflict("nothing would be left"));
        }
        unit.put(Account { balance: own.balance - 1, ..own });
        Ok(())
    }
}

fn account(round: u64, which: u64) -> String {
    format!("{round}-{which}")
}

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/accounts", post(submit::<Open>)).route("/withdrawals", post(submit::<Withdraw>))
}

async fn submit<C: Command<Reply = ()> + serde::de::DeserializeOwned>(
    State(cx): State<Context>,
    caller: Caller,
    Body(command): Body<C>,
) -> Result<Json<()>, Problem> {
    cx.submit(&caller, command).await?;
    Ok(Json(()))
}

const ROUNDS: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_that_read_what_the_other_writes_never_overdraw_two_accounts() {
    let place = Place::new().await;
    // Nobody is taken for dead here, however slow the machine.
    let errand = Errand { sweeps: false, ..place.errand() };
    let replicas = [Child::start(&errand), Child::start(&errand)];
    for replica in &replicas {
        replica.ready().await;
    }
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let post = async |replica: &Child, route: &str, body: serde_json::Value| {
        client.post(replica.url(route)).json(&body).send().await.unwrap().status().as_u16()
    };
    for round in 0..ROUNDS {
        let opened = post(&replicas[0], "/accounts", json!({ "round": round })).await;
        assert_eq!(opened, 200, "the accounts of round {round}");
        let (one, two) = tokio::join!(
            post(&replicas[0], "/withdrawals", json!({ "round": round, "from": 0 })),
            post(&replicas[1], "/withdrawals", json!({ "round": round, "from": 1 })),
        );
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(both, [200, 409], "round {round}: one is answered, and the other refused");
    }
}
