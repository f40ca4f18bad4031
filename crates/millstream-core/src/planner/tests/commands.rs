//! Commands: done once for a key, answered the same again.

use super::*;

fn answered(value: u32, number: u32, repeated: bool) -> End {
    let reply = Bytes::from(value.to_string());
    End::Answer(Ok(Reply { id: id("command", number), reply, repeated }))
}

fn refused(failure: CommandFailure) -> End {
    End::Answer(Err(failure))
}

#[test]
fn a_command_is_done_and_its_reply_is_kept_if_it_has_a_key() {
    let mut world = World::new();
    same(
        &[world.end(command(1, Does::Add, None)), world.end(command(2, Does::Add, under(1, 1)))],
        &[answered(1, 1, false), answered(2, 2, false)],
    );
    assert_eq!(world.entry(id("command", 1)).reply, None);
    assert_eq!(world.entry(id("command", 2)).reply, Some(Bytes::from_static(b"2")));
    let key = &world.keys[&[1; 32]];
    assert_eq!((key.command, key.expires), (id("command", 2), START + world.planner.timing.key_retention));
    assert_eq!(world.keys.len(), 1);
}

#[test]
fn a_repeat_under_a_key_within_the_batch_has_the_first_ones_answer() {
    let mut world = World::new();
    let after = world.run([command(1, Does::Add, under(1, 1)), command(2, Does::Add, under(1, 1))]);
    same(&after.ends, &[answered(1, 1, false), answered(1, 1, true)]);
    assert_eq!((world.value("a"), world.journal.len()), (1, 1));
}

#[test]
fn a_repeat_under_a_key_has_the_first_ones_answer_in_a_later_batch() {
    let mut world = World::new();
    world.run([command(1, Does::Add, under(1, 1))]);
    world.run([command(2, Does::Add, None)]);
    same(&[world.end(command(3, Does::Add, under(1, 1)))], &[answered(1, 1, true)]);
    assert_eq!(world.value("a"), 2);
}

#[test]
fn another_command_under_a_used_key_is_refused() {
    let mut world = World::new();
    let after = world.run([command(1, Does::Add, under(1, 1)), command(2, Does::Look, under(1, 2))]);
    same(&after.ends[1..], &[refused(CommandFailure::KeyReused)]);
    same(&[world.end(command(3, Does::Look, under(1, 2)))], &[refused(CommandFailure::KeyReused)]);
}

#[test]
fn an_expired_key_stands_for_a_new_command() {
    let mut world = World::new();
    world.run([command(1, Does::Add, under(1, 1))]);
    world.later(world.planner.timing.key_retention);
    same(&[world.end(command(2, Does::Add, under(1, 2)))], &[answered(2, 2, false)]);
    assert_eq!(world.keys[&[1; 32]].command, id("command", 2));
}

#[test]
fn a_command_that_was_committed_after_all_has_its_answer_if_that_was_kept() {
    let mut world = World::new();
    world.run([command(1, Does::Add, under(1, 1)), command(2, Does::Add, None)]);
    let after = world.run([command(1, Does::Add, under(1, 1)), command(2, Does::Add, None)]);
    same(&after.ends, &[answered(1, 1, false), refused(CommandFailure::OutcomeUnknown)]);
    assert_eq!(world.value("a"), 2);
}

#[test]
fn a_repeat_whose_original_is_not_there_yet_may_ask_again() {
    let mut world = World::new();
    world.run([command(1, Does::Add, under(1, 1))]);
    world.journal.clear();
    let end = world.end(command(2, Does::Add, under(1, 1)));
    assert!(matches!(end, End::Answer(Err(CommandFailure::Unavailable(_)))), "{end:?}");
}

#[test]
fn a_command_that_fails_says_why_and_leaves_nothing_not_even_its_key() {
    let defect = |end: &End| matches!(end, End::Answer(Err(CommandFailure::Defect(_))));
    let passing = |end: &End| matches!(end, End::Answer(Err(CommandFailure::Unavailable(_))));
    let rejected =
        |end: &End| matches!(end, End::Answer(Err(CommandFailure::Rejected(reject))) if reject.status == 409);
    let too_large = |end: &End| matches!(end, End::Answer(Err(CommandFailure::TooLarge(_))));
    type Right<'a> = &'a dyn Fn(&End) -> bool;
    let cases: [(Does, Right<'_>); 8] = [
        (Does::Retry, &passing),
        (Does::AddAndRetry, &passing),
        (Does::Newer, &passing),
        (Does::Reject, &rejected),
        (Does::TooMuch, &too_large),
        (Does::Panic, &defect),
        (Does::Undeclared, &defect),
        (Does::Foreign, &defect),
    ];
    for (does, is_right) in cases {
        let mut world = World::new();
        let end = world.end(command(1, does.clone(), under(1, 1)));
        assert!(is_right(&end), "{does:?}: {end:?}");
        assert!(world.docs.is_empty() && world.journal.is_empty() && world.keys.is_empty(), "{does:?}");
        same(&[world.end(command(2, Does::Add, under(1, 1)))], &[answered(1, 2, false)]);
    }
}
