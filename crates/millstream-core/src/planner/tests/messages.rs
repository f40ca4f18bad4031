//! Messages: handled once, tried again, given up.

use super::*;

fn nak(delay_ms: u64, attempts: u32) -> End {
    End::Nak { delay: Duration::from_millis(delay_ms), attempts, error: "not now".into() }
}

#[test]
fn a_first_delivery_is_handled_and_leaves_what_it_staged_with_an_entry() {
    let mut world = World::new();
    let first = message(Does::Add);
    let after = world.run([first.clone().into()]);
    same(&after.ends, &[handled()]);
    assert_eq!(world.value("a"), 1);
    let entry = world.entry(first.id());
    assert_eq!((entry.state, entry.version, entry.attempts), (State::Done, 1, 0));
    assert_eq!((entry.stream.as_str(), entry.seq, entry.at), (DEEDS.name, 1, START));
    assert_eq!(Emitted::unpack(&entry.emitted).unwrap(), after.emitted);
    assert_eq!(after.emitted.len(), 1);
    assert_eq!(after.emitted[0].header("ce-causationid"), Some(first.id().to_string()));
    assert_eq!((after.emitting, after.counts.len(), after.misses), (Some(1), 1, 0));
}

#[test]
fn a_repeat_is_answered_by_the_journal_and_writes_nothing() {
    let mut world = World::new();
    world.run([message(Does::Add).into()]);
    let after = world.run([message(Does::Add).delivered(2).into()]);
    same(&after.ends, &[duplicate()]);
    assert!(after.emitted.is_empty() && after.again.is_empty() && after.counts.is_empty());
    assert_eq!((world.value("a"), after.emitting, world.batch), (1, None, 1));
}

#[test]
fn a_message_below_the_mark_without_an_entry_is_a_duplicate() {
    let mut world = World::new();
    same(&[world.end(message(Does::Add).settled())], &[duplicate()]);
    assert_eq!(world.value("a"), 0);
}

#[test]
fn a_message_below_the_mark_that_is_open_is_handled() {
    let mut world = World::new();
    world.run([message(Does::Retry).into()]);
    same(&[world.end(message(Does::Add).settled())], &[handled()]);
}

#[test]
fn an_entry_is_asked_for_where_a_delivery_may_be_a_repeat() {
    let world = World::new();
    let asked = |message: Message, recheck| {
        let input = message.into();
        world.planner.wanted(&[&input], recheck).journal.len()
    };
    let first = message(Does::Add);
    assert_eq!(asked(first.clone(), false), 0);
    assert_eq!(asked(first.clone(), true), 1);
    assert_eq!(asked(first.clone().delivered(2), false), 1);
    assert_eq!(asked(first.clone().settled(), false), 1);
    assert_eq!(asked(first.redrive(0), false), 1);
}

#[test]
fn a_second_delivery_within_the_batch_is_a_duplicate_of_the_first() {
    let mut world = World::new();
    let after = world.run(inputs([message(Does::Add), message(Does::Add)]));
    same(&after.ends, &[handled(), duplicate()]);
    assert_eq!((world.value("a"), after.emitted.len()), (1, 1));
}

#[test]
fn after_a_failure_a_second_delivery_within_the_batch_shares_its_end_and_is_no_attempt() {
    let mut world = World::new();
    let first = message(Does::Retry);
    let after = world.run(inputs([first.clone(), first.clone().does(Does::Add)]));
    same(&after.ends, &[nak(200, 1), nak(200, 1)]);
    assert_eq!((world.entry(first.id()).attempts, world.value("a")), (1, 0));
}

#[test]
fn after_it_was_given_up_a_second_delivery_within_the_batch_is_a_duplicate() {
    let mut world = World::new();
    let after = world.run(inputs([message(Does::Reject), message(Does::Add)]));
    assert!(matches!(after.ends[..], [End::Parked { .. }, End::Ack(Fate::Duplicate)]), "{:?}", after.ends);
    assert_eq!(records(&after.emitted), ["rejected 0"]);
}

