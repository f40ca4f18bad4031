//! What the shop has no need of: commands that write one document and rely on another that they only read, and messages that ask to
//! be tried again.

use millstream::sim::{Failure, Faults, Sim, hunt};
use millstream::{Command, Document, Event, Fault, Handler, Id, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

const ACTIONS: usize = 800;
/// Few, so that callers often ask for both withdrawals of a pair at once.
const PAIRS: u32 = 2;
const SERVICE: &str = "accounts";
const STREAM: Stream = Stream::new("ACCOUNTS", "accounts");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    id: String,
    balance: u32,
    told: bool,
}

impl Document for Account {
    const COLLECTION: &'static str = "accounts";

    fn id(&self) -> &str {
        &self.id
    }
}

fn id(pair: u32, which: u32) -> String {
    format!("{pair} {which}")
}

/// Opens two accounts with a balance of one each.
#[derive(Clone, Serialize)]
struct Open {
    pair: u32,
}

impl Command for Open {
    type Reply = ();

    fn touches(&self, _: Id) -> Keys {
        Keys::none().and_all::<Account>([id(self.pair, 0), id(self.pair, 1)])
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        for which in 0..2 {
            unit.put(Account { id: id(self.pair, which), balance: 1, told: false });
        }
        Ok(())
    }
}

/// Draws on one account, if something is left in both together.
#[derive(Clone, Serialize)]
struct Withdraw {
    pair: u32,
    from: u32,
}

impl Command for Withdraw {
    type Reply = ();

    fn touches(&self, _: Id) -> Keys {
        Open { pair: self.pair }.touches(Id::default())
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let mut get = |which| {
            let found = unit.get::<Account>(&id(self.pair, which))?;
            found.ok_or_else(|| Fault::Retry("it is not open yet".into()))
        };
        let (mut from, other) = (get(self.from)?, get(1 - self.from)?);
        if from.balance == 0 || from.balance + other.balance < 2 {
            return Err(Fault::conflict("nothing would be left"));
        }
        from.balance -= 1;
        unit.put(from);
        Ok(())
    }
}

/// Is tried again until the account is open.
#[derive(Serialize, Deserialize)]
struct Told {
    account: String,
}

impl Event for Told {
    const TYPE: &'static str = "accounts.told";
    const STREAM: Stream = STREAM;

    fn key(&self) -> &str {
        &self.account
    }
}

struct Tell;

impl Handler<Told> for Tell {
    fn touches(&self, event: &Received<Told>) -> Keys {
        Keys::one::<Account>(&event.account)
    }

    fn handle(&self, event: &Received<Told>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let found = unit.get::<Account>(&event.account)?;
        let account = found.ok_or_else(|| Fault::Retry("it is not open yet".into()))?;
        unit.put(Account { told: true, ..account });
        Ok(())
    }
}

fn world(seed: u64, faults: Faults) -> Sim {
    let service =
        Service::new(SERVICE).keeps::<Account>().publishes(STREAM).reads(STREAM, Start::Beginning).on::<Told>(Tell);
    let mut sim = Sim::new(seed).with_faults(faults).with(&service, 2);
    for pair in 0..PAIRS {
        sim.publish(&Told { account: id(pair, 0) });
        sim.call(SERVICE, Some(&format!("open {pair}")), Open { pair });
        for from in 0..2 {
            sim.call(SERVICE, Some(&format!("withdraw {pair} {from}")), Withdraw { pair, from });
        }
    }
    sim
}

/// Of each pair one is left, and every account was told, or a dead letter says why not.
fn check(sim: &mut Sim) -> Result<(), String> {
    let letters = sim.dead_letters(SERVICE).len();
    let accounts = sim.all::<Account>(SERVICE);
    let told = accounts.iter().filter(|account| account.told).count();
    if told + letters != PAIRS as usize {
        return Err(format!("of {PAIRS} messages {told} were handled and {letters} given up"));
    }
    for pair in 0..PAIRS {
        let of_pair = accounts.iter().filter(|account| account.id == id(pair, 0) || account.id == id(pair, 1));
        let left: u32 = of_pair.map(|account| account.balance).sum();
        if left != 1 {
            return Err(format!("{left} is left in the accounts of pair {pair}"));
        }
    }
    Ok(())
}

pub(crate) fn simulate(seeds: impl IntoIterator<Item = u64>, faults: Faults) -> Result<u64, Box<Failure>> {
    hunt(seeds, ACTIONS, |seed| world(seed, faults), check)
}
