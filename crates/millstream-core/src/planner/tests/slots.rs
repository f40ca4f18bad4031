//! Slots and breakers: which effects may be claimed.

use super::*;

fn pay(number: u32, account: &'static str) -> Input {
    message(Does::Pay(0)).number(number).account(account).into()
}

#[test]
fn fresh_effects_are_claimed_as_far_as_there_are_slots() {
    let mut world = World::new();
    world.slots = Slots::new(2, 3);
    let after = world.run([pay(1, "c"), pay(2, "b"), pay(3, "a")]);
    assert_eq!(accounts(&after.claims), ["a", "b"]);
    assert_eq!(world.slots.free(), 0);
    let attempts = ["a", "b", "c"].map(|account| world.wake(account).unwrap().attempt);
    assert_eq!(attempts, [1, 1, 0]);
    let due = world.due("c");
    let after = world.run([due]);
    same(&after.ends, &[End::Due]);
    assert!(after.claims.is_empty(), "no slot is free");
    world.slots.release(&key("a"));
    let due = world.due("c");
    assert_eq!(accounts(&world.run([due]).claims), ["c"]);
}

#[test]
fn closed_slots_take_nothing_fresh() {
    let mut world = World::new();
    world.slots.close();
    assert!(world.run([pay(1, "a")]).claims.is_empty());
    assert_eq!(world.wake("a").unwrap().attempt, 0);
}

#[test]
fn a_tripped_breaker_lets_one_probe_through_until_there_is_an_answer() {
    let mut world = World::new();
    let tripped = ["x", "y", "z"].map(|account| world.slots.outage(&key(account), PAY.name()));
    assert_eq!(tripped, [false, false, true]);
    let after = world.run([pay(1, "a"), pay(2, "b")]);
    assert_eq!(accounts(&after.claims), ["a"]);
    assert!(world.slots.probed_last(PAY.name(), &key("a")) && world.slots.probes(PAY.name()));
    let due = world.due("b");
    assert!(world.run([due]).claims.is_empty(), "a probe is on its way");
    world.slots.release(&key("a"));
    assert!(world.slots.answer(PAY.name()));
    let due = world.due("b");
    assert_eq!(accounts(&world.run([due, pay(3, "c")]).claims), ["b", "c"]);
}

#[test]
fn outages_of_one_document_do_not_trip_a_breaker_and_an_answer_in_between_begins_anew() {
    let mut slots = Slots::new(8, 2);
    assert!((0..5).all(|_| !slots.outage(&key("a"), PAY.name())));
    assert!(!slots.answer(PAY.name()));
    assert!(!slots.outage(&key("b"), PAY.name()));
    assert!(slots.outage(&key("a"), PAY.name()));
    assert!(!slots.outage(&key("c"), PAY.name()), "it is tripped already");
    assert!(slots.is_tripped(PAY.name()) && !slots.is_tripped("another"));
}

#[test]
fn a_document_never_has_two_effects_at_once() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a");
    world.later(Duration::from_secs(60));
    let due = world.due("a");
    assert!(world.run([due]).claims.is_empty(), "its effect still runs here, though its lease is over");
    assert_eq!(world.wake("a").unwrap(), claim.wake);
    // Set and due within one batch.
    let mut world = World::new();
    world.run([message(Does::Pay(1)).into()]);
    world.later(Duration::from_secs(1));
    let (one, two) = (world.due("a"), world.due("a"));
    assert_eq!(accounts(&world.run([one, two, message(Does::Add).number(2).into()]).claims), ["a"]);
}

#[test]
fn a_wake_on_its_way_is_not_queued_again() {
    let mut slots = Slots::new(8, 3);
    assert!(slots.queue(&key("a")) && !slots.queue(&key("a")));
    slots.dequeue(&key("a"));
    assert!(slots.queue(&key("a")));
}
