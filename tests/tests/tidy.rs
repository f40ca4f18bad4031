//! What is kept in order by reading the sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files that are kept with the sources, with their paths relative to the root.
fn files() -> Vec<(String, String)> {
    let mut found = vec![];
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                if !["target", ".git", "data"].contains(&name.as_str()) {
                    folders.push(path);
                }
            // In a worktree `.git` is a file, and not one of ours.
            } else if name != ".git"
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((relative, text));
            }
        }
    }
    assert!(found.len() > 100, "the sources are not where they should be: {}", root().display());
    found
}

fn sources() -> Vec<(String, String)> {
    files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// This file names what it looks for.
fn is_this(path: &str) -> bool {
    path == "tests/tests/tidy.rs"
}

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_know_only_those_below_them() {
    let services = ["orders", "inventory", "payments", "notifications", "analytics"];
    let mut may = BTreeMap::from([
        ("nats-embedded", vec![]),
        ("millstream-core", vec![]),
        ("millstream", vec!["millstream-core", "nats-embedded"]),
        ("contracts", vec!["millstream-core"]),
        ("millstream-console", vec!["millstream"]),
        ("millstream-cli", vec!["millstream", "millstream-console"]),
        ("xtask", vec!["nats-embedded"]),
        // It runs the shop's programs, and is not built again when they change.
        ("bench", vec!["nats-embedded"]),
    ]);
    may.extend(services.map(|service| (service, vec!["contracts", "millstream"])));
    let below_shop: Vec<&str> =
        services.into_iter().chain(["contracts", "millstream", "nats-embedded", "millstream-console"]).collect();
    may.insert("boards", below_shop.clone());
    may.insert("simulation", services.into_iter().chain(["contracts", "millstream"]).collect());
    may.insert("tests", below_shop.iter().copied().chain(["shop", "boards"]).collect());
    may.insert("shop", below_shop);
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |of: &Value| of["name"].as_str().unwrap().to_owned();
    let ours: Vec<String> = packages.iter().map(name).collect();
    let mut wrong = vec![];
    for package in packages {
        let this = name(package);
        let Some(may) = may.get(this.as_str()) else {
            wrong.push(format!("{this} has no place in the order of crates: give it one here"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = name(dependency);
            if ours.contains(&other) && !may.contains(&other.as_str()) {
                wrong.push(format!("{this} must not know {other}"));
            }
            if this == "millstream-core"
                && ["tokio", "async-nats", "axum", "rusqlite", "mongodb"].contains(&other.as_str())
            {
                wrong.push(format!("millstream-core does no I/O and must not know {other}"));
            }
            let built = dependency["kind"] != "dev";
            if built && this == "millstream" && other == "nats-embedded" && dependency["optional"] != true {
                wrong.push("millstream takes nats-embedded for its test kit only".into());
            }
            if this == "xtask" && other == "nats-embedded" && dependency["uses_default_features"] != false {
                wrong.push(
                    "xtask is built before anything else and only finds programs: nats-embedded without `launch`"
                        .into(),
                );
            }
        }
    }
    none("arrows that do not point down", wrong);
}

/// The modules of the toolkit from the ground up, and what each may know beside the core: only what stands before it.
const MODULES: [(&str, &[&str]); 42] = [
    // Leaves.
    ("accepted", &[]),
    ("api_keys", &[]),
    ("capacity", &[]),
    ("flag", &[]),
    ("handler", &[]),
    ("progress", &[]),
    ("protocol", &[]),
    ("raw", &[]),
    ("refusals", &[]),
    ("release", &[]),
    ("retry", &[]),
    ("signals", &[]),
    ("supervisor", &[]),
    ("terminal", &[]),
    // The store, telemetry, the broker and what is seen through it.
    ("store", &[]),
    ("telemetry", &["flag", "terminal"]),
    ("config", &["flag", "store", "telemetry"]),
    ("declare", &["release"]),
    ("broker", &["config", "declare", "refusals", "release", "retry"]),
    ("operator", &["broker", "declare", "protocol", "raw", "release", "terminal"]),
    // The engine and its feeders.
    ("engine", &["accepted", "broker", "capacity", "progress", "raw", "refusals", "store", "telemetry"]),
    ("durable", &["broker", "declare", "progress", "release", "store"]),
    ("owned", &["broker", "declare", "engine", "release", "retry"]),
    ("trim", &["broker", "capacity", "declare", "engine", "raw", "release"]),
    ("consumer", &["broker", "durable", "engine", "progress", "telemetry"]),
    ("unreadable", &["broker", "durable", "engine", "progress", "raw"]),
    // What callers meet.
    ("watchers", &["store"]),
    ("commands", &["accepted", "engine", "store", "watchers"]),
    ("watch", &["commands", "store", "watchers"]),
    ("http", &["api_keys", "commands", "engine", "progress", "store", "telemetry", "watch"]),
    ("rehearse", &["commands", "protocol", "store"]),
    ("answers", &["commands", "engine", "protocol", "rehearse", "store"]),
    ("discovery", &["answers", "broker", "engine", "http", "protocol", "release", "telemetry"]),
    // A service, and running it.
    ("service", &["api_keys", "commands", "config", "durable", "release", "store", "supervisor", "telemetry"]),
    ("rebuild", &["broker", "service", "store"]),
    ("stopping", &["broker", "durable", "engine"]),
    (
        "assemble",
        &[
            "answers",
            "broker",
            "commands",
            "config",
            "consumer",
            "discovery",
            "durable",
            "engine",
            "http",
            "owned",
            "progress",
            "raw",
            "rebuild",
            "rehearse",
            "release",
            "retry",
            "service",
            "stopping",
            "store",
            "supervisor",
            "trim",
            "unreadable",
        ],
    ),
    (
        "run",
        &[
            "assemble",
            "capacity",
            "commands",
            "config",
            "engine",
            "http",
            "rebuild",
            "service",
            "stopping",
            "store",
            "supervisor",
            "telemetry",
            "watchers",
        ],
    ),
    ("program", &["config", "service", "signals", "telemetry", "terminal"]),
    // For tests.
    ("testing", &["broker", "commands", "config", "declare", "http", "release", "run", "service", "telemetry"]),
    ("workbench", &["service", "store", "telemetry"]),
    ("sim", &["operator", "service", "store", "telemetry"]),
];

/// The sources of the toolkit by their path below its `src`, without comments, tests and the suite for stores.
fn toolkit() -> impl Iterator<Item = (String, String)> {
    sources().into_iter().filter_map(|(path, text)| {
        let path = path.strip_prefix("crates/millstream/src/")?;
        let code = text.split("#[cfg(test)]").next()?;
        let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let left_out = path == "lib.rs" || path.ends_with("/tests.rs") || path.starts_with("store/conformance/");
        (!left_out).then(|| (path.to_owned(), code.join("\n")))
    })
}

#[test]
fn modules_of_the_toolkit_know_only_those_below_them() {
    // Of the crate below.
    let core = ["dead_letter", "declaration", "event", "handler", "ids", "redriven", "unit", "view", "work"];
    let place = |module: &str| MODULES.iter().position(|(name, _)| *name == module);
    let mut wrong = vec![];
    for (at, (module, may)) in MODULES.iter().enumerate() {
        let above = may.iter().filter(|other| place(other).is_none_or(|other| other >= at));
        wrong.extend(above.map(|other| format!("{module} may not be allowed to know {other}, which is not before it")));
    }
    for (path, code) in toolkit() {
        let this = path.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(at) = place(this) else {
            wrong.push(format!("{path}: {this} has no place in the order of modules: give it one here"));
            continue;
        };
        // In a file at the top, `super` is the crate.
        let code = if path.contains('/') { code } else { code.replace("super::", "crate::") };
        for known in code.split("crate::").skip(1).filter(|known| !known.starts_with("engine::timing")) {
            let other: String = known.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let may = other == this || core.contains(&other.as_str()) || MODULES[at].1.contains(&other.as_str());
            if !may {
                wrong.push(format!("{path}: {this} must not know {other}: `crate::{}`", known.lines().next().unwrap()));
            }
        }
    }
    none("arrows between modules that do not point down", wrong);
}

/// An unwatched task that panics leaves a service that is ready and deaf.
#[test]
fn tasks_of_a_service_are_watched() {
    // `run` watches what it spawns itself; an effect ends with an input, and its panics are caught.
    let may = ["run.rs", "engine/wakes.rs"];
    let spawning = toolkit().filter(|(path, code)| {
        code.contains("tokio::spawn(") && !path.starts_with("testing") && !may.contains(&path.as_str())
    });
    none("tasks that nobody watches: spawn them with the supervisor", spawning.map(|(path, _)| path).collect());
}

/// The identifiers of a source in lower case, without what is in comments, literals and tests.
fn words(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let mut words = vec![];
    for line in code.lines() {
        // SQL may go over several lines.
        let line = line.split("//").next().unwrap().replace("ORDER BY", "");
        // Every second piece between quotes is a literal.
        for piece in line.replace("\\\"", "").split('"').step_by(2) {
            let mut word = String::new();
            for letter in piece.chars() {
                if letter.is_alphanumeric() && !(letter.is_uppercase() && word.ends_with(char::is_lowercase)) {
                    word.push(letter);
                } else {
                    words.push(std::mem::take(&mut word).to_lowercase());
                    if letter.is_alphanumeric() {
                        word.push(letter);
                    }
                }
            }
            words.push(word.to_lowercase());
        }
    }
    words
}

#[test]
fn the_toolkit_has_no_word_of_the_shop() {
    let shop = [
        "order",
        "orders",
        "payment",
        "payments",
        "inventory",
        "product",
        "products",
        "customer",
        "customers",
        "refund",
        "refunds",
        "reservation",
        "reservations",
        "stock",
        "shop",
        "price",
        "amount",
        "money",
        "cart",
        "quantity",
    ];
    assert_eq!(words("fn saveOrder(x: PaymentId) { \"cart\" } // shop")[1..3], ["save", "order"]);
    let toolkit = sources().into_iter().filter(|(path, _)| {
        ["crates/millstream/src", "crates/nats-embedded/src"].iter().any(|src| path.starts_with(src))
            && !path.ends_with("tests.rs")
            && !path.contains("/conformance/")
    });
    let found = toolkit.flat_map(|(path, source)| {
        let words = words(&source).into_iter().filter(|word| shop.contains(&word.as_str()));
        words.map(|word| format!("{path}: {word}")).collect::<Vec<_>>()
    });
    none("the toolkit speaks of the shop", found.collect());
}

#[test]
fn only_one_module_names_the_backoff_crate() {
    let naming = sources().into_iter().filter(|(path, source)| {
        let used = source.lines().any(|line| line.contains("backoff::") || line.trim() == "use backoff;");
        used && path != "crates/millstream-core/src/retry.rs" && !is_this(path)
    });
    none("`backoff` beside retry.rs", naming.map(|(path, _)| path).collect());
    let manifests = files().into_iter().filter(|(path, text)| {
        let names = text.lines().any(|line| line.starts_with("backoff"));
        path.ends_with("/Cargo.toml") && names && path != "crates/millstream-core/Cargo.toml"
    });
    none("`backoff` in a manifest", manifests.map(|(path, _)| path).collect());
}

/// A client that takes a proxy of the environment for a service on this machine reports a sound one as down.
#[test]
fn http_clients_are_built_where_it_is_said_whether_a_proxy_is_for_them() {
    let may = [
        "crates/payments/src/gateway.rs",
        "crates/millstream-console/src/lib.rs",
        "crates/shop/src/wire.rs",
        "crates/bench/src/shop.rs",
    ];
    let building = sources().into_iter().filter(|(path, source)| {
        let code = source.split("#[cfg(test)]").next().unwrap();
        let builds = ["Client::new()", "Client::builder()", "reqwest::get("].iter().any(|call| code.contains(call));
        let tests = path.contains("/tests/") || path.ends_with("tests.rs") || path.ends_with("over_smtp.rs");
        builds && !tests && !may.contains(&path.as_str())
    });
    none("HTTP clients of their own: use `wire::client`", building.map(|(path, _)| path).collect());
}

#[test]
fn no_module_is_named_for_nothing_in_particular() {
    let vague = ["utils", "util", "common", "helpers", "helper", "types", "misc", "shared"];
    let found = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.split(['/', '.']).any(|part| vague.contains(&part)));
    none("modules named for nothing", found.collect());
}

#[test]
fn nothing_is_left_undone_in_a_comment_or_tied_to_one_machine() {
    let marks = ["TODO", "FIXME", "/work/", "/root/", "/home/", "/tmp/", "unimplemented!", "todo!("];
    let found = files().into_iter().filter(|(path, _)| !is_this(path) && !path.ends_with("Cargo.lock")).flat_map(
        |(path, text)| {
            let lines = text.lines().enumerate().filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
            lines.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
        },
    );
    none("marks", found.collect());
}

#[test]
fn a_source_file_is_short_enough_to_be_read() {
    let long = sources().into_iter().filter_map(|(path, source)| {
        let lines = source.lines().count();
        // Some way over the 400 lines at which one looks for a second idea in a file.
        (lines > 600).then(|| format!("{path}: {lines} lines"))
    });
    none("files to be split", long.collect());
}

#[test]
fn the_relative_links_of_every_page_lead_somewhere() {
    let mut dead = vec![];
    for (path, text) in files().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                dead.push(format!("{path}: {link}"));
            }
        }
    }
    none("links that lead nowhere", dead);
}
