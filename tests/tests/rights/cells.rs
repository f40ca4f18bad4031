//! The table of rights, cell by cell: every user, every subject that anybody may use, and the ways around.

use std::collections::BTreeSet;

use async_nats::jetstream;
use millstream::rights::{self, User};

use super::*;

/// All users but the operator: those of the table, and the one that is written by hand.
fn users() -> Vec<User> {
    let check = [
        "$JS.API.STREAM.LIST",
        "$JS.API.CONSUMER.LIST.*",
        "$JS.API.DIRECT.GET.DLQ_ORDERS",
        "$JS.API.DIRECT.GET.DLQ_INVENTORY",
        "$JS.API.DIRECT.GET.DLQ_PAYMENTS",
        "$JS.API.DIRECT.GET.DLQ_NOTIFICATIONS",
        "$JS.API.DIRECT.GET.DLQ_ANALYTICS",
        "millstream.invariants",
    ];
    let check = User {
        name: "check".into(),
        publish: vec![("All.".into(), check.map(Into::into).into())],
        subscribe: vec!["_INBOX_check.>".into(), "millstream.invariants.last".into()],
        answers: true,
    };
    let mut users = rights::users(&declarations());
    users.push(check);
    users
}

fn publishes(user: &User) -> impl Iterator<Item = &String> {
    user.publish.iter().flat_map(|(_, subjects)| subjects)
}

/// Whether a subject lies below a pattern of subjects, or is one that lies there as a whole.
fn lies_in(subject: &str, pattern: &str) -> bool {
    let (mut subject, mut pattern) = (subject.split('.'), pattern.split('.'));
    loop {
        match (subject.next(), pattern.next()) {
            (Some(_), Some(">")) | (None, None) => return true,
            (Some(">"), _) | (None, _) | (_, None) => return false,
            (Some(_), Some("*")) => {}
            (Some(token), Some(wanted)) if token == wanted => {}
            _ => return false,
        }
    }
}

/// Every subject of the table without its wildcards, and what nobody but the operator may do to any stream.
fn subjects(users: &[User]) -> BTreeSet<String> {
    let concrete = |pattern: &String| pattern.replace('*', "any").replace('>', "any.1.1.1.1.0");
    let mut subjects: BTreeSet<String> = users.iter().flat_map(publishes).map(concrete).collect();
    let letters = SERVICES.map(|service| format!("DLQ_{}", service.to_uppercase()));
    let events = ["ORDERS", "INVENTORY", "PAYMENTS", "REDRIVE", "AUDIT", "OTHER"].map(Into::into);
    let streams: Vec<String> = events.into_iter().chain(letters).collect();
    for stream in &streams {
        for act in ["CREATE", "UPDATE", "INFO", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.GET", "MSG.DELETE"] {
            subjects.insert(format!("$JS.API.STREAM.{act}.{stream}"));
        }
        for act in ["STREAM.LEADER.STEPDOWN", "STREAM.PEER.REMOVE", "CONSUMER.CREATE", "CONSUMER.NAMES", "DIRECT.GET"] {
            subjects.insert(format!("$JS.API.{act}.{stream}"));
        }
        for durable in SERVICES {
            for act in ["CREATE", "DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT", "PAUSE", "UNPIN", "RESET"] {
                subjects.insert(format!("$JS.API.CONSUMER.{act}.{stream}.{durable}"));
            }
            subjects.insert(format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}.any"));
            for own in ["ORDERS", "PAYMENTS"] {
                // An ack in the older form that looks like one in the newer: `+NXT` would pull through another's durable.
                subjects.extend(SERVICES.map(|service| format!("$JS.ACK.{stream}.{durable}.{own}.{service}.1.1.0")));
            }
            subjects.insert(format!("$JS.ACK.{stream}.{durable}.1.1.1.1.0"));
            subjects.insert(format!("$JS.ACK._.other.{stream}.{durable}.1.1.1.1.0"));
        }
    }
    subjects.extend(["$JS.API.INFO", "$JS.API.ACCOUNT.PURGE.$G", "$JS.API.META.LEADER.STEPDOWN"].map(Into::into));
    subjects.extend(["$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.$G.CONNECT", "$JS.FC.ORDERS.any.1"].map(Into::into));
    subjects.extend(SERVICES.map(|service| format!("_INBOX_{service}.any")));
    subjects
}

