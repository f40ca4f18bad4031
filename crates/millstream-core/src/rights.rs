//! What each user may do at the broker, as a table that follows from the [declarations](crate::declaration) of the services.
//!
//! A service may publish its own events and dead letters, look at and trim its own streams, and read others through durables of its
//! name. It may neither make nor change a stream: a stream's settings can copy other streams (`sources`, `mirror`) and send what it
//! holds to any subject (`republish`), past all of these rights.

use sha2::{Digest, Sha256};

use crate::dead_letter::{self, REDRIVE};
use crate::declaration::Declaration;

/// The account of users that are in none.
const ACCOUNT: &str = "$G";

/// A user, and the subjects that it may publish and subscribe to; everything else is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What it may publish, in groups of one purpose.
    pub publish: Vec<(String, Vec<String>)>,
    /// What it may subscribe to.
    pub subscribe: Vec<String>,
    /// Whether it may answer what it is asked.
    pub answers: bool,
}

/// The users of services, and that of the console, which looks at everything and acts for an operator.
pub fn users(all: &[Declaration]) -> Vec<User> {
    all.iter().map(service).chain([console()]).collect()
}

fn service(of: &Declaration) -> User {
    let name = &of.service;
    let api = |what: &str| format!("$JS.API.{what}");
    let mut publish = vec![];
    for own in &of.publishes {
        let stream = &own.stream;
        publish.push((
            format!("Its events in {stream}, and trimming what all readers have handled."),
            vec![
                format!("{}.>", own.domain),
                api(&format!("STREAM.INFO.{stream}")),
                api(&format!("STREAM.MSG.GET.{stream}")),
                api(&format!("STREAM.PURGE.{stream}")),
                api(&format!("CONSUMER.LIST.{stream}")),
            ],
        ));
    }
    let letters = dead_letter::stream_name(name);
    publish.push((
        "Its dead letters.".into(),
        vec![
            dead_letter::subjects(name),
            api(&format!("STREAM.INFO.{letters}")),
            api(&format!("STREAM.MSG.GET.{letters}")),
        ],
    ));
    // All services share the queue: the broker holds the filter against the end of the subject.
    let create = format!("CONSUMER.CREATE.{REDRIVE}.{name}.redrive.{name}.>");
    publish.push((
        "What is redriven for it, and nothing else of the queue that all share.".into(),
        [vec![api(&format!("STREAM.INFO.{REDRIVE}")), api(&create)], pulls(REDRIVE, name)].concat(),
    ));
    for read in &of.reads {
        let stream = &read.stream;
        publish.push((
            format!("Reading {stream} through its durable, and by sequence what the client cannot read."),
            [
                vec![
                    api(&format!("STREAM.INFO.{stream}")),
                    api(&format!("STREAM.MSG.GET.{stream}")),
                    api(&format!("CONSUMER.CREATE.{stream}.{name}")),
                    api(&format!("CONSUMER.DELETE.{stream}.{name}")),
                    // A single writer hands its place over.
                    api(&format!("CONSUMER.UNPIN.{stream}.{name}")),
                ],
                pulls(stream, name),
            ]
            .concat(),
        ));
    }
    // By name: the broker takes a subscription to `$SRV.>` for one that `$SRV.*` allows.
    let discovery = ["PING", "INFO", "STATS"].map(|verb| format!("$SRV.{verb}"));
    let own = [
        format!("_INBOX_{name}.>"),
        format!("$SRV.*.{name}"),
        format!("$SRV.*.{name}.*"),
        format!("millstream.*.{name}"),
    ];
    User { name: name.clone(), publish, subscribe: discovery.into_iter().chain(own).collect(), answers: true }
}

/// Looking at a durable, pulling from it and acking. The acks of brokers to come begin with domain and account. Wildcards for these
/// would let a user ack for others, and pull through their durables: `$JS.ACK.<stream>.<durable>.<its stream>.<itself>.…` has the
/// older form.
fn pulls(stream: &str, durable: &str) -> Vec<String> {
    vec![
        format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
        format!("$JS.ACK.{stream}.{durable}.>"),
        format!("$JS.ACK._.{}.{stream}.{durable}.>", account_hash(ACCOUNT)),
    ]
}

