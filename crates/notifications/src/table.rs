//! Every row of the table of notifications, and the words of each.

use std::sync::Arc;

use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed};
use contracts::payments::PaymentRefunded;
use contracts::{Currency, Money, OrderId, UserId};
use millstream::Received;
use millstream::workbench::Workbench;
use secrecy::SecretString;

use crate::announce::{Announce, Told};
use crate::channel::{Channel, Settings};
use crate::metrics::NOTIFICATIONS;
use crate::{Delivered, Notification, Occasion, Send, Status, mail, service};

fn order() -> (OrderId, UserId, Money, Currency) {
    ("o".parse().unwrap(), "ada".parse().unwrap(), Money::from_minor(1250).unwrap(), Currency::Eur)
}

pub(crate) fn confirmed() -> OrderConfirmed {
    let (order_id, user_id, total, currency) = order();
    OrderConfirmed { order_id, user_id, lines: vec![], total, currency }
}

pub(crate) fn cancelled(reason: CancelReason) -> OrderCancelled {
    let (order_id, user_id, total, currency) = order();
    OrderCancelled { order_id, user_id, lines: vec![], total, currency, reason }
}

pub(crate) fn refunded() -> PaymentRefunded {
    let (order_id, customer, amount, currency) = order();
    PaymentRefunded { order_id, customer, amount, currency }
}

fn bench() -> Workbench {
    Workbench::of(&service(&Settings::default()).unwrap())
}

fn tell<E: Told>(bench: &mut Workbench, event: E) -> Notification {
    let event: Received<E> = bench.received(event);
    assert_eq!(bench.handle(&Announce { domain: "example.com".into() }, &event).unwrap(), []);
    bench.get(&event.meta.id.to_string()).unwrap()
}

fn logged() -> Send {
    Send(Arc::new(Channel::Log))
}

#[test]
fn each_event_is_told_to_its_customer_in_plain_words() {
    let mut bench = bench();
    for (notification, occasion, subject, part) in [
        (
            tell(&mut bench, confirmed()),
            Occasion::Confirmed,
            "Your order o is confirmed",
            "your payment of 12.50 EUR was received",
        ),
        (
            tell(&mut bench, cancelled(CancelReason::Customer)),
            Occasion::Cancelled,
            "Your order o was cancelled",
            "order o over 12.50 EUR was cancelled, as you requested",
        ),
        (tell(&mut bench, refunded()), Occasion::Refunded, "Refund for your order o", "refunded 12.50 EUR"),
    ] {
        assert_eq!((notification.occasion, notification.status), (occasion, Status::Sending));
        assert_eq!((notification.to.as_str(), &*notification.order_id), ("ada@example.com", "o"));
        assert_eq!(notification.message_id, format!("<{}@example.com>", notification.id));
        assert_eq!(mail::subject(&notification), subject);
        let text = mail::text(&notification);
        assert!(text.starts_with("Hello ada,\n") && text.contains(part), "{text}");
        let wake = bench.wake_of::<Notification>(&notification.id).unwrap();
        assert_eq!((wake.kind.as_str(), wake.at), ("send", bench.now));
    }
}

#[test]
fn every_reason_has_words_of_its_own() {
    let reasons = [CancelReason::OutOfStock, CancelReason::Declined, CancelReason::Deadline, CancelReason::Customer];
    let mut texts: Vec<String> = reasons.map(|reason| mail::text(&tell(&mut bench(), cancelled(reason)))).to_vec();
    texts.dedup();
    assert_eq!(texts.len(), 4, "{texts:?}");
}

#[test]
fn what_was_sent_and_what_is_refused_for_good_rests() {
    for (delivered, status, outcome, error) in [
        (Delivered::Taken, Status::Sent, "sent", None),
        (Delivered::Refused("no such mailbox".into()), Status::Failed, "failed", Some("no such mailbox")),
    ] {
        let mut bench = bench();
        let id = tell(&mut bench, confirmed()).id;
        assert!(bench.claim::<Send>(&id));
        assert_eq!(bench.settle(&logged(), &id, delivered), []);
        let ended = bench.get::<Notification>(&id).unwrap();
        assert_eq!((ended.status, ended.error.as_deref(), ended.channel.as_deref()), (status, error, Some("log")));
        assert_eq!((ended.ended_at, bench.wake_of::<Notification>(&id)), (Some(bench.now), None));
        assert_eq!(bench.counted(&NOTIFICATIONS, &["log", outcome]), 1.0);
        // A repeat from before the journal's memory neither asks for another mail nor forgets how this one ended.
        assert_eq!(tell(&mut bench, confirmed()), ended);
        assert_eq!(bench.wake_of::<Notification>(&id), None);
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name_and_without_a_secret() {
    let refused = |settings: Settings| service(&settings).map(drop).unwrap_err().to_string();
    for domain in ["", "exa mple", "a..b", "-a.b", "me@b"] {
        let error = refused(Settings { domain: domain.into(), ..Settings::default() });
        assert!(error.contains("MAIL_DOMAIN"), "{error}");
    }
    let url: SecretString = "smtp://me:hunter2@relay:port".into();
    let settings = Settings { smtp_url: Some(url), ..Settings::default() };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let error = refused(settings);
    assert!(error.contains("SMTP_URL") && !error.contains("hunter2"), "{error}");
    let none = Settings { smtp_url: Some("".into()), ..Settings::default() };
    assert!(service(&none).is_ok(), "an empty variable is as good as none");
}

#[test]
fn a_notification_comes_back_from_json_with_its_exact_amount() {
    let notification = tell(&mut bench(), cancelled(CancelReason::Declined));
    let json = serde_json::to_string(&notification).unwrap();
    assert!(json.contains(r#""amount":12.50"#) && json.contains(r#""status":"SENDING""#), "{json}");
    assert_eq!(serde_json::from_str::<Notification>(&json).unwrap(), notification);
}
