//! A rehearsal says what the inputs then do, and changes nothing.

use super::*;

/// What the inputs would do now.
fn rehearse(world: &World, inputs: &[Input]) -> Vec<Rehearsed> {
    let mut rehearsal = Rehearsal::default();
    let wanted = rehearsal.wanted(&world.planner, &inputs.iter().collect::<Vec<_>>());
    rehearsal.learn(wanted.docs.clone(), world.load(&wanted));
    let one = |input| loop {
        match rehearsal.rehearse(&world.planner, input, world.now) {
            Ok(rehearsed) => return rehearsed,
            Err(Missed(keys)) => {
                let wanted = Wanted { docs: keys, ..Wanted::default() };
                rehearsal.learn(wanted.docs.clone(), world.load(&wanted));
            }
        }
    };
    inputs.iter().map(one).collect()
}

/// Dead letters of all kinds, and what they are when they are redriven.
fn dead(world: &mut World) -> Vec<Message> {
    let visit = |accounts: &[&str]| Does::Visit(accounts.iter().map(|id| (*id).into()).collect());
    let letters: Vec<Message> =
        [Does::Add, Does::Add, Does::Reject, Does::Retry, Does::Panic, visit(&["b", "a"]), Does::Pay(0), Does::Wander]
            .into_iter()
            .zip(1..)
            .map(|(does, number)| message(does).number(number))
            .collect();
    for letter in &letters {
        let end = world.end(letter.clone().unread(Unread::Schema("an old form".into())));
        assert!(matches!(end, End::Parked { .. }), "{end:?}");
    }
    letters
}

#[test]
fn a_rehearsal_says_of_each_input_what_it_then_comes_to() {
    let mut world = World::new();
    let letters = dead(&mut world);
    let redrives = || letters.iter().map(|letter| Input::from(letter.clone().redrive(1))).collect::<Vec<_>>();
    let rehearsed = rehearse(&world, &redrives());
    assert_eq!((world.value("a"), world.docs.len()), (0, 0), "nothing has changed");

    let fields =
        |rehearsed: &Rehearsed| rehearsed.changes.iter().map(|change| change.fields.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&rehearsed[0]), [["id", "value"]]);
    assert_eq!(fields(&rehearsed[1]), [["value"]], "after the first");
    for (redrive, rehearsed) in redrives().into_iter().zip(rehearsed) {
        let before = world.docs.clone();
        let after = world.run([redrive]);
        same(&[rehearsed.end], &after.ends);
        assert_eq!(rehearsed.emitted, after.emitted);
        let changed: Vec<_> = world.docs.iter().filter(|(key, doc)| before.get(key) != Some(doc)).collect();
        assert_eq!(
            rehearsed.changes.iter().map(|change| &change.key).collect::<Vec<_>>(),
            changed.iter().map(|(key, _)| *key).collect::<Vec<_>>()
        );
        for (change, (key, doc)) in rehearsed.changes.iter().zip(changed) {
            assert_eq!(change.created, !before.contains_key(key));
            assert_eq!(change.wake, doc.wake.as_ref().map(|wake| Some(wake.kind.clone())), "{key:?}");
        }
    }
    assert_eq!((world.value("a"), world.value("b")), (3, 1));
}

#[test]
fn what_was_handled_since_is_said_to_be_a_duplicate_and_what_the_journal_does_not_know_is_not() {
    let mut world = World::new();
    let letter = dead(&mut world).remove(0);
    world.run([letter.clone().redrive(1).into()]);
    for (redrive, known) in [(letter.redrive(2), Some(State::Done)), (message(Does::Add).number(99).redrive(1), None)] {
        let [again] = &rehearse(&world, &[redrive.into()])[..] else { panic!("one") };
        same(std::slice::from_ref(&again.end), &[duplicate()]);
        assert_eq!((again.known, &again.changes[..]), (known, &[][..]));
        let record = if known.is_some() { "resolved 2" } else { "unknown 1" };
        assert_eq!(records(&again.emitted), [record]);
    }
}

#[test]
fn a_start_without_an_end_is_told_from_what_was_parked() {
    let mut world = World::new();
    let letter = dead(&mut world).remove(0);
    let redrive = Input::from(letter.clone().redrive(1));
    let is_started = |world: &World| {
        let mut rehearsal = Rehearsal::default();
        let wanted = rehearsal.wanted(&world.planner, &[&redrive]);
        rehearsal.learn(wanted.docs.clone(), world.load(&wanted));
        rehearsal.is_started(letter.id())
    };
    assert!(!is_started(&world));
    // It is handled, and the process dies of it.
    let facts = world.facts(&[&redrive]);
    let starts = world.planner.suspects(&[&redrive], &facts, &HashSet::default(), world.now).write(world.now);
    world.commit(starts);
    assert!(is_started(&world));
}

#[test]
fn no_effect_is_claimed_and_a_wake_that_would_be_set_or_moved_is_named() {
    let mut world = World::new();
    let letter = dead(&mut world).remove(6);
    let redrives =
        [letter.redrive(1).into(), message(Does::Pay(5)).number(20).into(), message(Does::Calm).number(21).into()];
    let rehearsed = rehearse(&world, &redrives);
    let wakes: Vec<_> = rehearsed.iter().map(|one| one.changes[0].wake.clone()).collect();
    assert_eq!(wakes, [Some(Some("pay".into())), Some(Some("pay".into())), Some(None)]);
    assert!(world.docs.is_empty());
}
