use serde_json::{Value, json};

use super::*;
use crate::operator::invariants::Invariant;
use crate::operator::status::{ConsumerStatus, InstanceStatus, StreamStatus};

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn ago(seconds: u64) -> Timestamp {
    now() - Duration::from_secs(seconds)
}

fn instance(service: &str, health: Value) -> InstanceStatus {
    InstanceStatus {
        service: service.into(),
        instance: "one".into(),
        version: "1.4.0".into(),
        revision: String::new(),
        started: Some(ago(86_400)),
        health,
        totals: Value::Null,
    }
}

fn up(service: &str) -> InstanceStatus {
    let reads = json!([{ "stream": "BANK", "durable": service, "pulling": true }]);
    instance(service, json!({ "services": { "database": "UP" }, "waitingFor": [], "consumers": reads }))
}

fn with(service: &str, name: &str, what: Value) -> InstanceStatus {
    let mut instance = up(service);
    instance.health[name] = what;
    instance
}

fn unready(service: &str, why: &str, seconds: u64) -> InstanceStatus {
    let mut instance = with(service, "waitingFor", json!([why]));
    instance.health["waitingSince"] = json!(ago(seconds));
    instance
}

fn consumer(service: &str) -> ConsumerStatus {
    ConsumerStatus {
        stream: "BANK".into(),
        name: service.into(),
        events: vec![],
        pending: 0,
        ack_pending: 0,
        redelivered: 0,
        waiting: 1,
        ack_floor: 9,
        oldest_age_seconds: 0.0,
        release: Some("1.4.0".into()),
        created: ago(86_400),
        paused_until: None,
    }
}

fn behind(service: &str, pending: u64, ack_pending: u64, oldest_age_seconds: f64) -> ConsumerStatus {
    ConsumerStatus { pending, ack_pending, oldest_age_seconds, ..consumer(service) }
}

fn stream(bytes: u64) -> StreamStatus {
    StreamStatus {
        name: "BANK".into(),
        subjects: vec!["bank.>".into()],
        messages: 9,
        bytes,
        max_bytes: Some(100),
        first_sequence: 1,
        last_sequence: 9,
        created: ago(86_400),
        partitions: None,
        release: None,
    }
}

/// A service that is well, and another one as it is given.
fn seen(instances: Vec<InstanceStatus>, consumers: Vec<ConsumerStatus>) -> Seen {
    let mut status = SystemStatus { streams: vec![stream(10)], consumers, instances };
    status.instances.push(up("bank"));
    status.consumers.push(consumer("bank"));
    Seen { status, letters: Ok(BTreeMap::new()), told: Ok(vec![]) }
}

fn said(seen: &Seen) -> Vec<(Kind, String)> {
    let verdict = seen.verdict(now());
    for cause in &verdict.causes {
        assert_eq!(cause.runbook, cause.kind.runbook());
    }
    verdict.causes.into_iter().map(|cause| (cause.kind, cause.sentence)).collect()
}

/// That this is all that is wrong.
fn only(seen: &Seen, kind: Kind, sentence: &str) {
    assert_eq!(said(seen), [(kind, sentence.to_owned())]);
    let verdict = seen.verdict(now());
    assert_eq!(verdict.state, if kind == Kind::Unknown { State::Unknown } else { State::Wrong });
    assert_eq!(verdict.sentence, format!("{sentence}. See the runbook \"{}\".", kind.runbook()));
}

#[test]
fn all_is_well_only_when_all_was_seen_and_what_is_not_checked_is_said() {
    let mut all = seen(vec![up("ledger")], vec![consumer("ledger")]);
    let verdict = all.verdict(now());
    assert_eq!((verdict.state, &verdict.causes), (State::Well, &vec![]));
    assert_eq!(verdict.sentence, "All is well: 2 instances of 2 services answer, and no invariants are checked.");
    let holds = Invariant { name: "sums agree".into(), holds: true, detail: String::new() };
    let told = Told { source: "checker".into(), at: ago(100), next_within: 90, invariants: vec![holds] };
    all.told = Ok(vec![told.clone()]);
    assert!(all.verdict(now()).sentence.ends_with("answer, and 1 invariants hold."));

    all.told = Ok(vec![Told { next_within: 60, ..told }]);
    only(&all, Kind::Unknown, "checker: its last check was 100 s ago");
    all.told = Err("no answer".into());
    only(&all, Kind::Unknown, "invariants: not known: no answer");
    all.told = Ok(vec![]);
    all.letters = Err("no answer".into());
    only(&all, Kind::Unknown, "dead letters: not known: no answer");
    let other = seen(vec![instance("ledger", json!("fine"))], vec![consumer("ledger")]);
    only(&other, Kind::Unknown, "ledger: what 1 instance says of its health cannot be read");
    let status = SystemStatus::default();
    let nothing = Seen { status, letters: Ok(BTreeMap::new()), told: Ok(vec![]) };
    assert_eq!(nothing.verdict(now()).state, State::Unknown);
    assert_eq!(Verdict::outdated(Duration::from_secs(20)).state, State::Unknown);
    let blind = Verdict::blind("no answer within 5 s");
    assert_eq!((blind.state, blind.causes[0].kind), (State::Wrong, Kind::BrokerDown));
    assert!(blind.sentence.starts_with("broker: no answer within 5 s; "), "{}", blind.sentence);
    assert_eq!(Kind::ALL.map(|kind| kind as usize), std::array::from_fn(|at| at), "all kinds, in their order");
}

