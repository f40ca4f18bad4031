//! Every interleaving of one order's saga over the real handlers: messages in any order, handled ones delivered again without
//! the journal's help, answers of the gateway lost, breadth first, so that a failure comes with its shortest trace.
//!
//! Walked twice: with a deadline and a customer's cancel at any moment (whatever comes to rest is consistent), and without
//! either (nothing in flight means the order has ended).

use std::collections::HashSet;
use std::sync::Arc;

use millstream::event::Emitted;
use proptest::prelude::*;
use proptest::sample::Index;

mod world;

use world::{Message, World};

#[derive(Debug)]
struct Walk {
    states: usize,
    at_rest: usize,
}

/// Walks all states that can be reached; the error has the shortest way to the first one that is wrong.
fn explore(start: World) -> Result<Walk, String> {
    let mut seen = HashSet::from([start.key()]);
    let mut from: Vec<(usize, String)> = vec![(0, String::new())];
    let mut level = vec![(0, start)];
    let mut at_rest = 0;
    while !level.is_empty() {
        let mut next = vec![];
        for (index, world) in level {
            let trace = |from: &[(usize, String)], last: &str, what: &str| {
                let mut steps = vec![last.to_owned()];
                let mut at = index;
                while at != 0 {
                    steps.push(from[at].1.clone());
                    at = from[at].0;
                }
                steps.reverse();
                format!("{what}\n  after: {}", steps.join(" ; "))
            };
            if world.is_at_rest() {
                at_rest += 1;
                world.check_at_rest().map_err(|what| trace(&from, "at rest", &what))?;
            }
            for (label, after) in world.moves() {
                let after = after.map_err(|what| trace(&from, &label, &what))?;
                if seen.insert(after.key()) {
                    from.push((index, label));
                    next.push((from.len() - 1, after));
                }
            }
        }
        level = next;
    }
    Ok(Walk { states: seen.len(), at_rest })
}

fn check(outside: bool) {
    for (stock, of) in [(5, "enough in stock"), (1, "short of stock")] {
        let walk = explore(World::new(outside, stock, false)).unwrap_or_else(|wrong| panic!("{of}: {wrong}"));
        println!("{of}: {} states, {} at rest", walk.states, walk.at_rest);
        assert!(walk.at_rest > 0, "{of}: {walk:?}");
    }
}

#[test]
fn with_a_deadline_and_a_cancel_at_any_moment_whatever_comes_to_rest_is_consistent() {
    check(true);
}

#[test]
fn without_deadline_and_cancel_nothing_in_flight_means_that_the_order_has_ended() {
    check(false);
}

#[test]
fn the_walk_finds_the_shortest_way_to_a_second_charge_at_a_gateway_that_forgets_its_keys() {
    let wrong = explore(World::new(false, 5, true)).unwrap_err();
    let expected = "the customer was charged twice\n  after: POST ; inventory <- orders.created ; \
                    payments <- inventory.reserved ; claim ; charge, answer lost ; charge, answer lost";
    assert_eq!(wrong, expected);
}

/// What is on its way, or was handled, after a history made by choices.
fn told(choices: &[Index]) -> Vec<(Message, Arc<Emitted>)> {
    let mut world = World::new(true, 5, false);
    for choice in choices {
        let mut moves = world.moves();
        if moves.is_empty() {
            break;
        }
        world = moves.swap_remove(choice.index(moves.len())).1.unwrap();
    }
    world.in_flight.into_iter().chain(world.handled).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_history_emits_the_same_bytes_headers_and_ids_twice(
        choices in prop::collection::vec(any::<Index>(), 1..25),
    ) {
        prop_assert_eq!(told(&choices), told(&choices));
    }
}
