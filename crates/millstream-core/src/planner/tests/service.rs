//! The service that the planner's tests plan for: one type of documents, whose events and commands say what becomes of them.

use super::*;

pub(super) const SERVICE: &str = "ledger";
pub(super) const DEEDS: Stream = Stream::new("DEEDS", "deeds");
pub(super) const NOTES: Stream = Stream::new("NOTES", "notes");
pub(super) const ELSEWHERE: Stream = Stream::new("ELSEWHERE", "elsewhere");
pub(super) const PAY: Kind<Account> = Kind::new("pay");
pub(super) const CLOSE: Kind<Account> = Kind::new("close");
pub(super) const UNDECLARED: Kind<Account> = Kind::new("undeclared");
pub(super) static ADDED: Metric = Metric::counter("added_total", "Additions", &[]);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) value: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) odd: Option<Odd>,
}

/// What JSON can write and no store promises to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Odd {
    Name(BTreeMap<String, u8>),
    Number(u128),
    Deep(serde_json::Value),
    Wide(Vec<u8>),
}

impl Document for Account {
    const COLLECTION: &'static str = "accounts";
    const INDEXED: &'static [&'static str] = &[];
    fn id(&self) -> &str {
        &self.id
    }
}

/// What a handling does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Does {
    /// Adds one to the account, emits a note, counts.
    Add,
    /// Reads the account.
    Look,
    Retry,
    Reject,
    Panic,
    /// Emits more than the broker takes.
    TooMuch,
    /// Sets a wake of a kind that nobody has declared.
    Undeclared,
    /// Emits to a stream of another service.
    Foreign,
    /// Puts something odd into the account.
    Keep(Odd),
    /// Meets what a newer release has written.
    Newer,
    /// Adds one, and is tried again all the same.
    AddAndRetry,
    /// Sets the effect, due after so many milliseconds.
    Pay(u64),
    /// Sets the timer.
    Close(u64),
    /// Takes any wake away.
    Calm,
    /// Adds one to each of these accounts, which `touches` does not name.
    Visit(Vec<String>),
    /// Reads an account after the other, without end.
    Wander,
}

pub(super) fn act(does: &Does, account: &str, unit: &mut Unit<'_>) -> Result<u32, Fault> {
    let add = |unit: &mut Unit<'_>, id: &str| {
        let mut found = unit.get::<Account>(id)?.unwrap_or_default();
        found.id = id.into();
        found.value += 1;
        let value = found.value;
        unit.put(found);
        Ok(value)
    };
    let found = |unit: &mut Unit<'_>| {
        let found = unit.get::<Account>(account)?.unwrap_or_default();
        Ok::<_, Fault>(Account { id: account.into(), ..found })
    };
    match does {
        Does::Add => {
            let value = add(unit, account)?;
            unit.emit(&Noted { account: account.into(), text: "added".into() });
            unit.count(&ADDED, &[]);
            return Ok(value);
        }
        Does::AddAndRetry => {
            add(unit, account)?;
            unit.emit(&Noted { account: account.into(), text: "added".into() });
            return Err(Fault::Retry("not now".into()));
        }
        Does::Look => drop(found(unit)?),
        Does::Retry => return Err(Fault::Retry("not now".into())),
        Does::Reject => return Err(Fault::conflict("never")),
        Does::Panic => panic!("a bug"),
        Does::TooMuch => unit.emit(&Noted { account: account.into(), text: "x".repeat(5000) }),
        Does::Undeclared => {
            let found = found(unit)?;
            unit.put_with_wake(found, UNDECLARED, unit.now());
        }
        Does::Foreign => unit.emit(&Strange { id: account.into() }),
        Does::Keep(odd) => {
            let found = found(unit)?;
            unit.put(Account { odd: Some(odd.clone()), ..found });
        }
        Does::Newer => return Err(Fault::Ahead("of shape 2".into())),
        Does::Pay(after_ms) => {
            let found = found(unit)?;
            unit.put_with_wake(found, PAY, unit.now() + Duration::from_millis(*after_ms));
        }
        Does::Close(after_ms) => {
            let found = found(unit)?;
            unit.put_with_wake(found, CLOSE, unit.now() + Duration::from_millis(*after_ms));
        }
        Does::Calm => {
            let found = found(unit)?;
            unit.put_without_wake(found);
        }
        Does::Visit(accounts) => {
            for id in accounts {
                add(unit, id)?;
            }
        }
        Does::Wander => {
            for number in 0.. {
                unit.get::<Account>(&format!("far {number}"))?;
            }
        }
    }
    Ok(0)
}

