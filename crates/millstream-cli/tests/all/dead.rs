//! Dead letters from the command line.

use std::fs;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use millstream::testing::Broker;
use millstream::{Id, Timestamp};
use serde_json::Value;

const BODY: &str = r#"{"order":"o-1","email":"ada@example.org","lines":[{"quantity":0}]}"#;

pub(crate) struct Place {
    pub(crate) broker: Broker,
    pub(crate) jetstream: jetstream::Context,
}

impl Place {
    /// A broker with the stream of dead letters that a service has declared.
    pub(crate) async fn new() -> Self {
        let broker = Broker::start().await;
        let jetstream = jetstream::new(async_nats::connect(broker.url()).await.unwrap());
        let place = Self { broker, jetstream };
        place.stream_of("shipping").await;
        place
    }

    async fn stream_of(&self, service: &str) {
        let config = stream::Config {
            name: format!("DLQ_{}", service.to_uppercase()),
            subjects: vec![format!("dlq.{service}.>")],
            max_messages_per_subject: 1,
            allow_direct: true,
            allow_message_ttl: true,
            ..Default::default()
        };
        self.jetstream.create_stream(config).await.unwrap();
    }

    async fn letter(&self, reason: &str) -> Id {
        self.letter_with(&[("Millstream-Reason", reason)], BODY).await
    }

    /// A dead letter with further headers, and another body.
    pub(crate) async fn letter_with(&self, further: &[(&str, &str)], body: &'static str) -> Id {
        let id = Id::random(Timestamp::system());
        self.letter_of("shipping", id, further, body).await;
        id
    }

