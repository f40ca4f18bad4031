//! Wakes: effects are claimed, their outcomes settled, timers fired.

use super::*;

fn late(end: &End) -> bool {
    matches!(end, End::Late)
}

#[test]
fn a_claim_has_the_document_to_itself_for_its_lease() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    let until = START + world.planner.timing.lease;
    assert_eq!((claim.wake.attempt, claim.wake.at, claim.wake.lease), (1, until, Some(until)));
    assert_eq!(world.wake("a"), Some(claim.wake.clone()));
    assert_eq!(claim.wake.opened, START);
    assert_eq!(serde_json::from_slice::<Account>(&claim.document).unwrap().id, "a");
}

/// By which a sweep knows that it has to look earlier.
#[test]
fn a_commit_tells_when_its_first_wake_comes_due() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    let outcome = world.outcome(&claim, 10);
    let cleared = world.decide(&[&outcome], &HashSet::default()).write;
    assert_eq!(cleared.earliest_wake(), None, "it writes the document without a wake");
    let outage = world.ended(&claim, Ended::Outage(Outage::new("no answer")));
    let again = world.decide(&[&outage], &HashSet::default()).write;
    let at = again.docs[0].write.as_ref().unwrap().wake.as_ref().unwrap().at;
    assert_eq!(again.earliest_wake(), Some(at));
}

#[test]
fn an_outcome_is_settled_and_clears_the_wake() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    let outcome = world.outcome(&claim, 10);
    let id = outcome.id();
    let after = world.run([outcome]);
    same(&after.ends, &[End::Settled]);
    assert_eq!((world.value("a"), world.wake("a"), after.emitted.len()), (10, None, 1));
    assert_eq!((world.entry(id).state, world.entry(id).stream.as_str()), (State::Done, ""));
    assert_eq!(after.emitted[0].header("ce-causationid"), Some(claim.wake.cause.to_string()));
}

#[test]
fn an_outcome_that_comes_again_is_late() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    let both = [world.outcome(&claim, 10), world.outcome(&claim, 10)];
    let after = world.run(both);
    same(&after.ends, &[End::Settled, End::Late]);
    let third = world.outcome(&claim, 10);
    assert!(late(&world.end(third)));
    assert_eq!(world.value("a"), 10);
}

#[test]
fn an_outcome_of_another_generation_or_kind_is_late() {
    let mut world = World::new();
    let old = claimed(&mut world, "a");
    let outcome = world.outcome(&old, 10);
    world.run([outcome]);
    let new = claimed(&mut world, "a");
    assert_ne!(old.wake.generation, new.wake.generation);
    let outcome = world.outcome(&old, 10);
    assert!(late(&world.end(outcome)));
    let mut other = new.clone();
    other.wake.kind = "another".into();
    let outcome = world.outcome(&other, 10);
    assert!(late(&world.end(outcome)));
    assert_eq!((world.value("a"), world.wake("a")), (10, Some(new.wake)));
}

/// As somebody at the database leaves it who puts back an old document.
fn put_back(world: &mut World, wake: Wake) {
    world.docs.get_mut(&key("a")).unwrap().wake = Some(wake);
}

#[test]
fn an_outcome_that_the_journal_has_is_answered_from_it_and_its_wake_taken_away() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    let outcome = world.outcome(&claim, 10);
    world.run([outcome]);
    put_back(&mut world, claim.wake.clone());
    let outcome = world.outcome(&claim, 20);
    let after = world.run([outcome]);
    same(&after.ends, &[End::Late]);
    assert_eq!((world.value("a"), world.wake("a"), after.emitted.len()), (10, None, 0));
}

#[test]
fn a_timer_that_the_journal_has_is_answered_from_it_and_does_not_fire_again() {
    let mut world = World::new();
    world.run([message(Does::Close(0)).into()]);
    let (wake, due) = (world.wake("a").unwrap(), world.due("a"));
    world.run([due]);
    put_back(&mut world, wake);
    let due = world.due("a");
    same(&[world.end(due)], &[End::Due]);
    assert_eq!((world.value("a"), world.wake("a")), (1000, None));
}

#[test]
fn an_outcome_of_a_document_that_is_gone_is_late() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    world.docs.clear();
    let outcome = world.outcome(&claim, 10);
    assert!(late(&world.end(outcome)));
}

#[test]
fn an_outcome_of_an_earlier_attempt_settles_but_its_failure_moves_nothing() {
    let mut world = World::new();
    let first = claimed(&mut world, "a");
    world.slots.release(&key("a"));
    world.later(Duration::from_secs(60));
    let due = world.due("a");
    let second = world.run([due]).claims.remove(0);
    assert_eq!((second.wake.attempt, second.wake.generation), (2, first.wake.generation));
    for ended in [Ended::Outage(Outage::new("503")), Ended::GivenBack] {
        let ended = world.ended(&first, ended);
        assert!(late(&world.end(ended)));
        assert_eq!(world.wake("a"), Some(second.wake.clone()));
    }
    let outcome = world.outcome(&first, 10);
    same(&[world.end(outcome)], &[End::Settled]);
    let outcome = world.outcome(&second, 10);
    assert!(late(&world.end(outcome)));
    assert_eq!(world.value("a"), 10);
}

#[test]
fn an_outage_backs_off_by_its_attempts() {
    let mut world = World::new();
    let mut claim = claimed(&mut world, "a");
    for delay_ms in [500, 1000, 2000] {
        let outage = world.ended(&claim, Ended::Outage(Outage::new("503")));
        let after = world.run([outage]);
        same(&after.ends, &[End::Outage { why: "503".into(), defect: false }]);
        assert!(after.claims.is_empty() && after.emitting.is_none());
        let wake = world.wake("a").unwrap();
        assert_eq!((wake.at, wake.lease), (world.now + Duration::from_millis(delay_ms), None));
        let due = world.due("a");
        assert!(world.run([due]).claims.is_empty(), "it is not due yet");
        world.later(Duration::from_millis(delay_ms));
        let due = world.due("a");
        claim = world.run([due]).claims.remove(0);
    }
    assert_eq!(claim.wake.attempt, 4);
}

