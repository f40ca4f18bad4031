//! Running seeds until one fails.

use std::fmt;

use crate::sim::world::Sim;

/// What a seed has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// After how many actions the faults ended in the shortest run that still fails.
    pub actions: usize,
    /// What is wrong.
    pub what: String,
    /// The last actions before.
    pub log: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, after {} actions: {}", self.seed, self.actions, self.what)?;
        self.log.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Runs a world for each seed: `actions` of them with faults, then until it is at rest, then `check`. Ends at the first that
/// fails, with the shortest prefix of its actions that still does.
///
/// # Errors
/// What was found.
pub fn hunt(
    seeds: impl IntoIterator<Item = u64>,
    actions: usize,
    world: impl Fn(u64) -> Sim,
    check: impl Fn(&mut Sim) -> Result<(), String>,
) -> Result<u64, Box<Failure>> {
    let mut count = 0;
    for seed in seeds {
        count += 1;
        let run = |actions: usize| {
            let mut sim = world(seed);
            let done = sim.run(actions).and_then(|()| sim.settle()).and_then(|()| check(&mut sim));
            done.map_err(|what| (what, sim.last_actions(40)))
        };
        let Err(mut found) = run(actions) else { continue };
        let mut shortest = actions;
        // A shorter prefix need not fail because a longer one does, so all lengths of a doubling are tried.
        let mut length = 1;
        while length < shortest {
            if let Err(shorter) = run(length) {
                (found, shortest) = (shorter, length);
                break;
            }
            length += 1 + length / 8;
        }
        let (what, log) = found;
        return Err(Box::new(Failure { seed, actions: shortest, what, log }));
    }
    Ok(count)
}
