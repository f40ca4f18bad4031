//! Suspects: what may have killed a process is begun first, then alone, and given up in the end.

use super::*;

fn suspects(world: &World, batch: &[Input], begun: &HashSet<Id>) -> Suspects {
    let batch: Vec<&Input> = batch.iter().collect();
    world.planner.suspects(&batch, &world.facts(&batch), begun, world.now)
}

/// Commits the starts of a batch; the process dies before it is decided.
fn dies(world: &mut World, batch: &[Input]) -> Suspects {
    let found = suspects(world, batch, &HashSet::default());
    world.commit(found.write(world.now));
    found
}

fn nothing(found: &Suspects) -> bool {
    found.alone.is_empty() && found.starts.is_empty() && found.doomed.is_empty()
}

#[test]
fn what_comes_for_the_first_time_is_done_or_is_no_message_is_no_suspect() {
    let mut world = World::new();
    world.run([message(Does::Add).number(9).into()]);
    let batch = [
        message(Does::Add).into(),
        message(Does::Add).number(9).delivered(2).into(),
        message(Does::Add).number(2).delivered(2).settled().into(),
        message(Does::Add).number(3).delivered(2).unread(Unread::Schema("no".into())).into(),
        message(Does::Add).number(4).delivered(2).redrive(1).into(),
        command(1, Does::Add, None),
    ];
    assert!(nothing(&suspects(&world, &batch, &HashSet::default())));
}

#[test]
fn the_start_of_a_suspect_is_committed_with_its_batch_the_first_time_and_ends_with_its_handling() {
    let mut world = World::new();
    let again = message(Does::Add).delivered(2);
    let batch = inputs([message(Does::Add).number(2), again.clone()]);
    let found = dies(&mut world, &batch);
    assert!(found.alone.is_empty() && found.doomed.is_empty());
    let entry = world.entry(again.id());
    assert_eq!((found.starts.len(), entry.state, entry.started, entry.version), (1, State::Open, 1, 1));
    same(&[world.end(again.clone())], &[handled()]);
    let entry = world.entry(again.id());
    assert_eq!((entry.started, entry.version), (0, 2));
}

/// A durable that was made anew counts deliveries from one again.
#[test]
fn one_that_an_earlier_durable_has_given_out_is_a_suspect_at_its_first_delivery() {
    let world = World::new();
    let given = |given_before| Input::Message(Box::new(Delivery { given_before, ..message(Does::Add).delivery() }));
    assert!(nothing(&suspects(&world, &[given(false)], &HashSet::default())));
    assert_eq!(suspects(&world, &[given(true)], &HashSet::default()).starts.len(), 1);
}

#[test]
fn one_with_an_open_entry_is_a_suspect_however_often_it_was_delivered() {
    let mut world = World::new();
    world.run([message(Does::Retry).into()]);
    let found = dies(&mut world, &[message(Does::Retry).into()]);
    assert_eq!(found.starts.len(), 1);
    let entry = world.entry(message(Does::Retry).id());
    assert_eq!((entry.started, entry.attempts, entry.version), (1, 1, 2));
}

#[test]
fn one_whose_start_has_not_ended_goes_alone() {
    let mut world = World::new();
    let again = message(Does::Add).delivered(2);
    dies(&mut world, &inputs([again.clone()]));
    let batch = inputs([message(Does::Add).number(2), again.clone(), message(Does::Add).number(3).delivered(2)]);
    let found = suspects(&world, &batch, &HashSet::default());
    assert_eq!(found.alone, [1]);
    assert_eq!(found.starts.iter().map(|start| start.id).collect::<Vec<_>>(), [id("deed", 3)]);
    let found = dies(&mut world, &inputs([again.clone()]));
    assert_eq!((found.alone.len(), found.starts.len(), world.entry(again.id()).started), (0, 1, 2));
}

#[test]
fn one_that_kills_its_process_again_and_again_alone_is_parked_as_crash() {
    let mut world = World::new();
    let killer = message(Does::Add).delivered(2);
    let batch = inputs([killer.clone()]);
    // With its batch, and then alone as often as it may.
    for starts in 1..=1 + world.planner.timing.crash_starts {
        let found = dies(&mut world, &batch);
        assert_eq!((found.starts.len(), world.entry(killer.id()).started), (1, starts));
    }
    let found = suspects(&world, &batch, &HashSet::default());
    assert_eq!((found.starts.len(), &found.doomed), (0, &HashSet::from_iter([killer.id()])));
    let Decision { write, after } = world.decide(&[&batch[0]], &found.doomed);
    assert!(matches!(after.ends[..], [End::Parked { reason: Reason::Crash, .. }]), "{:?}", after.ends);
    world.commit(write);
    let entry = world.entry(killer.id());
    assert_eq!((entry.state, entry.started, world.value("a")), (State::Parked, 0, 0));
    assert_eq!(records(&after.emitted), ["crash 0"]);
}

#[test]
fn two_deliveries_of_a_suspect_in_one_batch_are_started_once() {
    let world = World::new();
    let again = message(Does::Add).delivered(2);
    let found = suspects(&world, &inputs([again.clone(), again]), &HashSet::default());
    assert_eq!(found.starts.len(), 1);
}

#[test]
fn what_has_begun_is_not_started_again() {
    let mut world = World::new();
    let batch = inputs([message(Does::Add).delivered(2)]);
    let begun = dies(&mut world, &batch).starts.iter().map(|start| start.id).collect();
    assert!(nothing(&suspects(&world, &batch, &begun)));
}

#[test]
fn a_start_that_was_committed_is_decided_upon_without_loading_again() {
    let mut world = World::new();
    let again: Input = message(Does::Add).delivered(2).into();
    let mut facts = world.facts(&[&again]);
    let found = dies(&mut world, std::slice::from_ref(&again));
    facts.learn_entries(found.starts);
    let decided = world.planner.decide(&[&again], &facts, &HashSet::default(), &world.slots, world.now);
    world.commit(decided.ok().unwrap().write);
    assert_eq!(world.entry(again.id()).version, 2);
}

#[test]
fn a_failure_and_waiting_for_a_newer_release_end_a_start() {
    for does in [Does::Retry, Does::Newer] {
        let mut world = World::new();
        let again = message(does.clone()).delivered(2);
        world.run(inputs([again.clone()]));
        dies(&mut world, &inputs([again.clone()]));
        assert_eq!(world.entry(again.id()).started, 1);
        world.run(inputs([again.clone()]));
        assert_eq!((world.entry(again.id()).started, world.entry(again.id()).state), (0, State::Open), "{does:?}");
    }
}

#[test]
fn the_start_of_a_redrive_begins_anew_and_does_not_publish_the_dead_letter_again() {
    let mut world = World::new();
    world.run([message(Does::Reject).into()]);
    let redrive = message(Does::Add).redrive(1);
    let found = dies(&mut world, &inputs([redrive.clone()]));
    let [start] = &found.starts[..] else { panic!("{found:?}") };
    assert_eq!((start.state, start.started, start.redrives, start.attempts), (State::Open, 1, 1, 0));
    assert!(start.emitted.is_empty());
    let after = world.run(inputs([redrive]));
    same(&after.ends, &[handled()]);
    assert_eq!(records(&after.emitted), ["resolved 1"]);
}
