//! The journal: redrives and repeats of what it knows, and what a commit writes into it.

use super::*;

/// A world that knows the first message in a state, after its second redrive.
fn knowing(state: Option<State>) -> World {
    let mut world = World::new();
    let first = message(Does::Reject);
    match state {
        None => {}
        Some(State::Open) => {
            world.run([first.clone().into()]);
            world.run([first.does(Does::Retry).redrive(2).into()]);
        }
        Some(State::Parked) => {
            world.run([first.clone().into()]);
            world.run([first.redrive(2).into()]);
        }
        Some(State::Done) => {
            world.run([first.clone().into()]);
            world.run([first.does(Does::Look).redrive(2).into()]);
        }
    }
    let known = world.journal.get(&message(Does::Add).id()).map(|entry| (entry.state, entry.redrives));
    assert_eq!(known, state.map(|state| (state, 2)));
    world
}

#[test]
fn a_redrive_of_what_nobody_knows_is_not_handled_and_stays_a_dead_letter_with_its_body() {
    let mut world = World::new();
    let after = world.run([message(Does::Add).redrive(1).into()]);
    same(&after.ends, &[duplicate()]);
    assert_eq!((world.value("a"), records(&after.again)), (0, vec!["unknown 1".into()]));
    assert_eq!(after.again[0].payload, message(Does::Add).delivery().payload);
    assert_eq!(after.again[0].subject, format!("dlq.{SERVICE}.deeds-done.{}", message(Does::Add).id()));
    assert!(world.journal.is_empty());
}

/// What the broker is to find of a record when it stores its outcome: what an operator does meanwhile is final.
#[test]
fn a_record_replaces_none_or_the_one_that_says_redriving() {
    let expected = |letter: &Emitted| letter.header(dead_letter::EXPECTED);
    let mut world = World::new();
    let first = message(Does::Reject);
    let letter = world.run([first.clone().into()]).emitted.remove(0);
    assert_eq!(expected(&letter).as_deref(), Some("0"));
    let letter = world.run([first.clone().redrive(1).into()]).emitted.remove(0);
    assert_eq!(expected(&letter).as_deref(), Some("10"));
    let again = world.run([first.clone().redrive(1).into()]).again.remove(0);
    assert_eq!(again, letter);
    let resolved = world.run([first.does(Does::Add).redrive(2).into()]).emitted.remove(1);
    assert_eq!((resolved.header(STATE).as_deref(), expected(&resolved).as_deref()), (Some("resolved"), Some("20")));
}

/// The message itself, or a changed copy, does not know the record of its redrive: an outcome written by it would replace whatever
/// an operator has done since.
#[test]
fn a_repeat_leaves_what_is_redriven_to_the_redrive_which_knows_its_record() {
    for repeat in [message(Does::Retry), message(Does::Retry).redrive(0)] {
        let mut world = World::new();
        (0..3).for_each(|_| drop(world.run([repeat.clone().into()])));
        assert_eq!(world.entry(repeat.id()).state, State::Parked);
        world.run([repeat.clone().redrive(1).into()]);
        for does in [Does::Add, Does::Reject] {
            let after = world.run([repeat.clone().does(does).into()]);
            same(&after.ends, &[duplicate()]);
            assert_eq!(world.value("a"), 0);
            // If the broker has lost the record and the redrive, there is a letter again. If not, it is refused.
            let [letter] = &after.again[..] else { panic!("{:?}", after.again) };
            let told = [dead_letter::EXPECTED, dead_letter::REDRIVES].map(|name| letter.header(name).unwrap());
            assert_eq!((told.map(String::from), letter.payload.is_empty()), (["0", "1"].map(String::from), false));
        }
        let resolved = world.run([repeat.clone().does(Does::Add).redrive(1).into()]).emitted.remove(1);
        let expected = resolved.header(dead_letter::EXPECTED);
        assert_eq!((resolved.header(STATE).as_deref(), expected.as_deref()), (Some("resolved"), Some("10")));
        assert_eq!(world.value("a"), 1);
    }
}

#[test]
fn a_changed_copy_is_handled_like_a_first_delivery() {
    let mut world = World::new();
    let copy = message(Does::Add).redrive(0);
    let after = world.run(inputs([copy.clone(), copy.clone()]));
    same(&after.ends, &[handled(), duplicate()]);
    assert!(records(&after.emitted).is_empty() && after.again.is_empty());
    let entry = world.entry(copy.id());
    assert_eq!((entry.redrives, entry.stream.as_str(), entry.seq), (0, DEEDS.name, 1));
}

