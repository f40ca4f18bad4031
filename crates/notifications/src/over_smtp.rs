//! The service over a real broker, a real store and a mail server.

use std::time::Duration;

use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed};
use contracts::{orders, payments};
use millstream::engine::timing::Timing;
use millstream::testing::{Bench, TestService, eventually, fresh_meta};
use millstream::{Event, Meta};
use serde_json::Value;

use crate::channel::Settings;
use crate::mail_server::{Does, MailServer};
use crate::service;
use crate::table::{cancelled, confirmed, refunded};

const SOON: Duration = Duration::from_secs(40);

async fn bench() -> Bench {
    let bench = Bench::start().await;
    bench.declare(&orders::STREAM).await;
    bench.declare(&payments::STREAM).await;
    bench
}

fn over(server: &MailServer, login: &str) -> Settings {
    let url = format!("smtp://{login}{}?tls=none", server.address);
    Settings { smtp_url: Some(url.into()), ..Settings::default() }
}

async fn start(bench: &Bench, server: &MailServer) -> TestService {
    // Times for a whole try as in production, so that a busy machine does not make another of it.
    let timing = Timing { effect_timeout: Duration::from_secs(10), ..Timing::short() };
    bench.run(service(&over(server, "")).unwrap(), timing).await
}

async fn tell<E: Event>(bench: &Bench, event: &E) -> Meta {
    let meta = fresh_meta();
    bench.publish(&meta, event).await;
    meta
}

async fn confirm(bench: &Bench, user: &str) -> Meta {
    let user_id = user.parse().unwrap();
    let order_id = format!("of-{user}").parse().unwrap();
    tell(bench, &OrderConfirmed { order_id, user_id, ..confirmed() }).await
}

/// The notifications of an order, as the route shows them.
async fn shown(service: &TestService, order: &str) -> Vec<Value> {
    let url = format!("{}/notifications?orderId={order}", service.url());
    let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    answer["notifications"].as_array().unwrap().clone()
}

/// Waits until the one notification of an order stands there.
async fn until(service: &TestService, order: &str, status: &str) -> Value {
    let stands = async || shown(service, order).await.into_iter().find(|shown| shown["status"] == status);
    eventually(&format!("a notification of {order} that is {status}"), SOON, stands).await
}

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find(|line| line.starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {mail}")).split_once(": ").unwrap().1
}

#[tokio::test]
async fn what_becomes_of_an_order_is_mailed_to_its_customer() {
    let (bench, server) = (bench().await, MailServer::start(vec![]));
    let service = start(&bench, &server).await;
    let ids = [
        tell(&bench, &cancelled(CancelReason::Declined)).await.id,
        tell(&bench, &refunded()).await.id,
        tell(&bench, &OrderCancelled { order_id: "another".parse().unwrap(), ..cancelled(CancelReason::Deadline) })
            .await
            .id,
    ];
    let all = async || Some(server.mails("ada@example.com")).filter(|mails| mails.len() == 3);
    let mails = eventually("three mails", SOON, all).await;
    for (id, subject, part) in [
        (ids[0], "Your order o was cancelled", "12.50 EUR was cancelled, because the payment was declined"),
        (ids[1], "Refund for your order o", "refunded 12.50 EUR"),
        (ids[2], "Your order another was cancelled", "could not be completed in time"),
    ] {
        let id = format!("<{id}@example.com>");
        let mail = mails.iter().find(|mail| header(mail, "Message-ID") == id).unwrap();
        assert_eq!(header(mail, "Subject"), subject);
        assert_eq!((header(mail, "From"), header(mail, "To")), ("shop@example.com", "ada@example.com"));
        // A long line goes over several, each of which ends in `=`.
        assert!(mail.replace("=\n", "").contains(part), "{mail}");
    }
    for order in ["o", "another"] {
        let sent = async || shown(&service, order).await.iter().all(|shown| shown["status"] == "SENT");
        eventually("the notifications to be SENT", SOON, sent).await;
    }
    assert_eq!(shown(&service, "o").await.len(), 2);
    assert_eq!(shown(&service, "nobody").await.len(), 0);
    let sent = service.metric("shop_notifications_total", &[("channel", "smtp"), ("outcome", "sent")]);
    assert_eq!(sent, Some(3.0));
    service.stop().await;
}

#[tokio::test]
async fn a_mail_that_was_taken_and_whose_answer_was_lost_is_sent_again_under_the_same_message_id() {
    let plan = vec![("ada@example.com", Does::TakeUnsaid), ("ada@example.com", Does::Take)];
    let (bench, server) = (bench().await, MailServer::start(plan));
    let service = start(&bench, &server).await;
    let id = tell(&bench, &confirmed()).await.id;
    until(&service, "o", "SENT").await;
    let mails = server.mails("ada@example.com");
    assert_eq!(mails.len(), 2);
    assert_eq!(header(&mails[0], "Message-ID"), format!("<{id}@example.com>"));
    assert_eq!(mails[0], mails[1], "the copies are the same to the letter");
    service.stop().await;
}