#[test]
fn what_is_given_back_is_due_at_once() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    world.later(Duration::from_secs(1));
    let given_back = world.ended(&claim, Ended::GivenBack);
    same(&[world.end(given_back)], &[End::Due]);
    let wake = world.wake("a").unwrap();
    assert_eq!((wake.at, wake.lease, wake.attempt), (world.now, None, 1));
}

#[test]
fn an_outcome_that_cannot_be_settled_is_a_defect_and_tried_again() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    let outcome = world.outcome(&claim, 0);
    let after = world.run([outcome]);
    same(&after.ends, &[End::Outage { why: "a bug".into(), defect: true }]);
    assert_eq!((world.value("a"), after.emitted.len()), (0, 0));
    assert_eq!(world.wake("a").unwrap().at, START + Duration::from_millis(500));
}

#[test]
fn an_outcome_of_an_earlier_attempt_that_cannot_be_settled_leaves_the_later_one_its_lease() {
    let mut world = World::new();
    let first = claimed(&mut world, "a");
    world.slots.release(&key("a"));
    world.later(Duration::from_secs(60));
    let due = world.due("a");
    let second = world.run([due]).claims.remove(0);
    let outcome = world.outcome(&first, 0);
    same(&[world.end(outcome)], &[End::Outage { why: "a bug".into(), defect: true }]);
    assert_eq!(world.wake("a"), Some(second.wake));
}

#[test]
fn only_its_outcome_may_move_the_wake_of_an_effect_that_is_under_way() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    for (number, does) in [(1, Does::Calm), (2, Does::Close(0)), (3, Does::Pay(0))] {
        let end = world.end(message(does.clone()).number(number));
        assert!(matches!(end, End::Parked { reason: Reason::Misuse, .. }), "{does:?}: {end:?}");
    }
    same(&[world.end(message(Does::Add).number(4))], &[handled()]);
    assert_eq!(world.wake("a"), Some(claim.wake.clone()), "a change of the document leaves the wake");
    let outcome = world.outcome(&claim, 10);
    same(&[world.end(outcome)], &[End::Settled]);
    assert_eq!(world.value("a"), 11, "what others have changed meanwhile is kept");
}

#[test]
fn an_effect_is_claimed_when_it_is_due_and_not_before() {
    let mut world = World::new();
    let after = world.run([message(Does::Pay(1000)).into()]);
    assert!(after.claims.is_empty());
    world.later(Duration::from_millis(999));
    let early = world.due("a");
    assert!(world.run([early]).claims.is_empty());
    world.later(Duration::from_millis(1));
    let due = world.due("a");
    let after = world.run([due]);
    same(&after.ends, &[End::Due]);
    assert_eq!((accounts(&after.claims), after.emitting), (vec!["a"], None));
}

#[test]
fn what_has_moved_since_the_sweep_saw_it_is_left_alone() {
    let mut world = World::new();
    world.run([message(Does::Pay(1)).into()]);
    world.later(Duration::from_secs(1));
    let (first, second) = (world.due("a"), world.due("a"));
    let claim = world.run([first]).claims.remove(0);
    world.slots.release(&key("a"));
    world.later(Duration::from_secs(60));
    let after = world.run([second]);
    same(&after.ends, &[End::Due]);
    assert!(after.claims.is_empty(), "another attempt is under way");
    let stale = world.due("a");
    let outcome = world.outcome(&claim, 10);
    let after = world.run([outcome, stale]);
    same(&after.ends, &[End::Settled, End::Due]);
    assert!(after.claims.is_empty() && world.wake("a").is_none());
}

#[test]
fn a_timer_fires_once() {
    let mut world = World::new();
    world.run([message(Does::Close(1000)).into()]);
    let early = world.due("a");
    same(&[world.end(early)], &[End::Due]);
    assert_eq!(world.value("a"), 0);
    world.later(Duration::from_secs(1));
    let both = [world.due("a"), world.due("a")];
    let id = both[0].id();
    let after = world.run(both);
    same(&after.ends, &[End::Due, End::Due]);
    assert_eq!((world.value("a"), world.wake("a"), after.emitted.len()), (1000, None, 1));
    assert_eq!(world.entry(id).state, State::Done);
}

#[test]
fn a_fact_in_the_batch_beats_a_deadline_that_has_passed() {
    let mut world = World::new();
    world.run([message(Does::Close(0)).into()]);
    let mut batch = [world.due("a"), message(Does::Calm).number(2).into()];
    batch.sort_by_key(Input::rank);
    let after = world.run(batch);
    same(&after.ends, &[handled(), End::Due]);
    assert_eq!((world.value("a"), world.wake("a")), (0, None));
}

#[test]
fn a_timer_that_fails_is_put_off_and_holds_up_nobody() {
    let mut world = World::new();
    world.run([
        message(Does::Close(0)).account("faulty").into(),
        message(Does::Close(0)).number(2).account("sound").into(),
    ]);
    let both = [world.due("faulty"), world.due("sound")];
    let after = world.run(both);
    same(&after.ends, &[End::Unfired("a bug".into()), End::Due]);
    assert_eq!((world.value("faulty"), world.value("sound")), (0, 1000));
    let wake = world.wake("faulty").unwrap();
    assert_eq!((wake.at, wake.attempt), (START + Duration::from_millis(16_000), 0));
}