#[test]
fn an_outside_that_is_silent_is_told_once_for_all_replicas_and_a_single_failure_not_at_all() {
    let silent = |seconds, waiting| {
        with("ledger", "unanswered", json!([{ "effect": "charge", "since": ago(seconds), "waiting": waiting }]))
    };
    let both = seen(vec![silent(52, 105), silent(40, 104)], vec![consumer("ledger")]);
    only(&both, Kind::OutsideUnanswered, "ledger: no answer to `charge` for 52 s; 105 wait, and none is lost");
    assert_eq!(both.status.silences("ledger", now()), ["no answer to `charge` for 52 s; 105 wait, and none is lost"]);
    assert_eq!(said(&seen(vec![silent(9, 1)], vec![consumer("ledger")])), []);
    assert_eq!(said(&seen(vec![instance("ledger", json!({}))], vec![consumer("ledger")])), [], "of an older release");
}

#[test]
fn a_service_that_is_gone_explains_what_waits_for_it() {
    let all = seen(vec![], vec![ConsumerStatus { waiting: 0, ..behind("ledger", 170, 8, 300.0) }]);
    let sentence = "ledger: no instance answers; 178 events wait for it, the oldest for 5 min, and none is lost";
    only(&all, Kind::ServiceDown, sentence);
    let idle = seen(vec![], vec![consumer("ledger")]);
    only(&idle, Kind::ServiceDown, "ledger: no instance answers; no event waits for it yet");
}

#[test]
fn a_store_that_is_away_explains_what_waits_and_what_else_its_service_cannot_do() {
    let mut away = unready("ledger", "the store", 12);
    away.health["services"]["database"] = "DOWN".into();
    let all = seen(vec![away.clone()], vec![behind("ledger", 0, 1, 90.0)]);
    let sentence = "ledger: its store has not answered for 12 s; its commands are refused, and 1 event has waited for it for 90 s, and is not lost";
    only(&all, Kind::StoreDown, sentence);
    away.health["waitingSince"] = json!(ago(1));
    assert_eq!(said(&seen(vec![away], vec![consumer("ledger")])), [], "a moment is no outage");
}

#[test]
fn a_consumer_that_is_paused_or_gone_explains_what_waits() {
    let paused_until = Some(now() + Duration::from_secs(300));
    let all = seen(vec![up("ledger")], vec![ConsumerStatus { paused_until, ..behind("ledger", 3, 0, 80.0) }]);
    let sentence = "ledger: its consumer on BANK is paused, for 5 min to come; 3 events wait for it, the oldest for 80 s, and none is lost";
    only(&all, Kind::ConsumerPaused, sentence);

    let mut without = unready("ledger", "consumer ledger on BANK cannot be made: no", 30);
    without.health["consumers"][0]["pulling"] = false.into();
    let found = said(&seen(vec![without], vec![]));
    let [(Kind::ConsumerMissing, first), (Kind::NotReady, second)] = &found[..] else { panic!("{found:?}") };
    assert!(first.starts_with("ledger: its consumer on BANK has been missing for 30 s; "), "{first}");
    assert_eq!(second, "ledger: consumer ledger on BANK cannot be made: no, for 30 s");

    let anew = seen(vec![up("ledger")], vec![ConsumerStatus { created: ago(4), ..consumer("ledger") }]);
    assert_eq!(said(&anew)[0].0, Kind::ConsumerRemade);
    let starts = InstanceStatus { started: Some(ago(5)), ..up("ledger") };
    let anew = seen(vec![starts], vec![ConsumerStatus { created: ago(4), ..consumer("ledger") }]);
    assert_eq!(said(&anew), [], "a service makes its consumer when it starts for the first time");
    let mut unread = seen(vec![up("ledger")], vec![consumer("ledger")]);
    unread.status.consumers.push(ConsumerStatus { name: "old".into(), waiting: 0, release: None, ..consumer("old") });
    only(&unread, Kind::ConsumerNotPulled, "BANK: nobody pulls its consumer `old`");
}

#[test]
fn what_the_broker_refuses_is_told_with_its_subject_and_a_full_disk_as_such() {
    let of = |why: &str| said(&seen(vec![unready("ledger", why, 30)], vec![consumer("ledger")]));
    let held = of("the broker refuses bank.moved.3 and 4 more, which is tried again: no");
    let sentence = "ledger: the broker refuses bank.moved.3 and 4 more, which is tried again: no, for 30 s; what is refused is kept in its store";
    assert_eq!(held, [(Kind::EventsHeld, sentence.to_owned())]);
    let full = of("the broker refuses bank.moved.3, which is tried again: insufficient storage resources available");
    assert_eq!(full[0].0, Kind::DiskFull);
    let rights = of("rights at the broker: permissions violation");
    assert_eq!(rights, [(Kind::NotReady, "ledger: rights at the broker: permissions violation, for 30 s".to_owned())]);
    let mut stops = unready("ledger", "shutting down", 30);
    stops.health["waitingFor"] =
        json!(["shutting down", "the consumer ledger of BANK does not pull", "the service is stopping"]);
    assert_eq!(said(&seen(vec![stops], vec![consumer("ledger")])), [], "it stops in order");
}