/// What becomes of a repeat and a redrive that come together, whichever comes first: the ends of both, what records are published,
/// which of them are not in the journal for it, and the redrives that the entry then knows.
#[test]
fn a_repeat_and_a_redrive_of_one_message_end_the_same_in_whatever_order_they_arrive() {
    type Expected = ([End; 2], &'static [&'static str], &'static [&'static str], u32);
    let cases: [(Option<State>, u32, Expected); 12] = [
        (None, 1, ([handled(), duplicate()], &["resolved 1"], &["resolved 1"], 0)),
        (None, 2, ([handled(), duplicate()], &["resolved 2"], &["resolved 2"], 0)),
        (None, 3, ([handled(), duplicate()], &["resolved 3"], &["resolved 3"], 0)),
        (Some(State::Open), 1, ([duplicate(), duplicate()], &["unknown 2"], &["unknown 2"], 2)),
        (Some(State::Open), 2, ([duplicate(), handled()], &["unknown 2", "resolved 2"], &["unknown 2"], 2)),
        (Some(State::Open), 3, ([duplicate(), handled()], &["unknown 2", "resolved 3"], &["unknown 2"], 3)),
        (Some(State::Parked), 1, ([duplicate(), duplicate()], &["rejected 2"], &["rejected 2"], 2)),
        (Some(State::Parked), 2, ([duplicate(), duplicate()], &["rejected 2"], &["rejected 2"], 2)),
        (Some(State::Parked), 3, ([duplicate(), handled()], &["resolved 3"], &[], 3)),
        (Some(State::Done), 1, ([duplicate(), duplicate()], &["resolved 2"], &["resolved 2"], 2)),
        (Some(State::Done), 2, ([duplicate(), duplicate()], &["resolved 2"], &["resolved 2"], 2)),
        (Some(State::Done), 3, ([duplicate(), duplicate()], &["resolved 3"], &["resolved 3"], 2)),
    ];
    for (state, number, (ends, emitted, again, redrives)) in cases {
        for redrive_first in [false, true] {
            let mut world = knowing(state);
            let (repeat, redrive) = (message(Does::Add).delivered(2), message(Does::Add).redrive(number));
            let mut batch = inputs([repeat, redrive]);
            if redrive_first {
                batch.reverse();
            }
            batch.sort_by_key(Input::rank);
            let after = world.run(batch);
            let case = format!("{state:?}, redrive {number}, redrive first: {redrive_first}");
            println!("{case}");
            same(&after.ends, &ends);
            // In the order of the decision: the outcome of the repeat comes after what the message itself has come to.
            assert_eq!(records(&after.emitted), emitted, "{case}");
            assert_eq!(records(&after.again), again, "{case}");
            let handled = ends.iter().filter(|end| matches!(end, End::Ack(Fate::Handled))).count();
            assert_eq!(world.value("a") as usize, handled, "{case}");
            assert_eq!(world.entry(message(Does::Add).id()).redrives, redrives, "{case}");
        }
    }
}

#[test]
fn redrives_stand_after_their_message_and_in_order_and_timers_last() {
    let mut world = World::new();
    world.run([message(Does::Close(0)).number(5).into()]);
    let mut batch = [
        world.due("a"),
        message(Does::Add).redrive(3).into(),
        message(Does::Add).redrive(1).into(),
        message(Does::Add).redrive(0).into(),
        message(Does::Add).into(),
        command(1, Does::Add, None),
    ];
    batch.sort_by_key(Input::rank);
    let of = |input: &Input| match input {
        Input::Message(delivery) => delivery.redrive().map_or("message".into(), |number| format!("redrive {number}")),
        Input::Due(_) => "timer".into(),
        _ => "command".into(),
    };
    let order: Vec<String> = batch.iter().map(of).collect();
    assert_eq!(order, ["message", "command", "redrive 0", "redrive 1", "redrive 3", "timer"]);
}

#[test]
fn a_redrive_begins_anew_and_its_end_is_written_in_its_record() {
    let mut world = World::new();
    let failing = message(Does::Retry);
    for _ in 0..3 {
        world.run([failing.clone().into()]);
    }
    assert_eq!(world.entry(failing.id()).state, State::Parked);
    let end = world.end(failing.clone().redrive(1));
    assert!(matches!(end, End::Nak { attempts: 1, .. }), "{end:?}");
    let entry = world.entry(failing.id());
    assert_eq!((entry.state, entry.redrives, entry.attempts), (State::Open, 1, 1));
    assert!(entry.emitted.is_empty(), "its dead letter does not go out again");
    let after = world.run([failing.clone().does(Does::Add).redrive(1).into()]);
    same(&after.ends, &[handled()]);
    assert_eq!(records(&after.emitted), ["resolved 1"]);
    assert_eq!((world.value("a"), world.entry(failing.id()).redrives), (1, 1));
}

