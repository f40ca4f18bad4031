//! Documents that `touches` does not name: loaded, and the batch decided again.

use super::*;

fn visit(number: u32, accounts: &[&str]) -> Input {
    message(Does::Visit(accounts.iter().map(|id| (*id).into()).collect())).number(number).into()
}

#[test]
fn what_handlers_miss_is_named_once_and_in_order() {
    let world = World::new();
    let batch = [visit(1, &["c"]), visit(2, &["b"]), visit(3, &["c"]), message(Does::Add).number(4).into()];
    let batch: Vec<&Input> = batch.iter().collect();
    let facts = world.facts(&batch);
    let decided = world.planner.decide(&batch, &facts, &HashSet::default(), &world.slots, world.now);
    assert_eq!(decided.err(), Some(Missed(vec![key("b"), key("c")])));
}

#[test]
fn with_what_was_missed_the_batch_is_decided_and_nothing_is_done_twice() {
    let mut world = World::new();
    world.run([message(Does::Add).account("b").into()]);
    let after = world.run([visit(2, &["b", "c"]), visit(3, &["b"]), command(1, Does::Visit(vec!["b".into()]), None)]);
    same(&after.ends[..2], &[handled(), handled()]);
    assert!(matches!(after.ends[2], End::Answer(Ok(_))), "{:?}", after.ends[2]);
    assert_eq!((world.value("b"), world.value("c")), (4, 1));
    assert_eq!(after.misses, 2, "the second account is missed when the first is there");
}

#[test]
fn one_that_goes_on_missing_documents_is_taken_for_a_defect_when_it_is_alone() {
    let mut world = World::new();
    let after = world.run([message(Does::Wander).into()]);
    let [End::Parked { reason: Reason::Misuse, error }] = &after.ends[..] else { panic!("{:?}", after.ends) };
    assert!(error.contains("`touches` does not name"), "{error}");
    assert_eq!(after.misses, MISSES);
}

#[test]
fn a_batch_that_goes_on_missing_documents_is_to_be_halved_and_parks_none_of_its_inputs() {
    let world = World::new();
    let batch = [message(Does::Wander).into(), message(Does::Add).number(2).into()];
    let batch: Vec<&Input> = batch.iter().collect();
    let mut facts = world.facts(&batch);
    for miss in 0..=MISSES {
        assert_eq!(facts.miss_too_often(&batch), miss >= MISSES, "after {miss}");
        let decided = world.planner.decide(&batch, &facts, &HashSet::default(), &world.slots, world.now);
        let Err(Missed(keys)) = decided else { panic!("decided after {miss} misses") };
        let wanted = facts.wanted_after(&keys);
        let found = world.load(&wanted).docs;
        facts.learn_documents(wanted.docs, found);
    }
    assert!(!facts.miss_too_often(&batch[..1]));
}