#[test]
fn a_failing_message_is_tried_again_after_growing_delays_and_then_parked_as_exhausted_with_its_history() {
    let mut world = World::new();
    let failing = message(Does::Retry);
    for (attempt, delay_ms) in [(1, 200), (2, 400)] {
        same(&[world.end(failing.clone())], &[nak(delay_ms, attempt)]);
        let entry = world.entry(failing.id());
        assert_eq!((entry.state, entry.attempts, entry.version), (State::Open, attempt, u64::from(attempt)));
        assert_eq!((entry.first_failure, entry.last_failure), (Some(START), Some(world.now)));
        world.later(Duration::from_secs(1));
    }
    let after = world.run([failing.clone().into()]);
    same(&after.ends, &[End::Parked { reason: Reason::Exhausted, error: "not now".into() }]);
    let [letter] = &after.emitted[..] else { panic!("{:?}", after.emitted) };
    let said = |name: &str| letter.header(&format!("Millstream-{name}")).unwrap();
    assert_eq!(letter.subject, format!("dlq.{SERVICE}.deeds-done.{}", failing.id()));
    assert_eq!([said("Reason"), said("Attempts"), said("Error")], ["exhausted", "3", "not now"]);
    assert_eq!([said("First-Failure"), said("Last-Failure")], [START.to_string(), world.now.to_string()]);
    assert_eq!([said("Stream"), said("Sequence")], [DEEDS.name, "1"]);
    let entry = world.entry(failing.id());
    assert_eq!((entry.state, entry.attempts, entry.version), (State::Parked, 3, 3));
    assert_eq!(Emitted::unpack(&entry.emitted).unwrap(), after.emitted);
    same(&[world.end(failing)], &[duplicate()]);
}

#[test]
fn a_message_that_has_failed_is_handled_when_it_comes_again() {
    let mut world = World::new();
    world.run([message(Does::Retry).into()]);
    same(&[world.end(message(Does::Add).delivered(2))], &[handled()]);
    let entry = world.entry(message(Does::Add).id());
    assert_eq!((entry.state, entry.version, entry.attempts, world.value("a")), (State::Done, 2, 1, 1));
}

