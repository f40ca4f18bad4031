//! What is done to both brokers.

use millstream::sim::broker::{Ack, ConsumerConfig, Deliver, Pinned, StreamConfig};

use super::sides::{DURABLE, Step};

fn stream() -> StreamConfig {
    StreamConfig::new("", ">")
}

/// A durable with a short ack wait.
fn reader() -> ConsumerConfig {
    ConsumerConfig::new(DURABLE, 500)
}

fn publish(subject: &'static str) -> Step {
    Step::Publish { subject, headers: vec![], size: 10 }
}

fn publish_with(subject: &'static str, header: &'static str, value: &str) -> Step {
    Step::Publish { subject, headers: vec![(header, value.into())], size: 10 }
}

fn fetch(batch: usize) -> Step {
    Step::Fetch { client: 0, batch }
}

fn pull(client: usize, batch: usize) -> Step {
    Step::Fetch { client, batch }
}

fn ack(nth: usize) -> Step {
    Step::Ack(nth, Ack::Ack)
}

fn nak(nth: usize, delay_ms: impl Into<Option<u64>>) -> Step {
    Step::Ack(nth, Ack::Nak(delay_ms.into()))
}

/// With a stream of so many messages, and the durable.
fn with(messages: usize, config: ConsumerConfig, steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    let mut all = vec![Step::CreateStream(stream()), Step::Create(config)];
    all.extend((0..messages).map(|_| publish("a")));
    all.extend(steps);
    all
}

