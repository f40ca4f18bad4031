//! What the containers may do, and the passwords that they are given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use millstream::config::NatsUrl;
use serde_yaml_ng::{Mapping, Value};

use crate::containers::{read, root, variables};

/// A file in YAML, with what it merges.
pub(crate) fn parsed(text: &str) -> Value {
    let mut value: Value = serde_yaml_ng::from_str(text).unwrap();
    loop {
        let before = value.clone();
        value.apply_merge().unwrap();
        // What is merged may merge something itself.
        if value == before {
            return value;
        }
    }
}

fn services(compose: &str) -> BTreeMap<String, Mapping> {
    let compose = parsed(compose);
    let services = compose["services"].as_mapping().unwrap().clone().into_iter();
    services.map(|(name, service)| (name.as_str().unwrap().into(), service.as_mapping().unwrap().clone())).collect()
}

/// What a container may do beyond the rule, by service and kind, and why.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

fn loose(name: &str, service: &Mapping) -> Vec<String> {
    let list = |key| -> Vec<&str> {
        let entries = service.get(key).and_then(Value::as_sequence).map(Vec::as_slice).unwrap_or_default();
        entries.iter().filter_map(Value::as_str).collect()
    };
    let user = service.get("user").and_then(Value::as_str).unwrap_or_default();
    let number: Option<u32> = user.split(':').next().and_then(|user| user.parse().ok());
    let of_the_host = |volume: &&str| volume.starts_with(['/', '.', '~']);
    let volumes = service.get("volumes").and_then(Value::as_sequence).map_or(0, Vec::len);
    let rules = [
        ("user", number.is_some_and(|user| user > 0)),
        ("read_only", service.get("read_only").and_then(Value::as_bool) == Some(true)),
        ("cap_drop", list("cap_drop") == ["ALL"] && !service.contains_key("cap_add")),
        ("security_opt", list("security_opt") == ["no-new-privileges:true"]),
        ("privileged", !service.contains_key("privileged")),
        ("volumes", list("volumes").len() == volumes && !list("volumes").iter().any(of_the_host)),
        ("host", ["network_mode", "pid", "ipc", "devices"].iter().all(|key| !service.contains_key(*key))),
    ];
    let excepted = |rule| EXCEPTIONS.iter().any(|(service, what, _)| *service == name && *what == rule);
    let broken = rules.into_iter().filter(|(rule, kept)| !kept && !excepted(*rule));
    broken.map(|(rule, _)| format!("{name}: {rule}")).collect()
}

#[test]
fn no_container_is_root_or_may_become_it_or_write_to_its_image_or_reach_the_host() {
    let services = services(&read("compose.yaml"));
    assert!(services.len() > 15, "{:?}", services.keys());
    let broken: Vec<_> = services.iter().flat_map(|(name, service)| loose(name, service)).collect();
    assert_eq!(broken, Vec::<String>::new());

    let bare =
        self::services("services: {it: {image: x, user: '0:0', volumes: ['/var/run/docker.sock:/d'], pid: host}}");
    let broken = loose("it", &bare["it"]);
    let rules = ["it: user", "it: read_only", "it: cap_drop", "it: security_opt", "it: volumes", "it: host"];
    assert_eq!(broken, rules, "the test sees what it is for");
}

#[test]
fn a_password_that_nobody_has_set_is_the_demos_which_services_warn_of_and_never_the_name_of_its_user() {
    let compose = read("compose.yaml") + &read("compose.cluster.yaml");
    let defaults = variables(&compose);
    let passwords: Vec<_> = defaults.iter().filter(|(name, _)| name.ends_with("_PASSWORD")).collect();
    assert_eq!(passwords.len(), 9 + 6 + 1, "the broker's, MongoDB's and Grafana's: {passwords:?}");
    let of = |password: &str| compose.matches(&format!("{password}:-")).count();
    let same = compose.matches("PASSWORD:-demo-password}").count();
    assert_eq!(same, of("_PASSWORD"), "each has the same default wherever it stands");
    for (name, default) in passwords {
        let url = NatsUrl::read(&format!("nats://me:{default}@host")).unwrap();
        assert!(url.demo_warning().is_some(), "{name}: `{default}` is not the one that is warned of");
        assert!(
            read("deploy/mongo/start.sh").contains(&format!("== {default} ]]")),
            "MongoDB's log warns of {default}"
        );
    }
    let fixed = |line: &&str| (line.contains("PASSWORD: ") || line.contains('@')) && !line.contains("${");
    let fixed = compose.lines().filter(fixed).filter(|line| !line.trim().starts_with('#'));
    assert_eq!(fixed.collect::<Vec<_>>(), Vec::<&str>::new(), "passwords that cannot be set");
}

/// Runs `deploy/secrets.sh` of a copy.
fn run_secrets(folder: &Path) -> Output {
    fs::create_dir_all(folder.join("deploy")).unwrap();
    for file in ["deploy/secrets.sh", ".env.example"] {
        fs::copy(root().join(file), folder.join(file)).unwrap();
    }
    // From elsewhere, and with a mask that would let everybody read.
    let run = r#"umask 022 && exec "$0""#;
    Command::new("sh").args(["-c", run]).arg(folder.join("deploy/secrets.sh")).current_dir("/").output().unwrap()
}

#[test]
fn secrets_are_long_random_for_their_owner_only_and_never_written_over() {
    let example = read(".env.example");
    let of = |text: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
    };
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let done = run_secrets(folder.path());
        assert!(done.status.success(), "{done:?}");
        let file = folder.path().join(".env");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let written = fs::read_to_string(&file).unwrap();
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        let (named, secrets) = (of(&example), of(&written));
        let wanted = named.keys().filter(|name| name.ends_with("_PASSWORD") || name.ends_with("_KEY"));
        assert!(secrets.keys().eq(wanted), "{:?}", secrets.keys());
        for (name, secret) in secrets {
            // Letters and digits stand in a URL as they are.
            let plain = secret.len() == 48 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(plain && !said.contains(&secret), "{name}: {secret}");
            assert!(seen.insert(secret), "{name} has the password of another user, or of another time");
        }
        let again = run_secrets(folder.path());
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        assert!(String::from_utf8_lossy(&again.stderr).contains(".env, which is left as it is"), "{again:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), written);
    }
}
