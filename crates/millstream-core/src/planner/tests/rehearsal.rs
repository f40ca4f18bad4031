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
fn what_was_handled_since_is_said_to_be_a_duplicate_and_changes_nothing() {
    let mut world = World::new();
    let letter = dead(&mut world).remove(0);
    world.run([letter.clone().redrive(1).into()]);
    let [again] = &rehearse(&world, &[letter.redrive(2).into()])[..] else { panic!("one") };
    same(std::slice::from_ref(&again.end), &[duplicate()]);
    assert_eq!(again.changes, []);
}

#[test]
fn no_effect_is_claimed_and_the_wake_that_would_be_set_is_named() {
    let mut world = World::new();
    let letter = dead(&mut world).remove(6);
    let [rehearsed] = &rehearse(&world, &[letter.redrive(1).into()])[..] else { panic!("one") };
    let [change] = &rehearsed.changes[..] else { panic!("{rehearsed:?}") };
    assert_eq!(change.wake, Some(Some("pay".into())));
    assert!(world.docs.is_empty());
}
