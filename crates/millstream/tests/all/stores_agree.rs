//! The store in memory answers as the one in a file, whatever was done to both.

use std::time::Duration;

use millstream::store::memory::Memory;
use millstream::store::sqlite::SqliteStore;
use millstream::store::{
    Batch, Collection, DocWrite, Entry, Expiry, Floor, IdempotencyKey, Key, NewDoc, Selection, Settled, State, Store,
    Wanted,
};
use millstream::{Id, Timestamp, Wake};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const COLLECTIONS: [Collection; 2] =
    [Collection { name: "orders", indexed: &["owner"] }, Collection { name: "accounts", indexed: &[] }];
const DOCS: [&str; 4] = ["", "a", "b", "é"];
const KINDS: [&str; 3] = ["charge", "charge\0", "deadline"];
const STREAMS: [&str; 3] = ["", "S", "T"];
const CREATED: [&str; 2] = ["monday", "friday"];
const INPUTS: u64 = 8;
const INSTANCES: u64 = 3;
const START: u64 = 1_700_000_000_000;

/// What is done to both stores. Versions are right at the time, or off by `off`.
#[derive(Clone, Debug)]
enum Act {
    Commit {
        instance: u64,
        batch: u64,
        published: u64,
        docs: Vec<Doc>,
        inputs: Vec<Input>,
        keys: Vec<(u8, u64)>,
        now: u64,
    },
    Insert(u64),
    Delete {
        instance: u64,
        off: u64,
    },
    Expire {
        before: u64,
        floors: Vec<Floor>,
        now: u64,
        limit: usize,
    },
    Init(Settled),
    Move(Settled, Settled),
    Clear,
}

#[derive(Clone, Debug)]
struct Doc {
    key: Key,
    off: u64,
    write: Option<NewDoc>,
}

#[derive(Clone, Debug)]
struct Input {
    off: u64,
    entry: Entry,
}

/// What is asked of both after each act, beside all that is there.
#[derive(Clone, Debug)]
struct Asked {
    queries: Vec<Selection>,
    kinds: Vec<&'static str>,
    now: u64,
    limit: usize,
    after: u64,
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(all.to_vec())
}

fn time() -> impl Strategy<Value = u64> {
    (0..INPUTS + 2).prop_map(|n| START + n)
}

fn off() -> impl Strategy<Value = u64> {
    prop_oneof![12 => Just(0), 1 => 1_u64..3]
}

fn instance(n: u64) -> Id {
    Id::derived(Timestamp::from_millis(START), "instance", &n.to_be_bytes(), 0)
}

fn input(n: u64) -> Id {
    Id::derived(Timestamp::from_millis(START + n), "input", &n.to_be_bytes(), 0)
}

fn mark() -> impl Strategy<Value = Settled> {
    (one_of(&STREAMS), 0..6_u64, one_of(&CREATED)).prop_map(|(stream, through, created)| Settled {
        seen: (through % 2 == 0).then_some(through + 1),
        ..Settled::new(stream, created, through)
    })
}

fn floor() -> impl Strategy<Value = Floor> {
    (mark(), time(), time()).prop_map(|(mark, before, until)| Floor {
        stream: mark.stream,
        created: mark.created,
        through: mark.through,
        before: Timestamp::from_millis(before),
        until: Timestamp::from_millis(until),
    })
}

fn body() -> impl Strategy<Value = String> {
    one_of(&[
        r#"{"owner":"ann","city":"Oslo"}"#,
        r#"{"owner":"ann","city":"Rome"}"#,
        r#"{"owner":"bob"}"#,
        r#"{"owner":"1","city":null}"#,
        r#"{"owner":1,"city":true}"#,
        r#"{"owner":{"owner":"ann"},"city":["Oslo"]}"#,
        r#"{"owner":"o'neil \"x\" \u00e9"}"#,
        "{}",
        "[]",
        "7",
    ])
    .prop_map(str::to_owned)
}

fn wake() -> impl Strategy<Value = Wake> {
    (one_of(&KINDS), time(), option::of(time()), 0..3_u32).prop_map(|(kind, at, lease, attempt)| Wake {
        kind: kind.into(),
        opened: Timestamp::from_millis(START),
        at: Timestamp::from_millis(at),
        attempt,
        lease: lease.map(Timestamp::from_millis),
        generation: 1,
        cause: input(0),
        correlation: "c".into(),
        traceparent: None,
    })
}

fn key() -> impl Strategy<Value = Key> {
    (one_of(&COLLECTIONS), one_of(&DOCS))
        .prop_map(|(collection, id)| Key { collection: collection.name, id: id.into() })
}