fn console() -> User {
    let all = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect();
    let look = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.CONSUMER.NAMES.*",
        "$JS.API.CONSUMER.LIST.*",
        "$JS.API.CONSUMER.INFO.*.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.DIRECT.GET.>",
        "$SRV.>",
    ];
    let act = ["millstream.*.*", "dlq.>", "redrive.>", "audit.>"];
    User {
        name: "console".into(),
        publish: vec![
            ("Looking at everything.".into(), all(&look)),
            ("The actions of its page, if it allows them (--allow-actions).".into(), all(&act)),
        ],
        subscribe: all(&["_INBOX_console.>", "millstream.invariants"]),
        answers: false,
    }
}

/// As the broker writes an account into the subjects of acks.
fn account_hash(account: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let hash = Sha256::digest(account);
    hash.iter().take(8).map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect()
}

/// The users as they stand in the broker's configuration, within `authorization { users: [ … ] }`. The password of `bank` is the
/// variable `NATS_BANK_PASSWORD`.
pub fn configuration(users: &[User]) -> String {
    let mut text = String::new();
    let mut line = |line: String| text += &(line + "\n");
    let list = |subjects: &[String]| subjects.iter().map(|each| format!("\"{each}\"")).collect::<Vec<_>>().join(", ");
    for User { name, publish, subscribe, answers } in users {
        line("        {".into());
        line(format!("            user: {name}"));
        line(format!("            password: $NATS_{}_PASSWORD", name.to_uppercase().replace('-', "_")));
        line("            permissions: {".into());
        line("                publish: [".into());
        for (purpose, subjects) in publish {
            line(format!("                    # {purpose}"));
            subjects.chunks(3).for_each(|some| line(format!("                    {}", list(some))));
        }
        line("                ]".into());
        line(format!("                subscribe: [{}]", list(subscribe)));
        if *answers {
            line("                # Answers to requests.".into());
            line("                allow_responses: true".into());
        }
        line("            }".into());
        line("        }".into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declaration::{Published, Read};

    fn ledger() -> Declaration {
        let own = Published { stream: "LEDGER".into(), domain: "ledger".into(), partitions: 8, max_bytes: 1 };
        Declaration {
            service: "ledger".into(),
            release: "1.0.0".into(),
            publishes: vec![own],
            reads: vec![Read { stream: "BANK".into(), best_effort: false }],
            replicas: None,
        }
    }

    #[test]
    fn nobody_may_make_or_change_a_stream_and_wildcards_stand_only_below_what_is_ones_own() {
        let [ledger, console] = &users(&[ledger()])[..] else { panic!("two users") };
        for user in [ledger, console] {
            for subject in user.publish.iter().flat_map(|(_, subjects)| subjects) {
                for way in ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.RESTORE", "DURABLE.CREATE"] {
                    assert!(!subject.contains(way), "{subject}");
                }
            }
        }
        for subject in ledger.publish.iter().flat_map(|(_, subjects)| subjects) {
            let (before, _) = subject.split_once(['*', '>']).unwrap_or((subject.as_str(), ""));
            assert!(before.len() == subject.len() || before.to_lowercase().contains("ledger"), "{subject}");
            assert!(!subject.contains('*'), "{subject}");
        }
    }

    #[test]
    fn the_account_is_written_as_the_broker_writes_it() {
        assert_eq!(account_hash("$G"), "szMpdrwD");
    }

    #[test]
    fn the_configuration_has_each_user_with_a_variable_for_its_password() {
        let text = configuration(&users(&[Declaration { service: "my-ledger".into(), ..ledger() }]));
        for part in [
            "user: my-ledger\n            password: $NATS_MY_LEDGER_PASSWORD\n",
            "\"ledger.>\", \"$JS.API.STREAM.INFO.LEDGER\"",
            "\"$JS.API.CONSUMER.CREATE.REDRIVE.my-ledger.redrive.my-ledger.>\"",
            "\"$JS.ACK.BANK.my-ledger.>\", \"$JS.ACK._.szMpdrwD.BANK.my-ledger.>\"",
            "subscribe: [\"$SRV.PING\", \"$SRV.INFO\", \"$SRV.STATS\", \"_INBOX_my-ledger.>\", ",
            "user: console\n",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
        assert_eq!(text.matches(['{', '[']).count(), text.matches(['}', ']']).count());
    }
}