#[test]
fn a_redrive_that_fails_is_parked_again_under_its_number() {
    let mut world = World::new();
    world.run([message(Does::Reject).into()]);
    let after = world.run([message(Does::Reject).redrive(1).into()]);
    assert_eq!(records(&after.emitted), ["rejected 1"]);
    assert_eq!(world.entry(message(Does::Reject).id()).redrives, 1);
}

#[test]
fn of_two_redrives_in_one_batch_of_which_the_first_is_parked_both_ends_are_published_and_the_version_rises_once() {
    let mut world = World::new();
    let first = message(Does::Reject);
    world.run([first.clone().into()]);
    let before = world.entry(first.id()).version;
    let after = world.run(inputs([first.clone().redrive(1), first.clone().does(Does::Add).redrive(2)]));
    assert!(matches!(after.ends[..], [End::Parked { .. }, End::Ack(Fate::Handled)]), "{:?}", after.ends);
    assert_eq!(records(&after.emitted), ["rejected 1", "resolved 2"]);
    let entry = world.entry(first.id());
    assert_eq!((entry.version, entry.state, entry.redrives), (before + 1, State::Done, 2));
    assert_eq!(Emitted::unpack(&entry.emitted).unwrap(), after.emitted);
    assert_eq!((after.emitting, world.value("a")), (Some(1), 1));
}

#[test]
fn a_later_redrive_does_not_share_the_failure_of_an_earlier_one_in_its_batch() {
    let mut world = World::new();
    let first = message(Does::Reject);
    world.run([first.clone().into()]);
    let after = world.run(inputs([
        first.clone().does(Does::Retry).redrive(1),
        first.clone().does(Does::Add).redrive(1),
        first.clone().does(Does::Add).redrive(2),
    ]));
    assert!(
        matches!(after.ends[..], [End::Nak { attempts: 1, .. }, End::Nak { attempts: 1, .. }, End::Ack(Fate::Handled)]),
        "{:?}",
        after.ends
    );
    assert_eq!((world.value("a"), world.entry(first.id()).state), (1, State::Done));
}

#[test]
fn an_earlier_redrive_is_silent_while_a_later_one_is_on_its_way() {
    let mut world = knowing(Some(State::Open));
    let after = world.run([message(Does::Add).redrive(1).into()]);
    same(&after.ends, &[duplicate()]);
    assert!(after.again.is_empty() && world.value("a") == 0);
}

#[test]
fn a_redrive_of_what_is_done_is_acked_and_its_outcome_is_published_again() {
    let mut world = World::new();
    world.run([message(Does::Add).into()]);
    for number in [1, 2] {
        let after = world.run([message(Does::Add).redrive(number).into()]);
        same(&after.ends, &[duplicate()]);
        assert_eq!(records(&after.again), [format!("resolved {number}")]);
    }
    assert_eq!((world.value("a"), world.batch), (1, 1));
}

#[test]
fn a_batch_with_entries_has_the_next_number_and_one_without_the_last_again() {
    let mut world = World::new();
    let instance = id("instance", 1);
    let add: Input = message(Does::Add).into();
    let batch = world.decide(&[&add], &HashSet::default()).write.into_batch(instance, 6, 4);
    assert_eq!((batch.batch, batch.published_through, batch.instance, batch.now), (7, 4, instance, START));
    assert!(batch.journal.iter().all(|entry| (entry.instance, entry.batch) == (instance, 7)));
    world.run([message(Does::Pay(1)).number(2).into()]);
    world.later(Duration::from_secs(1));
    let due = world.due("a");
    let write = world.decide(&[&due], &HashSet::default()).write;
    assert!(write.entries.is_empty() && !write.is_empty());
    assert_eq!(write.into_batch(instance, 6, 4).batch, 6);
}

#[test]
fn what_only_repeats_needs_no_commit() {
    let mut world = World::new();
    world.run([message(Does::Add).into()]);
    let repeat: Input = message(Does::Add).delivered(2).into();
    assert!(world.decide(&[&repeat], &HashSet::default()).write.is_empty());
}