#[tokio::test]
async fn a_mail_that_is_refused_for_good_has_failed_and_is_not_tried_again() {
    let plan = vec![("gone@example.com", Does::Refuse("550 5.1.1 no such mailbox"))];
    let (bench, server) = (bench().await, MailServer::start(plan));
    let service = start(&bench, &server).await;
    confirm(&bench, "gone").await;
    let failed = until(&service, "of-gone", "FAILED").await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("550") && error.contains("no such mailbox"), "{error}");
    for at in 0..5 {
        confirm(&bench, &format!("user-{at}")).await;
        until(&service, &format!("of-user-{at}"), "SENT").await;
    }
    assert_eq!(server.asked("gone@example.com"), 1);
    let count = |outcome| service.metric("shop_notifications_total", &[("channel", "smtp"), ("outcome", outcome)]);
    assert_eq!((count("failed"), count("sent")), (Some(1.0), Some(5.0)));
    assert!(bench.dead_letters("notifications").await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn a_server_that_turns_us_away_fails_no_mail_and_all_are_sent_when_it_lets_us_in() {
    let (bench, server) = (bench().await, MailServer::start(vec![]));
    server.greet(Some("554 no mail from you"));
    let service = start(&bench, &server).await;
    confirm(&bench, "ada").await;
    let outages = || service.metric("millstream_effects_total", &[("kind", "send"), ("outcome", "outage")]);
    eventually("a try that was turned away", SOON, async || outages().is_some_and(|outages| outages > 0.0)).await;
    assert_eq!(shown(&service, "of-ada").await[0]["status"], "SENDING");
    server.greet(None);
    until(&service, "of-ada", "SENT").await;
    service.stop().await;
}

#[tokio::test]
async fn a_mailbox_that_is_refused_for_now_is_tried_again_and_holds_up_no_other() {
    let later = Does::Refuse("450 4.2.0 greylisted, come back later");
    let slow = "slow@example.com";
    let plan = vec![(slow, later), (slow, later), (slow, later), (slow, later), (slow, Does::Take)];
    let (bench, server) = (bench().await, MailServer::start(plan));
    let service = start(&bench, &server).await;
    confirm(&bench, "slow").await;
    for at in 0..20 {
        confirm(&bench, &format!("user-{at}")).await;
    }
    for at in 0..20 {
        until(&service, &format!("of-user-{at}"), "SENT").await;
    }
    until(&service, "of-slow", "SENT").await;
    assert_eq!((server.asked(slow), server.mails(slow).len()), (5, 1));
    service.stop().await;
}

#[tokio::test]
async fn while_the_mail_server_is_down_nothing_is_held_up_or_given_up_and_all_is_sent_when_it_is_back() {
    let (server, _kept) = MailServer::down(vec![]);
    let bench = bench().await;
    let service = start(&bench, &server).await;
    for at in 0..30 {
        confirm(&bench, &format!("user-{at}")).await;
    }
    bench.until_handled(&orders::STREAM, "notifications").await;
    let outages = async || {
        let seen = service.metric("millstream_effects_total", &[("kind", "send"), ("outcome", "outage")]);
        seen.is_some_and(|seen| seen >= 5.0)
    };
    eventually("some tries", SOON, outages).await;
    assert!(service.waits_for().is_empty(), "that the outside is away does not make it unready");
    until(&service, "of-user-0", "SENDING").await;
    server.listen();
    for at in 0..30 {
        until(&service, &format!("of-user-{at}"), "SENT").await;
        assert_eq!(server.mails(&format!("user-{at}@example.com")).len(), 1);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_login_that_is_refused_fails_no_mail() {
    let (bench, server) = (bench().await, MailServer::start(vec![]));
    server.login("535 5.7.8 who are you?");
    let service = bench.run(service(&over(&server, "me:secret@")).unwrap(), Timing::short()).await;
    tell(&bench, &confirmed()).await;
    let outage = async || service.metric("millstream_effects_total", &[("kind", "send"), ("outcome", "outage")]);
    eventually("a try", SOON, async || outage().await.is_some_and(|seen| seen >= 1.0)).await;
    assert_eq!(shown(&service, "o").await[0]["status"], "SENDING");
    server.login("235 welcome");
    until(&service, "o", "SENT").await;
    service.stop().await;
}

#[tokio::test]
async fn added_later_it_mails_nobody_about_what_was_before() {
    let (bench, server) = (bench().await, MailServer::start(vec![]));
    for at in 0..20 {
        confirm(&bench, &format!("last-week-{at}")).await;
    }
    let service = start(&bench, &server).await;
    confirm(&bench, "today").await;
    until(&service, "of-today", "SENT").await;
    service.stop().await;
    // From then on it misses nothing, also of what happens while it does not run.
    confirm(&bench, "meanwhile").await;
    let service = start(&bench, &server).await;
    until(&service, "of-meanwhile", "SENT").await;
    for at in 0..20 {
        assert_eq!(server.asked(&format!("last-week-{at}@example.com")), 0);
    }
    service.stop().await;
}

#[tokio::test]
async fn an_id_that_is_no_mailbox_as_it_stands_is_quoted() {
    let (bench, server) = (bench().await, MailServer::start(vec![]));
    let service = start(&bench, &server).await;
    for user in ["a:b", ".a", "a..b"] {
        confirm(&bench, user).await;
        until(&service, &format!("of-{user}"), "SENT").await;
        assert_eq!(server.mails(&format!("\"{user}\"@example.com")).len(), 1);
    }
    service.stop().await;
}