    async fn letter_of(&self, service: &str, id: Id, further: &[(&str, &str)], body: &'static str) {
        let now = Timestamp::system().to_string();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-id", id.to_string().as_str()),
            ("ce-type", "orders.placed.v1"),
            ("ce-subject", "o-1"),
            ("ce-datacontenttype", "application/json"),
            ("ce-personalfields", "email"),
            ("Millstream-Id", id.to_string().as_str()),
            ("Millstream-Error", "no%20quantity"),
            ("Millstream-Fingerprint", "cafe"),
            ("Millstream-Stream", "ORDERS"),
            ("Millstream-Sequence", "7"),
            ("Millstream-Subject", "orders.placed.0"),
            ("Millstream-Redrives", "0"),
            ("Millstream-First-Failure", now.as_str()),
            ("Millstream-Last-Failure", now.as_str()),
        ] {
            headers.insert(name, value);
        }
        further.iter().for_each(|(name, value)| headers.insert(*name, *value));
        let subject = format!("dlq.{service}.orders-placed.{id}");
        let sent = self.jetstream.publish_with_headers(subject, headers, body.into()).await.unwrap();
        sent.await.unwrap();
    }

    /// The command's exit code and what it has printed.
    pub(crate) fn call(&self, args: &[&str]) -> (i32, String) {
        self.call_with(args, &[])
    }

    fn call_with(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        // The commands wait for nobody but the broker, which is another process.
        crate::call(&self.broker.url(), args, env)
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let (code, said) = self.call(&[args, &["--json"]].concat());
        assert!(code < 2, "{said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

#[tokio::test]
async fn dead_letters_are_listed_by_cause_and_one_by_one_and_shown_without_what_is_personal() {
    let place = Place::new().await;
    assert_eq!(place.call(&["dead", "list"]), (0, "no dead letters\n".into()));
    let id = place.letter("rejected").await.to_string();
    place.letter("rejected").await;
    place.letter("panic").await;
    let groups = place.json(&["dead", "list"]);
    assert_eq!((groups.as_array().unwrap().len(), &groups[0]["count"]), (2, &2.into()), "{groups}");
    let (code, table) = place.call(&["dead", "list"]);
    assert!(code == 0 && table.contains("no quantity") && table.contains("cafe"), "{table}");
    let each = place.json(&["dead", "list", "--each", "--reason", "rejected", "--newer-than", "1h"]);
    assert_eq!(each.as_array().unwrap().len(), 2);
    assert_eq!(place.json(&["dead", "list", "--each", "--older-than", "1h"]).as_array().unwrap().len(), 0);

    let (code, shown) = place.call(&["dead", "show", &id]);
    assert!(code == 0 && shown.contains("ORDERS 7") && shown.contains("\"email\": \"•••\""), "{shown}");
    assert!(!shown.contains("ada@example.org"), "{shown}");
    assert!(shown.contains("the trace cannot be shown: nothing in"), "{shown}");
    assert_eq!(place.call(&["dead", "show", &id, "--reveal"]).0, 2, "revealing wants a reason");
    let (code, shown) = place.call(&["dead", "show", &format!("shipping/{id}"), "--reveal", "--why", "a complaint"]);
    assert!(code == 0 && shown.contains("ada@example.org") && shown.contains("reveal"), "{shown}");
    let (code, said) = place.call(&["dead", "show", &Id::random(Timestamp::system()).to_string()]);
    assert!(code == 3 && said.contains("no dead letter"), "{said}");
    let entries = place.json(&["audit", "--id", &id]);
    assert_eq!((entries[0]["action"].as_str(), entries[0]["why"].as_str()), (Some("reveal"), Some("a complaint")));
    assert!(entries[0]["who"].as_str().unwrap().starts_with("ada@"), "{entries}");
}

#[tokio::test]
async fn acts_want_a_reason_are_audited_and_say_by_their_exit_code_whether_all_went() {
    let place = Place::new().await;
    let id = place.letter("rejected").await.to_string();
    let other = place.letter("panic").await.to_string();
    let (code, said) = place.call(&["dead", "redrive"]);
    assert!(code == 2 && said.contains("--why"), "{said}");
    assert_eq!(place.call(&["dead", "discard", "--why", "all of it"]).0, 2, "all at once is not discarded by mistake");
    let (code, said) = place.call(&["dead", "redrive", "--dry-run", "--limit", "1"]);
    assert!(code == 1 && said.contains("1 would be redriven") && said.contains("1 held back"), "{said}");
    assert!(said.contains("1 could not be tried") && said.contains("`shipping` does not answer"), "{said}");
    assert!(place.call(&["audit"]).1.contains("no audit entries"));

    let (code, said) = place.call(&["dead", "redrive", "--id", &id, "--why", "mended", "--who", "bob"]);
    assert!(code == 0 && said.contains("1 redriven"), "{said}");
    let (code, said) = place.call(&["dead", "discard", "--fingerprint", "cafe", "--why", "of no use"]);
    assert!(code == 1 && said.contains("1 discarded") && said.contains("on its way back"), "{said}");
    assert_eq!(place.call(&["dead", "redrive", "--key", "o-2", "--why", "x"]), (1, "no dead letter matches\n".into()));
    let entries = place.json(&["audit"]);
    let of = |at: usize, name: &str| entries[at][name].as_str().unwrap().to_owned();
    assert_eq!((of(0, "action"), of(0, "what")), ("discard".into(), other.clone()));
    assert_eq!((of(1, "action"), of(1, "what"), of(1, "who")), ("redrive".into(), id, "bob".into()));
    let sent = place.jetstream.get_stream("REDRIVE").await.unwrap().cached_info().state.messages;
    assert_eq!(sent, 1);
    let state = place.json(&["dead", "list", "--each", "--all", "--id", &other]);
    assert_eq!((state[0]["state"].as_str(), state[0]["why"].as_str()), (Some("discarded"), Some("of no use")));
}

#[tokio::test]
async fn what_two_services_gave_up_goes_back_to_both_and_what_does_not_go_is_said() {
    let place = Place::new().await;
    place.stream_of("billing").await;
    let [one, two, three] = [place.letter("a").await, place.letter("b").await, place.letter("c").await];
    for id in [one, two, three] {
        place.letter_of("billing", id, &[("Millstream-Reason", "a")], BODY).await;
    }
    let sent = async || place.jetstream.get_stream("REDRIVE").await.unwrap().cached_info().state.last_sequence;
    let id = one.to_string();
    let (code, said) = place.call(&["dead", "redrive", "--id", &id, "--why", "mended"]);
    assert!(code == 0 && said.contains("2 redriven"), "{said}");
    assert_eq!(sent().await, 2);
    for service in ["shipping", "billing"] {
        let (code, said) =
            place.call(&["dead", "edit", &format!("{service}/{two}"), "--set", "/note=x", "--why", "a typo"]);
        assert!(code == 0 && said.contains(&format!("sent to {service}")), "{said}");
    }
    assert_eq!(sent().await, 4);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("shipping:{three}:1"));
    let foreign = place.jetstream.publish_with_headers("redrive.nobody.x.y", headers, "?".into()).await.unwrap();
    foreign.await.unwrap();
    let (code, said) = place.call(&["dead", "redrive", "--id", &three.to_string(), "--why", "mended"]);
    assert!(code == 1 && said.contains("1 redriven") && said.contains("1 failed; run again"), "{said}");
    assert!(said.contains("took it for a repeat"), "{said}");
    let (code, said) = place.call(&["dead", "discard", "--id", &three.to_string(), "--why", "of no use"]);
    assert!(code == 1 && said.contains("on its way back"), "{said}");
}

#[tokio::test]
async fn a_body_is_edited_by_pointers_by_a_file_and_in_an_editor() {
    let place = Place::new().await;
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = [place.letter("a").await, place.letter("a").await, place.letter("a").await];
    let edit = |id: &Id, rest: &[&str], env: &[(&str, &str)]| {
        let id = id.to_string();
        let args = [&["dead", "edit", &id, "--why", "a typo"], rest].concat();
        place.call_with(&args, env)
    };
    let (code, said) =
        edit(&one, &["--set", "/lines/0/quantity=3", "--set", "/note=two words", "--set", "/email=x"], &[]);
    assert!(code == 0 && said.contains("/lines/0/quantity") && said.contains("two words"), "{said}");
    assert!(!said.contains("ada@example.org"), "{said}");
    let (code, said) = edit(&one, &["--set", "/lines/0/quantity=4"], &[]);
    assert!(code == 1 && said.contains("edited, as"), "{said}");
    assert_eq!(edit(&two, &["--set", "/no/such/place=4"], &[]).0, 1);
    assert_eq!(edit(&two, &["--set", "lines=4"], &[]).0, 2);

    let file = folder.path().join("body");
    fs::write(&file, r#"{"order":"o-2"}"#).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(edit(&two, &["--payload", file], &[]).0, 0);

    let (code, said) = edit(&three, &[], &[]);
    assert!(code == 3 && said.contains("EDITOR"), "{said}");
    let (code, said) = edit(&three, &[], &[("EDITOR", "sed -i s/o-1/o-3/")]);
    assert!(code == 0 && said.contains("/order"), "{said}");

    let entries = place.json(&["audit", "--action", "edit"]).to_string();
    assert!(!entries.contains("ada@example.org"), "what is personal does not get into the audit: {entries}");
    let mut bodies = vec![];
    let stream = place.jetstream.get_stream("REDRIVE").await.unwrap();
    for sequence in 1..=3 {
        bodies.push(String::from_utf8(stream.get_raw_message(sequence).await.unwrap().payload.to_vec()).unwrap());
    }
    assert!(bodies[0].contains(r#""quantity":3"#) && bodies[0].contains(r#""note":"two words""#), "{bodies:?}");
    assert_eq!(bodies[1], r#"{"order":"o-2"}"#);
    assert!(bodies[2].contains("o-3"), "{bodies:?}");
}

#[tokio::test]
async fn a_value_that_is_set_changes_no_other_digit_and_the_audit_has_the_whole_difference() {
    let place = Place::new().await;
    let body = r#"{"m":18446744073709551617,"f":0.1234567890123456789,"price":24.00,"items":"x"}"#;
    let id = place.letter_with(&[], body).await.to_string();
    let (code, shown) = place.call(&["dead", "show", &id]);
    assert!(code == 0 && shown.contains("18446744073709551617") && shown.contains("24.00"), "{shown}");
    let set = ["--set", "/items=\"y\"", "--set", "/price=24.10"];
    let (code, said) = place.call(&[&["dead", "edit", &id, "--why", "a typo"], &set[..]].concat());
    assert!(code == 0 && said.contains("24.00") && said.contains("24.10"), "{said}");
    let sent = place.jetstream.get_stream("REDRIVE").await.unwrap().get_raw_message(1).await.unwrap();
    let edited = body.replace("24.00", "24.10").replace("\"x\"", "\"y\"");
    assert_eq!(String::from_utf8(sent.payload.to_vec()).unwrap(), edited);
    let audited = &place.json(&["audit"])[0]["details"]["difference"];
    let whole = serde_json::json!([["/price", "24.00", 24.1], ["/items", "x", "y"]]);
    assert_eq!(audited[0][0], whole[0][0]);
    assert_eq!(audited[1], whole[1]);
    assert_eq!(audited.as_array().unwrap().len(), 2, "{audited}");
}

#[tokio::test]
async fn a_service_that_there_is_not_is_no_service_without_dead_letters() {
    let place = Place::new().await;
    let (code, said) = place.call(&["dead", "list", "--service", "nope"]);
    assert!(code == 3 && said.contains("no service `nope`") && said.contains("shipping"), "{said}");
    assert_eq!(place.call(&["dead", "list", "--service", "shipping"]), (0, "no dead letters\n".into()));
    assert_eq!(place.call(&["dead", "redrive", "--service", "nope", "--why", "x"]).0, 3);
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_from_everything_else() {
    let mut place = Place::new().await;
    place.broker.stop().await;
    let (code, said) = place.call(&["dead", "list"]);
    assert!(code == 3 && said.contains("cannot reach the broker"), "{said}");
}