#[test]
fn what_can_never_be_handled_is_parked_at_once_under_its_reason() {
    let name = Odd::Name([("a\0b".into(), 1)].into());
    let deep = Odd::Deep((0..100).fold(serde_json::Value::Null, |inner, _| vec![inner].into()));
    for (does, reason, says) in [
        (Does::Keep(name), Reason::Misuse, r#"`odd.Name` has the name "a\0b" in it, and a name cannot contain NUL"#),
        (Does::Keep(Odd::Number(u128::MAX)), Reason::Misuse, "`odd.Number` is a number of more than 34 digits"),
        (Does::Keep(deep), Reason::Misuse, "is nested more than 90 levels deep"),
        (Does::Keep(Odd::Wide(vec![1; 1 << 20])), Reason::TooLarge, "bytes as BSON, over the limit of 15728640"),
        (Does::Reject, Reason::Rejected, "never"),
        (Does::TooMuch, Reason::TooLarge, "over the broker's limit of 4096"),
        (Does::Panic, Reason::Panic, "a bug"),
        (Does::Undeclared, Reason::Misuse, "no effect or timer of kind `undeclared`"),
        (Does::Foreign, Reason::Misuse, "`ledger` does not publish `ELSEWHERE`"),
    ] {
        let mut world = World::new();
        let after = world.run([message(does.clone()).into()]);
        let [End::Parked { reason: had, error }] = &after.ends[..] else { panic!("{does:?}: {:?}", after.ends) };
        assert_eq!(*had, reason, "{does:?}");
        assert!(error.contains(says), "{does:?}: {error}");
        assert_eq!(records(&after.emitted), [format!("{} 0", reason.name())]);
        assert_eq!(world.entry(message(does).id()).attempts, 1);
    }
}

#[test]
fn what_cannot_be_read_is_parked_without_an_attempt() {
    let mut world = World::new();
    let broken = message(Does::Add).unread(Unread::Schema("no account".into()));
    same(&[world.end(broken.clone())], &[End::Parked { reason: Reason::Schema, error: "no account".into() }]);
    assert_eq!(world.entry(broken.id()).attempts, 0);
}

#[test]
fn what_a_newer_release_would_know_waits_for_it_and_is_parked_when_none_comes() {
    for newer in [message(Does::Newer), message(Does::Add).unread(Unread::Ahead("of shape 2".into()))] {
        let ahead = |first| End::Ahead { first, error: "of shape 2".into() };
        let mut world = World::new();
        let after = world.run(inputs([newer.clone(), newer.clone()]));
        same(&after.ends, &[ahead(true), ahead(false)]);
        world.later(Duration::from_secs(599));
        same(&[world.end(newer.clone())], &[ahead(false)]);
        assert_eq!(world.entry(newer.id()).version, 1, "only the first time is written down");
        world.later(Duration::from_secs(1));
        let after = world.run([newer.clone().into()]);
        same(&after.ends, &[End::Parked { reason: Reason::Ahead, error: "of shape 2".into() }]);
        assert_eq!(records(&after.emitted), ["ahead 0"]);
        assert_eq!(world.entry(newer.id()).attempts, 0);
    }
}

#[test]
fn what_a_newer_release_would_know_is_parked_at_once_while_too_many_wait_for_it() {
    let mut world = World::new();
    let newer = message(Does::Newer);
    world.run([newer.clone().into()]);
    let after = world.run(inputs([newer.clone().crowded(), newer.number(2).crowded()]));
    let parked = || End::Parked {
        reason: Reason::Ahead,
        error: "of shape 2, and too many other messages already wait for a newer release".into(),
    };
    same(&after.ends, &[parked(), parked()]);
    same(&[world.end(message(Does::Add).number(3).crowded())], &[handled()]);
}

#[test]
fn what_waited_for_a_newer_release_is_handled_by_it() {
    let mut world = World::new();
    world.run([message(Does::Newer).into()]);
    world.later(Duration::from_secs(3600));
    same(&[world.end(message(Does::Add))], &[handled()]);
}

#[test]
fn nothing_is_kept_of_what_a_failing_handler_has_staged() {
    let mut world = World::new();
    let after = world.run([message(Does::AddAndRetry).into(), message(Does::Add).number(2).into()]);
    same(&after.ends, &[nak(200, 1), handled()]);
    assert_eq!((world.value("a"), after.emitted.len(), after.counts.len()), (1, 1, 1));
}

#[test]
fn messages_of_one_batch_build_upon_each_other_and_raise_a_document_once() {
    let mut world = World::new();
    world.run((1..=3).map(|number| message(Does::Add).number(number).into()));
    assert_eq!((world.value("a"), world.docs[&key("a")].version), (3, 1));
    world.run((4..=5).map(|number| message(Does::Add).number(number).into()));
    assert_eq!((world.value("a"), world.docs[&key("a")].version), (5, 2));
}

#[test]
fn what_was_read_is_guarded_and_not_written() {
    let mut world = World::new();
    world.run([message(Does::Add).into()]);
    let look: Input = message(Does::Look).number(2).into();
    let write = world.decide(&[&look], &HashSet::default()).write;
    let [doc] = &write.docs[..] else { panic!("{:?}", write.docs) };
    assert_eq!((&doc.key, doc.expected), (&key("a"), Some(1)));
    assert!(doc.write.is_none());
}

#[test]
fn the_same_arguments_give_the_same_decision() {
    let mut world = World::new();
    world.run([message(Does::Retry).number(7).into()]);
    let batch: Vec<Input> = vec![
        message(Does::Add).into(),
        message(Does::Reject).number(2).into(),
        message(Does::Retry).number(7).into(),
        message(Does::Pay(0)).number(3).account("b").into(),
        message(Does::Visit(vec!["c".into(), "d".into()])).number(4).into(),
        command(1, Does::Add, under(1, 1)),
    ];
    let batch: Vec<&Input> = batch.iter().collect();
    let decided = || {
        let Decision { write, after } = world.decide(&batch, &HashSet::default());
        let after = (after.ends, after.emitted, after.again, after.emitting, after.claims, after.misses);
        format!("{write:?} {after:?}")
    };
    let first = decided();
    for _ in 0..10 {
        assert_eq!(decided(), first);
    }
}