/// Those of the subjects that the broker refuses a client, whichever way it uses them.
async fn refused<'a>(
    subjects: impl Iterator<Item = &'a String>,
    client: &Client,
    errors: &mut mpsc::UnboundedReceiver<String>,
    way: &str,
    does: impl AsyncFn(String),
) -> BTreeSet<String> {
    let mut refused = BTreeSet::new();
    let subjects: Vec<&String> = subjects.collect();
    // The client keeps only so many errors for who listens; nobody may use the last subject.
    for (at, some) in subjects.chunks(40).enumerate() {
        let last = format!("nobody.{at}");
        for subject in some.iter().copied().chain([&last]) {
            does(subject.clone()).await;
        }
        client.flush().await.unwrap();
        loop {
            let said = refusal(errors, &last).await;
            let subject = said.split('"').nth(1).filter(|_| said.contains(way));
            let subject = subject.unwrap_or_else(|| panic!("{said}"));
            if subject == last {
                break;
            }
            refused.insert(subject.to_owned());
        }
    }
    refused
}

#[test]
fn the_brokers_configuration_gives_the_rights_that_follow_from_what_the_services_declare() {
    let wanted = rights::configuration(&rights::users(&declarations()));
    let configuration = configuration();
    assert!(configuration.contains(&wanted), "run `cargo xtask rights`; wanted:\n{wanted}");
    let after = configuration.split("# End mark.").nth(1).unwrap();
    let names = |text: &str| {
        let names = text.split("user: ").skip(1).filter_map(|rest| rest.split_whitespace().next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(after), ["check", "operator"]);
    let all = [names(&wanted), names(after)].concat();
    assert_eq!(names(&configuration), all, "nobody else");
}

async fn every_cell(configuration: &str) {
    let broker = Guarded::start(configuration, &[]).await;
    broker.declare().await;
    let users = users();
    let published = subjects(&users);
    let own = users.iter().flat_map(|user| &user.subscribe).cloned();
    let more = ["_INBOX.>", "orders.>", "payments.>", "dlq.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>", "$SRV.>", ">"];
    let subscribed: BTreeSet<String> = own.chain(more.map(Into::into)).collect();
    for user in &users {
        let (client, mut errors) = broker.client(&user.name).await;
        let publish = async |subject: String| client.publish(subject, "{}".into()).await.unwrap();
        let found = refused(published.iter(), &client, &mut errors, "Publish", publish).await;
        let may = |subject: &&String| publishes(user).any(|pattern| lies_in(subject, pattern));
        let wanted: BTreeSet<String> = published.iter().filter(|subject| !may(subject)).cloned().collect();
        assert_eq!(found, wanted, "what {} may not publish", user.name);

        let subscribe = async |subject: String| drop(client.subscribe(subject).await.unwrap());
        let found = refused(subscribed.iter(), &client, &mut errors, "Subscription", subscribe).await;
        let may = |subject: &&String| user.subscribe.iter().any(|pattern| lies_in(subject, pattern));
        let wanted: BTreeSet<String> = subscribed.iter().filter(|subject| !may(subject)).cloned().collect();
        assert_eq!(found, wanted, "what {} may not subscribe to", user.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_may_do_what_its_rights_say_and_nothing_else() {
    every_cell(&configuration()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_may_do_the_same_where_acks_have_the_newer_form() {
    if let Some(configuration) = with_the_newer_acks() {
        every_cell(&configuration).await;
    }
}

async fn assert_refused(errors: &mut mpsc::UnboundedReceiver<String>, subject: &str) {
    let said = refusal(errors, subject).await;
    assert!(said.contains("Publish") && said.contains(subject), "{subject}: {said}");
}

/// What a stream's settings can do past all rights, tried as a service that owns one.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_can_neither_have_foreign_streams_copied_into_its_own_nor_its_own_sent_elsewhere() {
    let broker = Guarded::start(&configuration(), &[]).await;
    broker.declare().await;
    let operator = jetstream::new(broker.client("operator").await.0);
    let config = async |stream: &str| {
        let stream = operator.get_stream(stream).await.unwrap();
        serde_json::to_value(&stream.cached_info().config).unwrap()
    };
    let (client, mut refused) = broker.client("analytics").await;
    for (stream, way) in [
        ("DLQ_ANALYTICS", serde_json::json!({ "sources": [{ "name": "PAYMENTS" }, { "name": "DLQ_ORDERS" }] })),
        ("DLQ_ANALYTICS", serde_json::json!({ "republish": { "src": ">", "dest": "_INBOX_analytics.leak.>" } })),
        ("DLQ_ANALYTICS", serde_json::json!({ "republish": { "src": "dlq.analytics.>", "dest": "payments.>" } })),
        ("DLQ_ANALYTICS", serde_json::json!({ "subjects": ["dlq.analytics.>", "other.>"] })),
        ("REDRIVE", serde_json::json!({ "max_msgs": 1, "discard": "new" })),
    ] {
        let before = config(stream).await;
        let mut changed = before.clone();
        changed.as_object_mut().unwrap().extend(way.as_object().unwrap().clone());
        let subject = format!("$JS.API.STREAM.UPDATE.{stream}");
        client.publish(subject.clone(), changed.to_string().into()).await.unwrap();
        client.flush().await.unwrap();
        assert_refused(&mut refused, &subject).await;
        assert_eq!(config(stream).await, before, "after {way}");
        // Nor by a stream of its own.
        let made = serde_json::json!({ "name": "MINE", "mirror": { "name": "PAYMENTS" } });
        client.publish("$JS.API.STREAM.CREATE.MINE", made.to_string().into()).await.unwrap();
        assert_refused(&mut refused, "$JS.API.STREAM.CREATE.MINE").await;
    }
    assert!(operator.get_stream("MINE").await.is_err());
    assert!(refused.try_recv().is_err(), "all of it was refused, and nothing else");
}

/// All services have a durable on it, and the broker alone keeps them apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_cannot_read_what_is_redriven_for_others() {
    let broker = Guarded::start(&configuration(), &[]).await;
    broker.declare().await;
    let (client, mut refused) = broker.client("analytics").await;
    let durable = |filters: serde_json::Value| {
        let mut config = serde_json::json!({ "durable_name": "analytics", "ack_policy": "explicit" });
        config.as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
        serde_json::json!({ "stream_name": "REDRIVE", "config": config, "action": "" }).to_string()
    };
    let own = "$JS.API.CONSUMER.CREATE.REDRIVE.analytics.redrive.analytics.>";
    for filters in [
        serde_json::json!({}),
        serde_json::json!({ "filter_subject": "redrive.orders.>" }),
        serde_json::json!({ "filter_subject": "redrive.>" }),
        serde_json::json!({ "filter_subjects": ["redrive.orders.>"] }),
        serde_json::json!({ "filter_subject": "redrive.analytics.>", "filter_subjects": ["redrive.orders.>"] }),
    ] {
        let said = client.request(own, durable(filters.clone()).into()).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said.payload).unwrap();
        assert!(said["error"]["description"].is_string(), "{filters}: {said}");
    }
    for subject in ["$JS.API.CONSUMER.CREATE.REDRIVE.analytics", "$JS.API.CONSUMER.CREATE.REDRIVE.analytics.redrive.>"]
    {
        client.publish(subject, durable(serde_json::json!({ "filter_subject": "redrive.>" })).into()).await.unwrap();
        client.flush().await.unwrap();
        assert_refused(&mut refused, subject).await;
    }
}
