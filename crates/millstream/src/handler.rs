//! A complete example: a command that comes in over HTTP, and an effect an hour later:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::response::Response;
//! use axum::{Router, extract::State, routing::post};
//! use millstream::commands::{Caller, Context};
//! use millstream::http::{Body, Problem};
//! use millstream::{Command, Document, Effect, Fault, Id, Keys, Kind, Outage, Service, Unit, Wake};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Visit {
//!     id: String,
//!     email: String,
//!     asked: Asked,
//! }
//!
//! #[derive(Clone, Copy, Serialize, Deserialize)]
//! enum Asked { NotYet, Taken, Refused, Cancelled }
//!
//! impl Document for Visit {
//!     const COLLECTION: &'static str = "visits";
//!     fn id(&self) -> &str { &self.id }
//! }
//!
//! /// Ties the wake that the command sets to the effect below.
//! const ASK: Kind<Visit> = Kind::new("ask");
//!
//! /// The command, and the body of its request.
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Book { email: String }
//!
//! impl Command for Book {
//!     type Reply = Visit;
//!
//!     fn touches(&self, id: Id) -> Keys { Keys::one::<Visit>(id.to_string()) }
//!
//!     fn handle(&self, id: Id, unit: &mut Unit<'_>) -> Result<Visit, Fault> {
//!         // Here, and not in the route, so that a test without HTTP sees it.
//!         if !self.email.contains('@') {
//!             return Err(Fault::unprocessable("nobody can be asked").at("email", "must be an address"));
//!         }
//!         let visit = Visit { id: id.to_string(), email: self.email.clone(), asked: Asked::NotYet };
//!         // A wake that is due in the future is an effect later; no timer is needed.
//!         unit.put_with_wake(visit.clone(), ASK, unit.now() + Duration::from_secs(3600));
//!         Ok(visit)
//!     }
//! }
//!
//! /// Asks the visitor how it was.
//! struct Ask { mails: Mails }
//!
//! #[derive(Clone)]
//! enum Answer { Taken, Refused }
//!
//! impl Effect for Ask {
//!     type Document = Visit;
//!     type Outcome = Answer;
//!     const KIND: Kind<Visit> = ASK;
//!
//!     // The trait says `-> impl Future + Send`; an implementation may say `async fn`.
//!     async fn run(&self, visit: &Visit, _: &Wake) -> Result<Answer, Outage> {
//!         // The same key at each attempt: what was sent before a crash is not sent twice.
//!         let key = format!("ask-{}", visit.id);
//!         match self.mails.post(&key, &visit.email).await {
//!             Ok(200..=299) => Ok(Answer::Taken),
//!             // A refusal is definite, and an outcome like any other.
//!             Ok(400..=499) => Ok(Answer::Refused),
//!             // All else may or may not have been done: it is tried again.
//!             Ok(status) => Err(Outage::new(format!("the mail service answers {status}"))),
//!             Err(error) => Err(Outage::new("the mail service does not answer").with_source(error)),
//!         }
//!     }
//!
//!     // The visit as it stands now, and not as `run` saw it: others may have changed it meanwhile.
//!     fn settle(&self, visit: &mut Visit, answer: Answer, _: &mut Unit<'_>) {
//!         visit.asked = match answer {
//!             Answer::Taken => Asked::Taken,
//!             Answer::Refused => Asked::Refused,
//!         };
//!     }
//!
//!     fn cancellable(&self) -> bool { true }
//!
//!     fn cancelled(&self, visit: &mut Visit, _: &mut Unit<'_>) { visit.asked = Asked::Cancelled; }
//! }
//!
//! /// 201 with the visit, 422 with the field at fault; a repeat under its `Idempotency-Key` gets the first answer.
//! async fn book(State(cx): State<Context>, caller: Caller, Body(book): Body<Book>) -> Result<Response, Problem> {
//!     let accepted = cx.submit(&caller, book).await?;
//!     Ok(accepted.created(format!("/visits/{}", accepted.id)))
//! }
//!
//! fn service(mails: Mails) -> Service {
//!     // `effect` keeps the collection `visits`, so `keeps::<Visit>()` need not be said.
//!     Service::new("visits").effect(Ask { mails }).routes(Router::new().route("/visits", post(book)))
//! }
//! # struct Mails;
//! # impl Mails {
//! #     async fn post(&self, _key: &str, _to: &str) -> std::io::Result<u16> { Ok(200) }
//! # }
//! # #[cfg(feature = "testing")] {
//! # let mut sim = millstream::sim::Sim::new(0).with(&service(Mails), 1);
//! # let booked = sim.call("visits", None, Book { email: "ada@example.com".into() });
//! # let refused = sim.call("visits", None, Book { email: "ada".into() });
//! # sim.settle().unwrap();
//! # assert!(sim.reply::<Visit>(refused).unwrap().is_err());
//! # let visit = sim.reply::<Visit>(booked).unwrap().unwrap();
//! # assert!(matches!(sim.get::<Visit>("visits", &visit.id).unwrap().asked, Asked::Taken));
//! # }
//! ```

pub use millstream_core::handler::*;
