//! Whatever comes, in whatever order and however often: stock is conserved, and the same input gives the same bytes.

use std::collections::BTreeMap;

use contracts::Line;
use millstream::event::Emitted;
use millstream::workbench::Workbench;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::table::{Fact, line, stock, tell};
use crate::{Product, Reservation, Status, service};

const PRODUCTS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Input {
    Stock(&'static str, u64),
    Fact(usize, Fact),
}

fn orders() -> impl Strategy<Value = Vec<Vec<Line>>> {
    let line = (prop::sample::select(&PRODUCTS[..]), 1_u32..6).prop_map(|(product, quantity)| line(product, quantity));
    prop::collection::vec(prop::collection::vec(line, 1..4), 1..6)
}

/// Stock set now and then, and for each order each of its facts, any of them several times, shuffled.
fn inputs() -> impl Strategy<Value = (Vec<Vec<Line>>, Vec<Input>)> {
    let stocks = prop::collection::vec((prop::sample::select(&PRODUCTS[..]), 0_u64..12), 1..8);
    let again = prop::collection::vec(any::<Index>(), 0..12);
    (orders(), stocks, again).prop_flat_map(|(orders, stocks, again)| {
        let facts = [Fact::Created, Fact::Cancelled, Fact::Confirmed];
        let once: Vec<_> = (0..orders.len()).flat_map(|order| facts.map(|fact| Input::Fact(order, fact))).collect();
        let again: Vec<_> = again.iter().map(|index| index.get(&once).clone()).collect();
        let stocks = stocks.into_iter().map(|(product, initial)| Input::Stock(product, initial));
        let all: Vec<_> = stocks.chain(once).chain(again).collect();
        (Just(orders), Just(all).prop_shuffle())
    })
}

fn run(bench: &mut Workbench, orders: &[Vec<Line>], input: &Input) -> Vec<Emitted> {
    // A refused stock and a confirmation that came too early change nothing: that is checked like all else.
    match input {
        Input::Stock(product, initial) => stock(bench, product, *initial).map(|()| vec![]).unwrap_or_default(),
        Input::Fact(order, fact) => tell(bench, &format!("o{order}"), &orders[*order], *fact).unwrap_or_default(),
    }
}

fn check(bench: &Workbench, orders: usize) {
    let mut held = BTreeMap::<String, (u64, u64)>::new();
    for reservation in (0..orders).filter_map(|order| bench.get::<Reservation>(&format!("o{order}"))) {
        for line in &reservation.lines {
            let (reserved, sold) = held.entry(line.product_id.to_string()).or_default();
            match reservation.status {
                Status::Reserved => *reserved += u64::from(line.quantity),
                Status::Sold => *sold += u64::from(line.quantity),
                Status::Rejected | Status::Released => {}
            }
        }
    }
    for id in PRODUCTS {
        let (reserved, sold) = held.get(id).copied().unwrap_or_default();
        let Some(product) = bench.get::<Product>(id) else {
            assert_eq!((reserved, sold), (0, 0), "{id} is held and unknown");
            continue;
        };
        assert_eq!((product.reserved, product.sold), (reserved, sold), "{id}: what the reservations add up to");
        assert!(product.initial >= reserved + sold, "{id} is oversold: {product:?}");
        assert_eq!(product.initial, product.available() + reserved + sold, "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_duplicates_and_reorderings_breaks_the_stock((orders, inputs) in inputs()) {
        let mut bench = Workbench::of(&service());
        for input in &inputs {
            run(&mut bench, &orders, input);
            check(&bench, orders.len());
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_twice((orders, inputs) in inputs()) {
        let mut one = Workbench::of(&service());
        let mut other = one.clone();
        for input in &inputs {
            prop_assert_eq!(run(&mut one, &orders, input), run(&mut other, &orders, input));
            prop_assert_eq!(one.state(), other.state());
        }
    }
}
