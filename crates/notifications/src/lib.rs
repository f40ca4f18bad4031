//! The notifications service: tells customers how their orders ended, and that their money is on its way back.
//!
//! * [`Notification`] is the document, one an event, its state an enum;
//! * `announce.rs` has the handlers: an order was confirmed, cancelled, its payment given back;
//! * `send.rs` has the wake: [`Send`];
//! * `mail.rs` has the words, `channel.rs` the two ways out: the log, or a mail server (`smtp.rs`, with the feature `smtp`);
//! * `http.rs` has the route, `metrics.rs` the figures.
//!
//! **Mail is at-least-once.** Nothing is sent before the intent is committed, and a mail whose answer did not arrive is sent again,
//! for as long as it takes, although the server may have had it: SMTP has no idempotency key. Every try has the same
//! `Message-ID`, derived from the event, by which the copies can be recognised; many mail programs show them as one. What the server
//! refuses for good (5xx: the mailbox is unknown) is an outcome: the notification has FAILED, and is not tried again.
//!
//! It is an onlooker with effects, so it starts with what happens from now on: added to a shop that has run for years it mails nobody
//! about last week's orders.

use std::sync::Arc;

use contracts::orders::{OrderCancelled, OrderConfirmed};
use contracts::payments::PaymentRefunded;
use millstream::{Service, Start};

mod announce;
mod channel;
mod http;
mod mail;
mod metrics;
mod notification;
mod send;
#[cfg(feature = "smtp")]
mod smtp;

pub use channel::{BadSettings, Settings};
pub use metrics::NOTIFICATIONS;
pub use notification::{Notification, Occasion, Status};
pub use send::{Delivered, Send};

/// The notifications service. With SMTP it must be made within a tokio runtime.
///
/// # Errors
/// When the settings cannot be used, or ask for SMTP and this build has none.
pub fn service(settings: &Settings) -> Result<Service, BadSettings> {
    let channel = Arc::new(channel::Channel::open(settings)?);
    let announce = announce::Announce { domain: settings.domain.as_str().into() };
    Ok(Service::new("notifications")
        .reads(contracts::orders::STREAM, Start::Now)
        .on::<OrderConfirmed>(announce.clone())
        .on::<OrderCancelled>(announce.clone())
        .reads(contracts::payments::STREAM, Start::Now)
        .on::<PaymentRefunded>(announce)
        .effect(Send(channel))
        .metrics([&NOTIFICATIONS])
        .routes(http::routes()))
}

#[cfg(test)]
#[cfg(feature = "smtp")]
mod mail_server;
#[cfg(test)]
#[cfg(feature = "smtp")]
mod over_smtp;
#[cfg(test)]
mod table;
