//! The HTTP face that every service has: errors as RFC 9457 problems, extractors with precise refusals, and a shell around a
//! service's routes with health, metrics, correlation ids and a bound on what is in flight.

mod accepted;
mod authenticate;
mod body;
mod connections;
mod extract;
mod follow;
mod health;
mod host;
mod page;
mod problem;
mod shell;

pub use authenticate::bearer;
pub(crate) use authenticate::only_for;
pub use body::{BODY_LIMIT, Body, NoBody, Refused};
pub(crate) use connections::places;
pub use connections::serve;
pub use extract::Query;
pub use follow::LastEventId;
pub(crate) use health::EngineProbe;
pub use health::{ConsumerHealth, Health, Probe};
pub use host::{host_name, is_own_host};
pub use page::{Filter, List, MAX_PAGE, Page};
pub use problem::Problem;
pub use shell::{MAX_IN_FLIGHT, shell};

#[cfg(test)]
mod tests;