pub(super) fn histories() -> Vec<(&'static str, Vec<Step>)> {
    let term = |nth| Step::Ack(nth, Ack::Term);
    let in_progress = |nth| Step::Ack(nth, Ack::InProgress);
    let filtered = |filters: &[&str]| ConsumerConfig {
        filter_subjects: filters.iter().map(ToString::to_string).collect(),
        ..reader()
    };
    let from = |seq| ConsumerConfig { deliver: Deliver::ByStartSequence(seq), ..reader() };
    let patient = || ConsumerConfig { ack_wait_ms: 60_000, ..reader() };
    let pinned = |timeout_ms| ConsumerConfig { pinned: Some(Pinned { timeout_ms }), ..patient() };
    let work_queue =
        || StreamConfig { work_queue: true, discard_new: false, max_msgs_per_subject: Some(1), ..stream() };
    let latest = |most| StreamConfig { max_msgs_per_subject: Some(most), allow_message_ttl: true, ..stream() };
    let bounded = |discard_new| StreamConfig { max_bytes: Some(4 * 47), discard_new, ..stream() };
    let window = || StreamConfig { duplicate_window_ms: 2000, ..stream() };
    let id = |id: &str| publish_with("a", "Nats-Msg-Id", id);
    let expecting = |seq: &str| publish_with("a", "Nats-Expected-Last-Subject-Sequence", seq);
    let two = |subjects: [&'static str; 2]| subjects.map(publish);
    let create_stream = || Step::CreateStream(stream());
    vec![
        ("the floor moves over acks without a gap", with(4, patient(), [fetch(4), ack(1), ack(0), ack(3), ack(2)])),
        ("an ack is confirmed twice", with(2, patient(), [fetch(1), ack(0), ack(0), ack(0), fetch(1)])),
        (
            "what is not acked comes again in order",
            with(3, reader(), [fetch(3), ack(1), Step::Wait(600), fetch(5), fetch(5)]),
        ),
        (
            "an ack of an older delivery counts",
            with(2, reader(), [fetch(2), Step::Wait(600), fetch(2), ack(0), ack(3), ack(2)]),
        ),
        (
            "an ack takes a message out of the queue",
            with(2, reader(), [fetch(2), Step::Wait(600), ack(0), fetch(5), ack(1)]),
        ),
        (
            "redeliveries move delivered, and the floor follows",
            with(4, patient(), [fetch(3), nak(1, None), fetch(5), ack(0), ack(2), ack(4), ack(1)]),
        ),
        (
            "naks come in their order and before the rest",
            with(5, patient(), [fetch(3), nak(2, None), nak(0, None), nak(2, None), fetch(4)]),
        ),
        (
            "a nak with a delay comes after it",
            with(3, patient(), [fetch(2), nak(0, 400), fetch(5), Step::Wait(300), fetch(5), ack(3)]),
        ),
        (
            "a delay may be longer than the ack wait",
            with(1, reader(), [fetch(1), nak(0, 900), Step::Wait(600), fetch(1), Step::Wait(300), fetch(1)]),
        ),
        (
            "the last nak counts",
            with(
                2,
                patient(),
                [
                    fetch(2),
                    nak(0, 60_000),
                    nak(0, None),
                    fetch(2),
                    nak(1, None),
                    nak(1, 400),
                    fetch(2),
                    Step::Wait(400),
                    fetch(2),
                ],
            ),
        ),
        ("a delay of nothing is short", with(1, patient(), [fetch(1), nak(0, 0), Step::Wait(100), fetch(1)])),
        (
            "progress begins the wait anew",
            with(
                1,
                reader(),
                [fetch(1), Step::Wait(300), in_progress(0), Step::Wait(250), fetch(1), Step::Wait(400), fetch(1)],
            ),
        ),
        (
            "progress overrides a delay",
            with(1, reader(), [fetch(1), nak(0, 60_000), in_progress(0), Step::Wait(600), fetch(1)]),
        ),
        (
            "progress of what is queued comes too late",
            with(1, patient(), [fetch(1), nak(0, None), in_progress(0), fetch(1)]),
        ),
        ("term is an ack", with(2, patient(), [fetch(2), term(0), term(0), nak(0, None), fetch(2)])),
        (
            "a nak of what is acked is nothing",
            with(2, patient(), [fetch(2), ack(0), nak(0, None), in_progress(0), fetch(2)]),
        ),
        (
            "no more than so many are unacked",
            with(
                5,
                ConsumerConfig { max_ack_pending: 2, ..reader() },
                [fetch(5), fetch(1), ack(0), fetch(5), Step::Wait(600), fetch(5), fetch(5), ack(1), ack(2), fetch(5)],
            ),
        ),
        (
            "a durable is deleted and made anew",
            with(
                3,
                patient(),
                [
                    fetch(2),
                    ack(0),
                    Step::DeleteConsumer,
                    ack(1),
                    fetch(1),
                    Step::Create(from(2)),
                    ack(1),
                    fetch(1),
                    ack(1),
                    ack(0),
                    nak(1, None),
                    fetch(5),
                ],
            ),
        ),
        (
            "an old nak is of no delivery",
            with(
                5,
                patient(),
                [
                    fetch(5),
                    Step::DeleteConsumer,
                    Step::Create(from(4)),
                    fetch(1),
                    nak(4, None),
                    nak(3, None),
                    fetch(1),
                    nak(4, None),
                    fetch(3),
                ],
            ),
        ),
        (
            "a stream is deleted and made anew",
            with(
                2,
                patient(),
                [
                    fetch(2),
                    Step::DeleteStream,
                    publish("a"),
                    fetch(1),
                    ack(0),
                    create_stream(),
                    fetch(1),
                    Step::Create(reader()),
                    publish("a"),
                    ack(0),
                    fetch(1),
                    ack(1),
                    ack(0),
                ],
            ),
        ),
        (
            "creating twice",
            with(
                1,
                patient(),
                [
                    Step::Create(patient()),
                    Step::Create(reader()),
                    Step::CreateStream(stream()),
                    Step::CreateStream(window()),
                    Step::Update(reader()),
                    Step::Update(from(1)),
                ],
            ),
        ),
        ("from a sequence", with(4, from(3), [fetch(5), ack(0)])),
        (
            "from a sequence to come",
            with(
                2,
                from(5),
                [publish("a"), fetch(2), publish("a"), publish("a"), publish("a"), fetch(5), ack(0), ack(1)],
            ),
        ),
        (
            "only what is new",
            vec![
                create_stream(),
                publish("a"),
                publish("a"),
                Step::Create(ConsumerConfig { deliver: Deliver::New, ..patient() }),
                fetch(1),
                publish("a"),
                fetch(1),
                ack(0),
            ],
        ),
        (
            "from the first that is left",
            vec![
                create_stream(),
                publish("a"),
                publish("a"),
                publish("a"),
                Step::Purge(3),
                Step::Create(from(1)),
                fetch(5),
                ack(0),
                Step::Purge(9),
                Step::DeleteConsumer,
                Step::Create(patient()),
                publish("a"),
                fetch(5),
            ],
        ),
        ("filters", {
            let mut steps = with(0, filtered(&["a", "b.>"]), two(["a", "c"]));
            steps.extend(two(["b.x", "b"]));
            steps.extend([
                publish("c"),
                fetch(5),
                ack(1),
                ack(0),
                publish("a"),
                fetch(1),
                publish("c"),
                fetch(1),
                nak(2, None),
                fetch(1),
                ack(3),
            ]);
            steps
        }),
        ("a filter that grows does not go back", {
            let mut steps = with(0, filtered(&["a"]), two(["a", "b"]));
            steps.extend([
                fetch(5),
                Step::Update(filtered(&["a", "b"])),
                fetch(5),
                publish("b"),
                fetch(5),
                ack(0),
                ack(1),
            ]);
            steps
        }),
        ("a filter that grows before the end", {
            let mut steps = with(0, filtered(&["a"]), two(["a", "b"]));
            steps.extend([publish("a"), fetch(1), Step::Update(filtered(&["a", "b"])), fetch(5), ack(0)]);
            steps
        }),
        (
            "a shorter ack wait holds for what is delivered",
            with(1, patient(), [fetch(1), Step::Update(reader()), Step::Wait(700), fetch(1)]),
        ),
        (
            "an id is known for a while",
            vec![
                Step::CreateStream(window()),
                id("one"),
                id("one"),
                id("two"),
                Step::Delete(1),
                id("one"),
                Step::Purge(9),
                id("two"),
                Step::Wait(2300),
                id("one"),
                id("one"),
            ],
        ),
        (
            "a purge of what is acked",
            with(4, patient(), [fetch(3), ack(0), ack(1), Step::Purge(2), Step::Purge(3), ack(2), fetch(5)]),
        ),
        (
            "a purge of what is delivered",
            with(5, patient(), [fetch(4), ack(1), Step::Purge(4), ack(0), ack(3), fetch(5), ack(4)]),
        ),
        ("a purge with a gap below it", with(5, patient(), [fetch(5), ack(1), Step::Purge(3), ack(2), ack(3), ack(4)])),
        (
            "a purge of what is not delivered",
            with(
                5,
                patient(),
                [fetch(1), Step::Purge(4), fetch(5), ack(0), ack(1), ack(2), Step::Purge(100), publish("a"), fetch(5)],
            ),
        ),
        (
            "a purge forgets what was queued",
            with(
                4,
                reader(),
                [fetch(3), nak(2, None), nak(1, None), Step::Purge(2), fetch(1), Step::Wait(600), fetch(5)],
            ),
        ),
        (
            "a message is removed",
            with(
                5,
                patient(),
                [
                    Step::Delete(2),
                    fetch(3),
                    Step::Delete(3),
                    Step::Delete(3),
                    nak(0, None),
                    Step::Delete(1),
                    fetch(5),
                    Step::Delete(5),
                    ack(2),
                ],
            ),
        ),
        (
            "a redelivered message is removed",
            with(3, patient(), [fetch(2), nak(0, None), fetch(1), nak(2, None), Step::Delete(1), fetch(5)]),
        ),
        ("a work queue", {
            let mut steps = vec![Step::CreateStream(work_queue()), Step::Create(from(1)), Step::Create(patient())];
            steps.extend([
                publish("a"),
                publish("b"),
                publish("a"),
                fetch(1),
                publish("b"),
                fetch(5),
                ack(1),
                ack(1),
                ack(0),
                publish("c"),
                fetch(1),
                term(2),
                nak(2, None),
            ]);
            steps
        }),
        ("the ack of a queue counts also when it is not pending", {
            let queue = || StreamConfig { max_msgs_per_subject: None, ..work_queue() };
            let mut steps = vec![Step::CreateStream(queue()), Step::Create(patient()), publish("a"), publish("a")];
            steps.extend([fetch(2), Step::DeleteConsumer, Step::Create(patient()), ack(0), fetch(1), ack(0), ack(1)]);
            steps
        }),
        ("the last of a subject", {
            let mut steps = vec![Step::CreateStream(latest(2)), Step::Create(patient())];
            steps.extend((0..3).flat_map(|_| two(["a", "b"])));
            steps.extend([
                fetch(2),
                publish("a"),
                Step::Last("a"),
                Step::Last("c"),
                Step::Last("*"),
                fetch(9),
                publish("b"),
                ack(0),
                Step::UpdateStream(latest(1)),
                fetch(9),
            ]);
            steps
        }),
        (
            "the sequence of a subject",
            vec![
                Step::CreateStream(latest(1)),
                expecting("0"),
                expecting("0"),
                publish("b"),
                expecting("1"),
                expecting("2"),
                expecting("3"),
            ],
        ),
        (
            "a time to live",
            vec![
                Step::CreateStream(latest(1)),
                Step::Create(patient()),
                publish_with("a", "Nats-TTL", "1s"),
                publish_with("b", "Nats-TTL", "1h"),
                publish_with("c", "Nats-TTL", "soon"),
                fetch(1),
                Step::Wait(3500),
                fetch(5),
                ack(0),
            ],
        ),
        ("no time to live", vec![create_stream(), publish_with("a", "Nats-TTL", "1s"), publish("a")]),
        ("a full stream refuses", {
            let mut steps = vec![Step::CreateStream(bounded(true)), Step::Create(patient())];
            steps.extend((0..6).map(|_| publish("a")));
            steps.extend([Step::Purge(2), id("one"), publish("a")]);
            steps
        }),
        ("a full stream forgets", {
            let mut steps = vec![Step::CreateStream(bounded(false)), Step::Create(patient())];
            steps.extend((0..3).map(|_| publish("a")));
            steps.extend([fetch(2), publish("a"), publish("a"), publish("a"), fetch(5), ack(1)]);
            steps
        }),
        (
            "one is pinned, and the others stand by",
            with(
                6,
                pinned(800),
                [
                    pull(0, 1),
                    pull(1, 1),
                    pull(0, 1),
                    Step::Wait(400),
                    pull(0, 1),
                    Step::Wait(500),
                    pull(1, 1),
                    pull(0, 1),
                    ack(2),
                ],
            ),
        ),
        (
            "a pin runs out",
            with(
                6,
                pinned(600),
                [
                    pull(0, 1),
                    pull(1, 1),
                    Step::Wait(700),
                    pull(1, 1),
                    pull(0, 1),
                    pull(0, 1),
                    Step::Wait(700),
                    pull(0, 1),
                    pull(1, 1),
                    ack(0),
                ],
            ),
        ),
        (
            "nobody is pinned before there is something",
            with(0, pinned(600), [pull(0, 1), pull(1, 1), publish("a"), pull(1, 1), publish("a"), pull(0, 1)]),
        ),
        (
            "an old pin is told when there is something",
            with(1, pinned(400), [pull(0, 1), Step::Wait(500), pull(0, 1), publish("a"), pull(0, 1), pull(0, 1)]),
        ),
        (
            "an empty pull keeps the pin",
            with(
                1,
                pinned(600),
                [pull(0, 1), Step::Wait(350), pull(0, 1), Step::Wait(350), publish("a"), pull(1, 1), pull(0, 1)],
            ),
        ),
        (
            "a pin is taken away",
            with(
                4,
                pinned(60_000),
                [pull(0, 1), Step::Unpin, pull(1, 1), pull(0, 1), pull(0, 1), Step::Unpin, pull(1, 1), pull(0, 1)],
            ),
        ),
        (
            "a reset",
            with(
                5,
                patient(),
                [
                    fetch(3),
                    ack(0),
                    nak(1, None),
                    Step::Reset(None),
                    ack(2),
                    fetch(2),
                    ack(2),
                    Step::Reset(Some(2)),
                    fetch(9),
                    ack(4),
                ],
            ),
        ),
        ("a reset below the start", with(5, from(3), [fetch(1), Step::Reset(Some(4)), fetch(1), ack(1)])),
    ]
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

pub(super) fn random_history(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let config =
        StreamConfig { work_queue: seed % 4 == 1, max_msgs_per_subject: (seed % 4 == 2).then_some(3), ..stream() };
    let filter_subjects = if seed.is_multiple_of(3) { vec!["a".to_owned(), "b".to_owned()] } else { vec![] };
    let max_ack_pending = if seed.is_multiple_of(5) { 3 } else { 1000 };
    let mut steps = vec![
        Step::CreateStream(config),
        Step::Create(ConsumerConfig { filter_subjects, max_ack_pending, ack_wait_ms: 700, ..reader() }),
    ];
    while steps.len() < 42 {
        let back = usize::try_from(random.below(6)).unwrap();
        let size = 1 + usize::try_from(random.below(3)).unwrap();
        steps.push(match random.below(20) {
            0..=5 => publish(["a", "b", "c"][size - 1]),
            6..=9 => fetch(size),
            10..=12 => Step::AckBack(back, Ack::Ack),
            13 => Step::AckBack(back, Ack::Nak(None)),
            14 => Step::AckBack(back, Ack::Nak(Some(300 + 300 * random.below(3)))),
            15 => Step::AckBack(back, Ack::InProgress),
            16 => Step::Wait(100 + 150 * random.below(4)),
            17 => Step::Purge(1 + random.below(6)),
            18 => Step::Delete(1 + random.below(12)),
            _ => Step::Last("a"),
        });
    }
    steps
}
