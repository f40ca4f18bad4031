//! Mail over SMTP.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::Error;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use millstream::Outage;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::channel::BadSettings;
use crate::mail;
use crate::notification::Notification;
use crate::send::Delivered;

/// Maximum number of connections to the server, each for one mail: on a reused connection, the late answer to an abandoned mail
/// would be taken for the next one's. The engine runs up to 256 effects at once, and servers reject clients with far fewer
/// connections.
const CONNECTIONS: usize = 32;

/// Time limits for getting a connection and for sending the mail; the engine limits the whole attempt to ten seconds.
const QUEUE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(7);

/// Maximum length of a stored rejection, in characters.
const REASON: usize = 300;

const FORM: &str =
    "SMTP_URL: expected smtp://[user:password@]host[:port][?tls=required|opportunistic|none], or smtps://";
const ENCODE: &str =
    "SMTP_URL: user and password must be percent-encoded: `@` is %40, `#` is %23, `/` is %2F, `?` is %3F, `%` is %25";

/// A mail server and the sender address.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    connections: Semaphore,
}

impl Smtp {
    pub(crate) fn new(url: &str, from: &str) -> Result<Self, BadSettings> {
        let from = from.parse().map_err(|_| {
            BadSettings("MAIL_FROM: expected an address such as `shop@example.com` or `Shop <shop@example.com>`".into())
        })?;
        let url = explicit(url)?;
        // The client's own errors may repeat the URL.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url).map_err(|_| BadSettings(FORM.into()))?;
        Ok(Self { transport: transport.build(), from, connections: Semaphore::new(CONNECTIONS) })
    }

    pub(crate) async fn send(&self, notification: &Notification) -> Result<Delivered, Outage> {
        let mail = match self.compose(notification) {
            Ok(mail) => mail,
            Err(why) => return Ok(Delivered::Refused(why)),
        };
        let Ok(Ok(_connection)) = timeout(QUEUE, self.connections.acquire()).await else {
            return Err(Outage::new(format!("all {CONNECTIONS} connections to the mail server are in use")));
        };
        timeout(PATIENCE, self.hand_over(mail))
            .await
            .unwrap_or_else(|_| Err(Outage::new(format!("no answer from the mail server within {PATIENCE:?}"))))
    }

    async fn hand_over(&self, mail: Message) -> Result<Delivered, Outage> {
        let Err(error) = self.transport.send(mail).await else { return Ok(Delivered::Taken) };
        // Some refusals read the same whether it is this mail that the server does not take, or anything from us.
        if is_about_the_mail(&error) && matches!(self.transport.test_connection().await, Ok(true)) {
            return Ok(Delivered::Refused(error.to_string().chars().take(REASON).collect()));
        }
        Err(Outage::new(format!("the mail server: {error}")))
    }

    /// The mail, identical for every attempt.
    fn compose(&self, notification: &Notification) -> Result<Message, String> {
        let (user, domain) = notification.to.rsplit_once('@').unwrap_or((&notification.to, ""));
        // An id may have a colon, or points where a mailbox may have none: such a mailbox is quoted.
        let to = Address::new(user, domain).or_else(|_| Address::new(format!("\"{user}\""), domain));
        let to = to.map_err(|error| format!("`{}` is not a valid address: {error}", notification.to))?;
        let unsendable = |error: lettre::error::Error| format!("cannot build the mail: {error}");
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.clone()]).map_err(unsendable)?;
        Message::builder()
            // Left to be read from the header it would lose a quoted mailbox.
            .envelope(envelope)
            .message_id(Some(notification.message_id.clone()))
            .date(std::time::UNIX_EPOCH + Duration::from_millis(notification.happened_at.millis()))
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail::subject(notification))
            .header(ContentType::TEXT_PLAIN)
            .body(mail::text(notification))
            .map_err(unsendable)
    }
}

/// Whether the server permanently rejects this mail. Rejecting our login (530 to 538), our commands (500 to 504) or all mail
/// (521) is not the mail's fault: it is sent once that is fixed.
fn is_about_the_mail(error: &Error) -> bool {
    let code = error.status().map(u16::from);
    error.is_permanent() && !code.is_some_and(|code| matches!(code, 500..=504 | 521 | 530..=538))
}

/// The URL with defaults filled in: TLS is required if a password is sent, and otherwise used if offered.
fn explicit(url: &str) -> Result<String, BadSettings> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| BadSettings(FORM.into()))?;
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    if login.is_some_and(|login| login.contains(['@', '/', '#', '?'])) || place.contains('#') {
        return Err(BadSettings(ENCODE.into()));
    }
    let (place, tls) = place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
    let tls = match (scheme, tls) {
        ("smtps", None) | ("smtp", Some("tls=none")) => "",
        ("smtp", Some("tls=required")) => "?tls=required",
        ("smtp", Some("tls=opportunistic")) => "?tls=opportunistic",
        ("smtp", None) if login.is_some() => "?tls=required",
        ("smtp", None) => "?tls=opportunistic",
        _ => return Err(BadSettings(FORM.into())),
    };
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    Ok(format!("{scheme}://{login}{place}{tls}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_sent_in_the_clear_unless_that_is_asked_for() {
        for (url, full) in [
            ("smtp://relay", "smtp://relay?tls=opportunistic"),
            ("smtp://relay:25?tls=none", "smtp://relay:25"),
            ("smtp://me:secret@relay", "smtp://me:secret@relay?tls=required"),
            ("smtp://me:secret@relay:2525?tls=none", "smtp://me:secret@relay:2525"),
            ("smtps://me:secret@relay:465", "smtps://me:secret@relay:465"),
        ] {
            assert_eq!(explicit(url).unwrap(), full);
        }
    }

    #[tokio::test]
    async fn a_bad_url_is_answered_with_the_form_and_without_the_secret() {
        for url in [
            "relay:25",
            "http://me:hunter2@relay",
            "smtp://me:hunter2@relay?tls=maybe",
            "smtps://me:hunter2@relay?tls=none",
            "smtp://me:hun@ter2@relay",
            "smtp://me:hun#ter2@relay",
            "smtp://me:hun/ter2@relay",
            "smtp://me:hunter2@",
            "smtp://me:hunter2@relay:port",
            "smtp://me:hun%FFter2@relay",
        ] {
            let Err(error) = Smtp::new(url, "shop@example.com") else { panic!("{url} is taken") };
            let error = error.to_string();
            assert!(error.starts_with("SMTP_URL: ") && !error.contains("ter2"), "{url}: {error}");
        }
        let Err(error) = Smtp::new("smtp://relay", "shop at example.com") else { panic!("no address") };
        assert!(error.to_string().contains("MAIL_FROM"), "{error}");
    }
}