pub(super) fn touches(does: &Does, account: &str) -> Keys {
    match does {
        Does::Visit(_) | Does::Wander => Keys::none(),
        _ => Keys::one::<Account>(account),
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Deed {
    pub(super) account: String,
    pub(super) does: Does,
}

impl Event for Deed {
    const TYPE: &'static str = "deeds.done";
    const STREAM: Stream = DEEDS;
    fn key(&self) -> &str {
        &self.account
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Noted {
    account: String,
    text: String,
}

impl Event for Noted {
    const TYPE: &'static str = "notes.noted";
    const STREAM: Stream = NOTES;
    fn key(&self) -> &str {
        &self.account
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Strange {
    id: String,
}

impl Event for Strange {
    const TYPE: &'static str = "elsewhere.strange";
    const STREAM: Stream = ELSEWHERE;
    fn key(&self) -> &str {
        &self.id
    }
}

pub(super) struct Clerk;

impl Handler<Deed> for Clerk {
    fn touches(&self, event: &Received<Deed>) -> Keys {
        touches(&event.does, &event.account)
    }

    fn handle(&self, event: &Received<Deed>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        act(&event.does, &event.account, unit).map(drop)
    }
}

impl Command for Deed {
    type Reply = u32;

    fn touches(&self, _: Id) -> Keys {
        touches(&self.does, &self.account)
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<u32, Fault> {
        act(&self.does, &self.account, unit)
    }
}

/// Its outcome is what is added; 0 is a bug.
pub(super) struct Payout;

impl Effect for Payout {
    type Document = Account;
    type Outcome = u32;
    const KIND: Kind<Account> = PAY;

    async fn run(&self, _: &Account, _: &Wake) -> Result<u32, Outage> {
        Ok(10)
    }

    fn settle(&self, document: &mut Account, outcome: u32, unit: &mut Unit<'_>) {
        assert!(outcome > 0, "a bug");
        document.value += outcome;
        unit.emit(&Noted { account: document.id.clone(), text: "paid".into() });
    }
}

/// Closes an account; one of the name `faulty` it cannot.
pub(super) struct Closing;

impl Timer for Closing {
    type Document = Account;
    const KIND: Kind<Account> = CLOSE;

    fn fire(&self, document: &mut Account, unit: &mut Unit<'_>) {
        assert!(document.id != "faulty", "a bug");
        document.value += 1000;
        unit.emit(&Noted { account: document.id.clone(), text: "closed".into() });
    }
}

pub(super) fn planner() -> Planner {
    let mut timing = Timing::default();
    timing.message_retry = Retry { jitter: 0.0, attempts: 3, ..timing.message_retry };
    timing.effect_retry.jitter = 0.0;
    Planner {
        rules: Rules {
            service: SERVICE,
            streams: vec![NOTES],
            max_message: 4096,
            kinds: vec![(PAY.name(), Account::COLLECTION), (CLOSE.name(), Account::COLLECTION)],
            collections: Some(vec![Account::COLLECTION]),
        },
        kinds: Kinds {
            effects: HashMap::from_iter([(PAY.name(), Arc::new(Payout) as Arc<dyn AnyEffect>)]),
            timers: HashMap::from_iter([(CLOSE.name(), Arc::new(Closing) as Arc<dyn AnyTimer>)]),
        },
        timing,
    }
}
