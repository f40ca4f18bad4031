//! The notifications service: notifies customers of the outcome of their orders, and of refunds.
//!
//! * [`Notification`] is the document, one per event, with its state as an enum;
//! * `announce.rs` has the handlers: an order was confirmed, cancelled or refunded;
//! * `send.rs` has the effect: [`Send`];
//! * `mail.rs` has the texts, `channel.rs` the two channels: the log, or a mail server (`smtp.rs`, with the feature `smtp`);
//! * `http.rs` has the route, `metrics.rs` the metrics.
//!
//! **Mail is at-least-once.** Nothing is sent before the intent is committed, and a mail without an answer is sent again,
//! without limit, although the server may have accepted it: SMTP has no idempotency key. Every attempt has the same
//! `Message-ID`, derived from the event, so that copies can be recognised; many mail programs show them as one. A permanent
//! rejection by the server (5xx: unknown mailbox) is an outcome: the notification has FAILED and is not retried.
//!
//! It only observes, but has effects, so it starts with new events: added to a shop that has run for years, it sends no mail
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
/// When the settings are invalid, or ask for SMTP in a build without that feature.
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
