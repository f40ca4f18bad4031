//! The ways out: the log, or a mail server.

use millstream::Outage;
use secrecy::{ExposeSecret, SecretString};

use crate::mail;
use crate::notification::Notification;
use crate::send::Delivered;
#[cfg(feature = "smtp")]
use crate::smtp::Smtp;

/// How customers are reached. Printing it shows no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mail server, `smtp://[user:password@]host[:port]` or `smtps://…`; without one, or with an empty one, what would be sent is
    /// logged.
    pub smtp_url: Option<SecretString>,
    /// Who the mails are from; `shop@` and the domain if it is not said.
    pub from: Option<String>,
    /// Where customers have their mailboxes: a customer's address is the user id at this domain.
    pub domain: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { smtp_url: None, from: None, domain: "example.com".into() }
    }
}

/// Settings that cannot be used. The message names the variable and shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(pub String);

/// A way out.
pub(crate) enum Channel {
    Log,
    #[cfg(feature = "smtp")]
    Smtp(Box<Smtp>),
}

impl Channel {
    pub(crate) fn open(settings: &Settings) -> Result<Self, BadSettings> {
        let domain = &settings.domain;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !domain.split('.').all(label) {
            return Err(BadSettings("MAIL_DOMAIN: expected a domain such as example.com".into()));
        }
        match settings.smtp_url.as_ref().map(ExposeSecret::expose_secret).filter(|url| !url.is_empty()) {
            None => Ok(Self::Log),
            #[cfg(feature = "smtp")]
            Some(url) => {
                let from = settings.from.clone().filter(|from| !from.is_empty());
                let from = from.unwrap_or_else(|| format!("shop@{domain}"));
                Ok(Self::Smtp(Box::new(Smtp::new(url, &from)?)))
            }
            #[cfg(not(feature = "smtp"))]
            Some(_) => Err(BadSettings(
                "SMTP_URL is set, and this build has no SMTP: build it with `--features smtp`, or leave the variable out to \
                 have notifications logged"
                    .into(),
            )),
        }
    }

    pub(crate) async fn send(&self, notification: &Notification) -> Result<Delivered, Outage> {
        match self {
            Self::Log => {
                tracing::info!(
                    order_id = %notification.order_id,
                    to = notification.to,
                    message_id = notification.message_id,
                    subject = mail::subject(notification),
                    "a mail, as it would be sent"
                );
                Ok(Delivered::Taken)
            }
            #[cfg(feature = "smtp")]
            Self::Smtp(smtp) => smtp.send(notification).await,
        }
    }

    /// The labels of a notification that was sent: the channel, and how it went.
    pub(crate) fn sent(&self) -> &'static [&'static str] {
        match self {
            Self::Log => &["log", "sent"],
            #[cfg(feature = "smtp")]
            Self::Smtp(_) => &["smtp", "sent"],
        }
    }

    /// The labels of one that was given up.
    pub(crate) fn failed(&self) -> &'static [&'static str] {
        match self {
            Self::Log => &["log", "failed"],
            #[cfg(feature = "smtp")]
            Self::Smtp(_) => &["smtp", "failed"],
        }
    }
}
