//! Where the command line finds its broker, and what it says if it does not.

use std::fs;

use millstream::testing::Broker;
use serde_json::json;

use crate::call;

#[tokio::test]
async fn a_context_of_the_nats_command_line_names_the_broker_and_what_is_wrong_with_it_is_told_without_its_secrets() {
    let (broker, folder) = (Broker::start().await, tempfile::tempdir().unwrap());
    let contexts = folder.path().join("nats/context");
    fs::create_dir_all(&contexts).unwrap();
    let write = |name: &str, text: String| fs::write(contexts.join(format!("{name}.json")), text).unwrap();
    write("mill", json!({ "url": broker.url(), "description": "ours", "user": "" }).to_string());
    write("broken", "{\"url\": \"nats://mill\",\n \"password\": secret}".into());
    let config = [("XDG_CONFIG_HOME", folder.path().to_str().unwrap())];
    // What is set beats the context.
    let nowhere = "nats://127.0.0.1:1";
    let (code, said) = call(nowhere, &["status", "--context", "mill", "--server", &broker.url()], &config);
    assert_eq!((code, said.contains("! services: none was found")), (3, true), "nothing runs there: {said}");
    let path = contexts.join("mill.json");
    for context in ["mill", path.to_str().unwrap()] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.args(["status", "--context", context]).env_remove("NATS_URL").envs(config);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(said.contains("none was found"), "{said}");
    }
    let (code, said) = call(nowhere, &["status", "--context", "broken"], &config);
    assert_eq!((code, said.contains("broken.json is not a valid context file: line 2")), (3, true), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let (code, said) = call(nowhere, &["status", "--context", "none"], &config);
    assert_eq!((code, said.contains("cannot read the context") && said.contains("none.json")), (3, true), "{said}");
    let (code, said) = call("nats://ada:secret@127.0.0.1:1", &["status"], &config);
    assert!(code == 3 && said.contains("(--server, NATS_URL)") && !said.contains("secret"), "{said}");
    assert!(said.contains("! broker: cannot reach the broker at ") && said.contains("\"BrokerDown\""), "{said}");
}

#[test]
fn a_completion_script_names_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = call("nats://127.0.0.1:1", &["completions", shell], &[]);
        assert_eq!(code, 0, "{script}");
        for command in ["console", "status", "tail", "trace", "wakes", "dead", "audit", "redrive", "declare"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
}