fn doc() -> impl Strategy<Value = Doc> {
    let write = (1..4_u32, body(), option::of(wake())).prop_map(|(shape, body, wake)| NewDoc {
        shape,
        body: body.into(),
        wake,
    });
    (key(), off(), option::weighted(0.8, write)).prop_map(|(key, off, write)| Doc { key, off, write })
}

fn journal() -> impl Strategy<Value = Input> {
    let state = prop_oneof![1 => Just(State::Open), 4 => Just(State::Done), 1 => Just(State::Parked)];
    let texts = (option::of(one_of(&["", "failed"])), one_of(&["", "emitted"]), option::of(one_of(&["", "reply"])));
    let failures = (0..3_u32, option::of(time()), option::of(time()));
    let from = (prop_oneof![2 => Just(""), 1 => one_of(&STREAMS)], 0..6_u64);
    (0..INPUTS, off(), state, texts, failures, from, time()).prop_map(
        |(n, off, state, (error, emitted, reply), (attempts, first, last), (stream, seq), at)| {
            let entry = Entry {
                id: input(n),
                version: 1,
                state,
                attempts,
                started: attempts / 2,
                redrives: attempts / 3,
                error: error.map(str::to_owned),
                first_failure: first.map(Timestamp::from_millis),
                last_failure: last.map(Timestamp::from_millis),
                emitted: emitted.into(),
                reply: reply.map(Into::into),
                instance: instance(0),
                batch: 0,
                stream: stream.into(),
                seq,
                at: Timestamp::from_millis(at),
            };
            Input { off, entry }
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let keys = vec((0..4_u8, time()), 0..2);
    let commit = (0..INSTANCES, 0..5_u64, 0..5_u64, vec(doc(), 0..4), vec(journal(), 0..4), keys, time()).prop_map(
        |(instance, batch, published, docs, inputs, keys, now)| Act::Commit {
            instance,
            batch,
            published,
            docs,
            inputs,
            keys,
            now,
        },
    );
    // Mostly all is old, and more may go than one call takes: the next must go on after it, and come round.
    let before = prop_oneof![3 => Just(START + INPUTS + 2), 1 => time()];
    let expire = (before, vec(floor(), 0..4), time(), 0..4_usize)
        .prop_map(|(before, floors, now, limit)| Act::Expire { before, floors, now, limit });
    prop_oneof![
        20 => commit,
        5 => (0..INSTANCES).prop_map(Act::Insert),
        1 => (0..INSTANCES, off()).prop_map(|(instance, off)| Act::Delete { instance, off }),
        12 => expire,
        4 => mark().prop_map(Act::Init),
        4 => (mark(), mark()).prop_map(|(from, to)| Act::Move(from, to)),
        1 => Just(Act::Clear),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let filter =
        (one_of(&["owner", "city", "absent"]), one_of(&["ann", "Oslo", "1", "true", "null", "o'neil \"x\" é"]));
    let query = (one_of(&COLLECTIONS), vec(filter, 0..3), option::of(one_of(&DOCS)), any::<bool>(), 0..5_usize)
        .prop_map(|(collection, filters, after, descending, limit)| Selection {
            collection: collection.name,
            filters: filters.into_iter().map(|(field, text)| (field, text.to_owned())).collect(),
            after: after.map(str::to_owned),
            descending,
            limit,
        });
    (vec(query, 1..3), vec(one_of(&KINDS), 0..3), time(), 0..5_usize, 0..5_u64)
        .prop_map(|(queries, kinds, now, limit, after)| Asked { queries, kinds, now, limit, after })
}

#[test]
#[ignore = "long"]
fn the_store_in_memory_answers_as_the_one_in_a_file_whatever_was_done_to_both() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&vec((act(), asked()), 1..60), |acts| runtime.block_on(compare(acts)));
    tried.unwrap();
}

async fn compare(acts: Vec<(Act, Asked)>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteStore::open(&format!("{}/store.db", folder.path().display())).unwrap();
    let mut memory = Memory::default();
    file.prepare(&COLLECTIONS).await.unwrap();
    memory.prepare(&COLLECTIONS);
    for n in 0..INSTANCES - 1 {
        file.insert_instance(instance(n)).await.unwrap();
        memory.insert_instance(instance(n));
    }
    for (act, asked) in acts {
        apply(act, &mut memory, &file).await?;
        ask(asked, &memory, &file).await?;
    }
    Ok(())
}

async fn apply(act: Act, memory: &mut Memory, file: &SqliteStore) -> Result<(), TestCaseError> {
    match act {
        Act::Commit { instance: of, batch, published, docs, inputs, keys, now } => {
            let batch = Batch {
                instance: instance(of),
                batch,
                published_through: published,
                docs: docs.into_iter().map(|doc| expecting(doc, memory)).collect(),
                journal: inputs.into_iter().map(|input| following(input, of, batch, memory)).collect(),
                keys: keys.into_iter().map(|(n, expires)| idempotency_key(n, expires)).collect(),
                now: Timestamp::from_millis(now),
            };
            let committed = file.commit(batch.clone()).await;
            prop_assert_eq!(memory.commit(&batch), committed, "{:?}", batch);
        }
        Act::Insert(n) => {
            file.insert_instance(instance(n)).await.unwrap();
            memory.insert_instance(instance(n));
        }
        Act::Delete { instance: n, off } => {
            let row = memory.instances().into_iter().find(|row| row.id == instance(n));
            let version = row.map_or(0, |row| row.version) + off;
            let deleted = file.delete_instance(instance(n), version).await.unwrap();
            prop_assert_eq!(memory.delete_instance(instance(n), version), deleted);
        }
        Act::Expire { before, floors, now, limit } => {
            let expiry =
                Expiry { before: Timestamp::from_millis(before), floors, now: Timestamp::from_millis(now), limit };
            let gone = file.expire(expiry.clone()).await.unwrap();
            prop_assert_eq!(memory.expire(&expiry), gone, "{:?}", expiry);
        }
        Act::Init(mark) => {
            let held = file.init_settled(mark.clone()).await.unwrap();
            prop_assert_eq!(memory.init_settled(mark), held);
        }
        Act::Move(from, to) => {
            let to = Settled { stream: from.stream.clone(), ..to };
            let moved = file.move_settled(from.clone(), to.clone()).await.unwrap();
            prop_assert_eq!(memory.move_settled(&from, to), moved);
        }
        Act::Clear => {
            file.clear().await.unwrap();
            memory.clear();
        }
    }
    Ok(())
}

/// The write under the version that is there, or under one that is not.
fn expecting(doc: Doc, memory: &Memory) -> DocWrite {
    let there = memory.get(&doc.key).map(|there| there.version);
    let expected = match doc.off {
        0 => there,
        off => there.map_or(Some(off), |version| version.checked_sub(off)),
    };
    DocWrite { key: doc.key, expected, write: doc.write }
}

/// The entry with the version after the one that is there, or with another.
fn following(input: Input, of: u64, batch: u64, memory: &Memory) -> Entry {
    let there = memory.load(&Wanted { journal: vec![input.entry.id], ..Wanted::default() }).journal;
    let version = there.first().map_or(0, |there| there.version) + 1;
    let version = if input.off == 1 { version + 1 } else { version.saturating_sub(input.off) };
    Entry { version, instance: instance(of), batch, ..input.entry }
}

fn idempotency_key(n: u8, expires: u64) -> IdempotencyKey {
    IdempotencyKey {
        hash: [n; 32],
        command: input(expires - START),
        fingerprint: [n; 32],
        expires: Timestamp::from_millis(expires),
    }
}

async fn ask(asked: Asked, memory: &Memory, file: &SqliteStore) -> Result<(), TestCaseError> {
    let docs = COLLECTIONS.iter().flat_map(|of| DOCS.map(|id| Key { collection: of.name, id: id.into() })).collect();
    let all = Wanted { docs, journal: (0..INPUTS).map(input).collect(), keys: (0..4).map(|n| [n; 32]).collect() };
    let (here, there) = (memory.load(&all), file.load(all.clone()).await.unwrap());
    prop_assert_eq!((here.docs, here.journal, here.keys), (there.docs, there.journal, there.keys));
    for key in all.docs {
        prop_assert_eq!(memory.get(&key), file.get(key).await.unwrap());
    }
    prop_assert_eq!(memory.instances(), file.instances().await.unwrap());
    for stream in STREAMS {
        prop_assert_eq!(memory.settled(stream), file.settled(stream).await.unwrap());
    }
    let Asked { queries, kinds, now, limit, after } = asked;
    for query in queries {
        prop_assert_eq!(memory.find(&query), file.find(query.clone()).await.unwrap(), "{:?}", query);
    }
    let now = Timestamp::from_millis(now);
    prop_assert_eq!(memory.due_wakes(&kinds, now, limit), file.due_wakes(&kinds, now, limit).await.unwrap());
    for now in [now, now + Duration::from_secs(1)] {
        let mut counted = file.wakes_due(now).await.unwrap();
        counted.sort_by(|a, b| a.kind.cmp(&b.kind));
        prop_assert_eq!(memory.wakes_due(now), counted);
    }
    for n in 0..INSTANCES {
        let entries = file.unpublished(instance(n), after, limit).await.unwrap();
        prop_assert_eq!(memory.unpublished(instance(n), after, limit), entries);
    }
    prop_assert_eq!(memory.count_unpublished(), file.count_unpublished().await.unwrap());
    Ok(())
}
