//! An effect on the outside: a mail that is sent after the commit, tried again until its outcome is known, and settled once.
//!
//! ```sh
//! cargo run -p millstream --example effect
//! curl -X POST http://127.0.0.1:8080/mails -H 'content-type: application/json' -d '{"to":"ada@example.com"}'
//! curl http://127.0.0.1:8080/mails
//! ```

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, Problem};
use millstream::store::Query;
use millstream::{Command, Document, Effect, Fault, Id, Keys, Kind, Outage, Service, Unit, Wake};
use serde::{Deserialize, Serialize};

mod local;

#[derive(Clone, Serialize, Deserialize)]
struct Mail {
    id: String,
    to: String,
    sent: bool,
}

impl Document for Mail {
    const COLLECTION: &'static str = "mails";
    fn id(&self) -> &str {
        &self.id
    }
}

const SEND: Kind<Mail> = Kind::new("send");

#[derive(Serialize, Deserialize)]
struct WriteMail {
    to: String,
}

impl Command for WriteMail {
    type Reply = Mail;
    fn touches(&self, id: Id) -> Keys {
        Keys::one::<Mail>(id.to_string())
    }
    fn handle(&self, id: Id, unit: &mut Unit<'_>) -> Result<Mail, Fault> {
        let mail = Mail { id: id.to_string(), to: self.to.clone(), sent: false };
        // The intent to send is committed with the mail. Due now; a later time would make it an effect later.
        unit.put_with_wake(mail.clone(), SEND, unit.now());
        Ok(mail)
    }
}

/// Stands for a mail server that is away at first.
#[derive(Default)]
struct SendMail {
    attempts: AtomicU32,
}

impl Effect for SendMail {
    type Document = Mail;
    type Outcome = ();
    const KIND: Kind<Mail> = SEND;

    async fn run(&self, mail: &Mail, wake: &Wake) -> Result<(), Outage> {
        if self.attempts.fetch_add(1, Ordering::Relaxed) < 2 {
            println!("attempt {}: the mail server is away", wake.attempt);
            return Err(Outage::new("the mail server is away"));
        }
        // A real server would be given the document's id as a key, for an attempt whose answer was lost is repeated.
        println!("attempt {}: sent to {}", wake.attempt, mail.to);
        Ok(())
    }

    fn settle(&self, mail: &mut Mail, (): (), _: &mut Unit<'_>) {
        mail.sent = true;
    }
}

async fn write(
    State(cx): State<Context>,
    caller: Caller,
    Body(mail): Body<WriteMail>,
) -> Result<Accepted<Mail>, Problem> {
    Ok(cx.submit(&caller, mail).await?)
}

async fn all(State(cx): State<Context>) -> Result<Json<Vec<Mail>>, Problem> {
    Ok(Json(cx.find(Query::<Mail>::all()).await?))
}

fn service() -> Service {
    Service::new("mails").effect(SendMail::default()).routes(Router::new().route("/mails", post(write).get(all)))
}

const TRY_IT: &str = r#"curl -X POST HTTP/mails -H 'content-type: application/json' -d '{"to":"ada@example.com"}'
curl HTTP/mails"#;

#[tokio::main]
async fn main() -> ExitCode {
    local::run(service(), TRY_IT).await
}
