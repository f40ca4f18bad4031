//! What is printed, where, and what of it a terminal would obey.

use std::fs::File;
use std::process::{Command, Output};

use millstream::terminal::steers;

use crate::dead::Place;

/// What a sender might put where it is shown.
const EVIL: &str = "key\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[31mred\u{1b}[0m\u{202e}";

#[tokio::test]
async fn what_a_sender_chose_cannot_steer_the_terminal() {
    let place = Place::new().await;
    let headers =
        [("ce-subject", EVIL), ("ce-source", EVIL), ("ce-correlationid", EVIL), ("Millstream-Error", "%1B[2J%0Aa%0Db")];
    let id = place.letter_with(&headers, "{\"a\":1}").await.to_string();
    let entry = serde_json::json!({
        "at": "2026-01-31T12:00:00Z", "who": EVIL, "action": "edit", "service": "shipping", "what": id, "why": "two\nlines",
    });
    let config = async_nats::jetstream::stream::Config {
        name: "AUDIT".into(),
        subjects: vec!["audit.>".into()],
        allow_direct: true,
        ..Default::default()
    };
    place.jetstream.create_stream(config).await.unwrap();
    let subject = format!("audit.shipping.edit.{id}");
    place.jetstream.publish(subject, entry.to_string().into()).await.unwrap().await.unwrap();
    for args in [&["dead", "list"][..], &["dead", "list", "--each"], &["dead", "show", &id], &["audit"]] {
        let (code, said) = place.call(args);
        assert_eq!(code, 0, "{said}");
        let steering: Vec<char> = said.chars().filter(|letter| steers(*letter) && *letter != '\n').collect();
        assert!(steering.is_empty(), "{args:?} prints {steering:?}: {said:?}");
        assert!(said.contains(r"\u{1b}"), "{args:?}: {said}");
    }
    assert_eq!(place.json(&["dead", "list", "--each"])[0]["key"], EVIL);
    for (name, value) in [("--why", "two\nlines"), ("--who", EVIL)] {
        let mut args = vec!["dead", "discard", "--fingerprint", "cafe", name, value];
        if name == "--who" {
            args.extend(["--why", "fine"]);
        }
        let (code, said) = place.call(&args);
        assert!(code == 2 && said.contains("one line of text"), "{said}");
    }
}

#[tokio::test]
async fn a_closed_output_is_quiet_and_a_full_one_is_an_error_in_one_sentence() {
    let place = Place::new().await;
    let id = place.letter_with(&[], "{}").await.to_string();
    for args in [
        &["dead", "list"][..],
        &["dead", "list", "--each"],
        &["dead", "list", "--json"],
        &["dead", "show", &id],
        &["dead", "redrive", "--dry-run"],
        &["audit"],
        &["status"],
        &["wakes", "list"],
        &["completions", "bash"],
    ] {
        let run = |out: std::process::Stdio| -> (Option<i32>, String) {
            let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
            command.args(args).env("NATS_URL", place.broker.url()).env_remove("NATS_CONTEXT").stdout(out);
            let Output { status, stderr, .. } = command.output().unwrap();
            (status.code(), String::from_utf8(stderr).unwrap())
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, said) = run(writer.into());
        assert_eq!((code, said.contains("panic")), (Some(0), false), "{args:?}: {said}");
        let (code, said) = run(File::options().write(true).open("/dev/full").unwrap().into());
        assert_eq!(code, Some(3), "{args:?}: {said}");
        let errors = said.lines().filter(|line| line.starts_with("error: cannot write the output: ")).count();
        assert!(errors == 1 && !said.contains("panic"), "{args:?}: {said}");
    }
}