#[test]
fn what_fills_is_late_or_missing_is_told_with_figures() {
    let mut full = seen(vec![up("ledger")], vec![ConsumerStatus { ack_floor: 2, ..consumer("ledger") }]);
    full.status.streams = vec![stream(85)];
    let sentence = "BANK: the stream is 85 % full, and from 90 % on commands are refused; `ledger` is the furthest behind of its readers";
    only(&full, Kind::StreamFull, sentence);

    let missed = json!({ "replicas": 1, "since": ago(40) });
    let all = seen(vec![with("ledger", "missed", missed)], vec![consumer("ledger")]);
    let sentence = "ledger: 1 replica ended without a clean stop, last seen 40 s ago, and no other has replaced it; the others do the work";
    only(&all, Kind::ReplicaMissing, sentence);

    let mut letters = seen(vec![up("ledger")], vec![consumer("ledger")]);
    letters.letters = Ok(BTreeMap::from([("ledger".into(), (3, ago(300)))]));
    let sentence =
        "ledger: 3 dead letters, the oldest for 5 min; each is kept until it is redriven, edited or discarded";
    only(&letters, Kind::DeadLetters, sentence);

    let due = |seconds| with("ledger", "due", json!([{ "kind": "late", "since": ago(seconds), "waiting": 12 }]));
    let all = seen(vec![due(180)], vec![consumer("ledger")]);
    only(&all, Kind::WakesOverdue, "ledger: 12 are due of `late`, the first for 3 min; none is lost");
    assert_eq!(said(&seen(vec![due(20)], vec![consumer("ledger")])), []);

    let all = seen(vec![up("ledger")], vec![behind("ledger", 170, 8, 200.0)]);
    only(&all, Kind::ConsumerLags, "ledger: 178 events of BANK wait, the oldest for 3 min; none is lost");
    let all = seen(vec![up("ledger")], vec![behind("ledger", 0, 1, 70.0)]);
    assert_eq!(said(&all)[0].0, Kind::FloorStands);
    assert_eq!(said(&seen(vec![up("ledger")], vec![behind("ledger", 170, 8, 20.0)])), []);

    let newer = |started| InstanceStatus { version: "1.5.0".into(), started: Some(ago(started)), ..up("ledger") };
    let all = seen(vec![up("ledger"), newer(720)], vec![consumer("ledger")]);
    let sentence =
        "ledger: releases 1.4.0 and 1.5.0 have run side by side for 12 min; what only one of them knows waits for it";
    only(&all, Kind::ReleasesMixed, sentence);
    assert_eq!(said(&seen(vec![up("ledger"), newer(500)], vec![consumer("ledger")])), [], "an upgrade takes its time");

    let broken = Invariant { name: "sums agree".into(), holds: false, detail: "12 of 13".into() };
    let told = Told { source: "checker".into(), at: ago(9), next_within: 60, invariants: vec![broken] };
    let mut all = seen(vec![up("ledger")], vec![consumer("ledger")]);
    all.told = Ok(vec![told]);
    only(&all, Kind::InvariantBroken, "checker: \"sums agree\" does not hold, checked 9 s ago: 12 of 13");
}

#[test]
fn what_drags_others_with_it_is_named_first_and_the_rest_is_counted() {
    let silence = json!([{ "effect": "charge", "since": ago(200), "waiting": 5 }]);
    let mut silent = with("ledger", "unanswered", silence);
    silent.health["due"] = json!([{ "kind": "charge", "since": ago(90), "waiting": 5 }]);
    let mut all = seen(vec![silent], vec![behind("ledger", 5, 0, 200.0), behind("mail", 2, 0, 30.0)]);
    all.letters = Ok(BTreeMap::from([("bank".into(), (1, ago(5)))]));
    let broken = Invariant { name: "no dead letters".into(), holds: false, detail: "1".into() };
    all.told = Ok(vec![Told { source: "checker".into(), at: ago(1), next_within: 60, invariants: vec![broken] }]);
    let kinds: Vec<Kind> = said(&all).into_iter().map(|(kind, _)| kind).collect();
    let wanted =
        [Kind::ServiceDown, Kind::OutsideUnanswered, Kind::DeadLetters, Kind::InvariantBroken, Kind::ConsumerLags];
    assert_eq!(kinds, wanted, "that charges are overdue is said by that nobody answers them");
    let sentence = all.verdict(now()).sentence;
    let wanted = "mail: no instance answers; 2 events wait for it, the oldest for 30 s, and none is lost. See the runbook \"ServiceDown\". 4 more problems are listed.";
    assert_eq!(sentence, wanted);
}
