//! The channels: the log, or a mail server.

use millstream::Outage;
use secrecy::{ExposeSecret, SecretString};

use crate::mail;
use crate::notification::Notification;
use crate::send::Delivered;
#[cfg(feature = "smtp")]
use crate::smtp::Smtp;

/// How customers are reached. Its debug output contains no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mail server, `smtp://[user:password@]host[:port]` or `smtps://…`; without one, or with an empty one, mails are only
    /// logged.
    pub smtp_url: Option<SecretString>,
    /// The sender address; by default `shop@` and the domain.
    pub from: Option<String>,
    /// The domain of the customers' mailboxes: a customer's address is the user id at this domain.
    pub domain: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { smtp_url: None, from: None, domain: "example.com".into() }
    }
}

/// Invalid settings. The message names the variable and contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(pub String);

/// A channel.
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
                    "mail (not sent: no mail server configured)"
                );
                Ok(Delivered::Taken)
            }
            #[cfg(feature = "smtp")]
            Self::Smtp(smtp) => smtp.send(notification).await,
        }
    }

    /// The metric labels of a sent notification: channel and outcome.
    pub(crate) fn sent(&self) -> &'static [&'static str] {
        match self {
            Self::Log => &["log", "sent"],
            #[cfg(feature = "smtp")]
            Self::Smtp(_) => &["smtp", "sent"],
        }
    }

    /// The metric labels of a failed notification.
    pub(crate) fn failed(&self) -> &'static [&'static str] {
        match self {
            Self::Log => &["log", "failed"],
            #[cfg(feature = "smtp")]
            Self::Smtp(_) => &["smtp", "failed"],
        }
    }
}
