//! The effect: sending a mail.

use std::sync::Arc;

use millstream::{Effect, Kind, Outage, Unit, Wake};

use crate::channel::Channel;
use crate::metrics::NOTIFICATIONS;
use crate::notification::{Notification, Status};

/// The outcome of a mail; an unknown outcome is an [`Outage`] instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was accepted.
    Taken,
    /// It was permanently rejected, with the reason.
    Refused(String),
}

/// Sends a notification.
pub struct Send(pub(crate) Arc<Channel>);

impl Effect for Send {
    type Document = Notification;
    type Outcome = Delivered;
    const KIND: Kind<Notification> = Kind::new("send");

    async fn run(&self, notification: &Notification, _: &Wake) -> Result<Delivered, Outage> {
        self.0.send(notification).await
    }

    fn settle(&self, notification: &mut Notification, delivered: Delivered, unit: &mut Unit<'_>) {
        let (status, labels, error) = match delivered {
            Delivered::Taken => (Status::Sent, self.0.sent(), None),
            Delivered::Refused(why) => (Status::Failed, self.0.failed(), Some(why)),
        };
        unit.count(&NOTIFICATIONS, labels);
        notification.status = status;
        notification.error = error;
        notification.channel = Some(labels[0].into());
        notification.ended_at = Some(unit.now());
    }
}
