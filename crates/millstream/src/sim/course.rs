//! What happens in a world: one action after the other as the seed chooses, and then what is left, until it is at rest.

use std::fmt::Write as _;

use millstream_core::planner::{
    CommandFailure, CommandInput, Decoder, Delivery, End, Idempotency, Incoming, Input, Reply,
};
use millstream_core::position::{Decision, Durable, Found, Known, Place, decide};
use sha2::{Digest, Sha256};

use crate::event::{Emitted, Meta, header};
use crate::ids::Timestamp;
use crate::sim::app::App;
use crate::sim::broker::{Ack, ConsumerConfig, Deliver, Pull, SimBroker};
use crate::sim::faults::Faults;
use crate::sim::replica::{Arrival, Done, Fortune, Receipt, Replica, millis};
use crate::sim::tails::streams;
use crate::sim::world::Sim;
use crate::store::{Expiry, Floor, Settled};

/// Steps after which a world that is left alone counts as one that does not come to rest.
const RESTLESS: usize = 200_000;

impl Sim {
    /// Lets so many actions happen, with what may go wrong.
    ///
    /// # Errors
    /// When a handler is found to be broken.
    pub fn run(&mut self, actions: usize) -> Result<(), String> {
        self.start_all();
        for action in 0..actions {
            let due = self.acts.extract_if(.., |(at, _)| *at == action).collect::<Vec<_>>();
            due.into_iter().for_each(|(_, act)| act(self));
            self.action();
        }
        Ok(())
    }

    /// Lets the world come to rest, without further faults: every message is handled, every call answered, every effect run, and
    /// every due time has come.
    ///
    /// # Errors
    /// When it does not.
    pub fn settle(&mut self) -> Result<(), String> {
        self.faults = Faults { skew_ms: self.faults.skew_ms, ..Faults::none() };
        self.frozen.clear();
        self.start_all();
        let mut steps = 0;
        while steps < RESTLESS {
            let before = steps;
            for app in 0..self.apps.len() {
                let within = self.apps[app].within;
                for replica in 0..self.apps[app].replicas.len() {
                    within(&mut || steps += self.work_off(app, replica));
                }
            }
            for call in 0..self.calls.len() {
                steps += usize::from(self.ask(call));
            }
            if steps > before {
                self.now += 1;
                continue;
            }
            match self.next_moment() {
                Some(moment) => self.now = moment.max(self.now + 1),
                None => return Ok(()),
            }
            steps += 1;
        }
        let mut what = String::from("it does not come to rest:");
        for app in &self.apps {
            for replica in app.replicas.iter().flatten() {
                let _ = write!(what, " {} idle={} outbox={};", app.name, replica.is_idle(), replica.outbox.len());
            }
        }
        Err(what)
    }

    /// When something happens next by itself, if there is anything that is not over.
    fn next_moment(&mut self) -> Option<u64> {
        let mut next: Option<u64> = None;
        let mut consider = |at: u64| next = Some(next.map_or(at, |next| next.min(at)));
        let waits = |broker: &mut SimBroker, now: u64, stream: &str, durable: &str| {
            broker
                .consumer_info(now, stream, durable)
                .is_ok_and(|info| info.num_pending > 0 || info.num_ack_pending > 0)
        };
        for app in &self.apps {
            for feed in &app.feeds {
                if waits(&mut self.broker, self.now, feed.decoder.stream, app.name) {
                    consider(self.broker.next_change().unwrap_or(self.now + 1000).max(self.now + 100));
                }
            }
            let mut wakes = app.planner.kinds.names().collect::<Vec<_>>();
            wakes.dedup();
            let skew = app.replicas.iter().flatten().map(|replica| replica.skew_ms).max().unwrap_or_default();
            if let Some(doc) = app.store.due_wakes(&wakes, Timestamp::from_millis(u64::MAX / 2), 1).first()
                && let Some(wake) = &doc.wake
            {
                consider(wake.at.millis().saturating_add_signed(-skew).max(self.now + 250));
            }
            let own = |id| app.replicas.iter().flatten().any(|replica| replica.instance == id);
            if app.store.instances().iter().any(|row| !own(row.id)) {
                consider(self.now + 1000);
            }
            if app.replicas.iter().flatten().any(|replica| !replica.is_idle()) {
                consider(self.now + 1);
            }
        }
        if self.calls.iter().any(|call| call.answer.is_none()) {
            consider(self.now + 500);
        }
        next
    }

    /// Everything that a replica can do now; says how much it was.
    fn work_off(&mut self, app: usize, replica: usize) -> usize {
        let mut steps = self.fetch(app, replica, usize::MAX);
        self.sweep(app, replica);
        self.heartbeat(app, replica);
        while let Some(state) = &self.apps[app].replicas[replica]
            && !state.is_idle()
            && steps < RESTLESS
        {
            self.step(app, replica, usize::MAX);
            self.publish_step(app, replica);
            self.run_effect(app, replica);
            steps += 1;
        }
        steps
    }

    fn start_all(&mut self) {
        for app in 0..self.apps.len() {
            for replica in 0..self.apps[app].replicas.len() {
                self.start(app, replica);
            }
        }
    }

    fn start(&mut self, index: usize, replica: usize) {
        if self.apps[index].replicas[replica].is_some() {
            return;
        }
        let id = self.id("instance");
        let skew = i64::try_from(self.random.below(usize::try_from(self.faults.skew_ms).unwrap_or(0) * 2 + 1));
        let skew = skew.unwrap_or_default() - i64::try_from(self.faults.skew_ms).unwrap_or_default();
        let app = &mut self.apps[index];
        let mut state = Replica::start(app, self.now, id, skew);
        declare(app, &mut self.broker, self.now, &mut state);
        state.connection = self.connection;
        app.replicas[replica] = Some(state);
    }

    /// One action, chosen by the seed.
    fn action(&mut self) {
        if !self.operators.is_empty() && self.random.per_mille(60) {
            return self.operate();
        }
        let app = self.random.below(self.apps.len());
        let replica = self.random.below(self.apps[app].replicas.len());
        let kind = self.random.below(100);
        if self.frozen.iter().any(|frozen| (frozen.0, frozen.1) == (app, replica) && frozen.2 > self.now) {
            self.now += 1;
            return;
        }
        if self.random.per_mille(self.faults.kill) && self.apps[app].replicas[replica].is_some() {
            self.note(app, replica, "killed");
            self.apps[app].replicas[replica] = None;
            return;
        }
        if self.random.per_mille(self.faults.freeze) {
            let until = self.now + 1 + self.random.next() % 40_000;
            self.note(app, replica, "left alone");
            self.frozen.retain(|frozen| (frozen.0, frozen.1) != (app, replica));
            self.frozen.push((app, replica, until));
        }
        if self.random.per_mille(self.faults.consumer) {
            self.disturb(app);
        }
        if self.random.per_mille(self.faults.lost_tail) {
            self.forget(app);
        }
        if self.apps[app].replicas[replica].is_none() {
            return self.start(app, replica);
        }
        match kind {
            0..30 => {
                let take = 1 + self.random.below(8);
                self.step(app, replica, take);
            }
            30..48 => {
                let batch = 1 + self.random.below(6);
                self.fetch(app, replica, batch);
            }
            48..68 => self.publish_step(app, replica),
            68..76 => self.run_effect(app, replica),
            76..82 => self.sweep(app, replica),
            82..86 => self.heartbeat(app, replica),
            86..92 => {
                if !self.calls.is_empty() {
                    let call = self.random.below(self.calls.len());
                    self.ask(call);
                }
            }
            92..99 => self.now += self.random.next() % 700,
            _ => {
                self.now += self.random.next() % 15_000;
                self.expire(app);
            }
        }
    }

    fn note(&mut self, app: usize, replica: usize, what: &str) {
        let line = format!("{} {} {replica}: {what}", Timestamp::from_millis(self.now), self.apps[app].name);
        self.log.push(line);
    }

    fn step(&mut self, app: usize, replica: usize, take: usize) {
        let fortune = match self.random.below(4) {
            _ if !self.random.per_mille(self.faults.commit) => Fortune::Fine,
            0 => Fortune::Busy,
            1 => Fortune::Away,
            2 => Fortune::Unseen,
            _ => Fortune::Unsaid,
        };
        let lost = self.random.per_mille(self.faults.lost_ack);
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        let done = state.step(&mut self.apps[app], self.now, take, fortune);
        self.apps[app].replicas[replica] = Some(state);
        if fortune != Fortune::Fine {
            self.note(app, replica, &format!("step, the store is {fortune:?}"));
        }
        match done {
            Done::Nothing => {}
            Done::Acked(_, connection, _) if connection != self.connection => {}
            Done::Acked(token, _, ack) => {
                if lost {
                    self.note(app, replica, "an ack is lost");
                } else {
                    self.broker.ack(self.now, &token, ack);
                }
            }
            Done::Answered(call, end) => {
                if let (End::Answer(answer), false) = (end, lost) {
                    self.answered(call, answer);
                }
            }
        }
    }

    fn answered(&mut self, call: usize, answer: Result<Reply, CommandFailure>) {
        let call = &mut self.calls[call];
        call.since = None;
        match answer {
            // A caller without a key cannot ask again.
            Err(CommandFailure::Unavailable(_) | CommandFailure::OutcomeUnknown) if call.key.is_some() => {}
            answer => drop(call.answer.get_or_insert(answer)),
        }
    }

    /// Lets a caller ask; says whether it did.
    fn ask(&mut self, call: usize) -> bool {
        let asked = &self.calls[call];
        let waits = asked.since.is_some_and(|since| self.now < since + 2000);
        if asked.answer.is_some() || waits || (asked.since.is_some() && asked.key.is_none()) {
            return false;
        }
        let app = asked.service;
        let replicas = self.apps[app].replicas.len();
        let replica = self.random.below(replicas);
        let id = self.id("command");
        let Some(state) = &mut self.apps[app].replicas[replica] else { return false };
        let asked = &mut self.calls[call];
        let idempotency = asked
            .key
            .as_ref()
            .map(|key| Idempotency { hash: Sha256::digest(key).into(), fingerprint: asked.fingerprint });
        asked.tries += 1;
        asked.since = Some(self.now);
        let meta = Meta {
            id,
            time: Timestamp::from_millis(self.now),
            correlation: id.to_string(),
            causation: None,
            traceparent: None,
        };
        let input = CommandInput { id, meta, work: (asked.work)(id), idempotency };
        state.inbox.push_back(Arrival { input: Input::Command(Box::new(input)), receipt: Receipt::Call(call) });
        true
    }

    /// Fetches from each stream; says how many messages came.
    fn fetch(&mut self, index: usize, replica: usize, batch: usize) -> usize {
        let app = &mut self.apps[index];
        let Some(mut state) = app.replicas[replica].take() else { return 0 };
        let mut came = 0;
        let mut lost = false;
        if state.connection != self.connection {
            declare(app, &mut self.broker, self.now, &mut state);
            state.connection = self.connection;
        }
        for feed in &app.feeds {
            let pull = Pull::of(batch.min(64));
            let Ok(deliveries) = self.broker.fetch(self.now, feed.decoder.stream, app.name, pull) else {
                lost = true;
                continue;
            };
            for delivery in deliveries {
                let Some(decoded) = decode(&feed.decoder, &delivery) else {
                    self.broker.ack(self.now, &delivery.token, Ack::Term);
                    continue;
                };
                came += 1;
                let input = Input::Message(Box::new(decoded));
                state.inbox.push_back(Arrival { input, receipt: Receipt::Message(delivery.token, self.connection) });
            }
        }
        if lost {
            declare(app, &mut self.broker, self.now, &mut state);
        }
        app.replicas[replica] = Some(state);
        came
    }

    fn publish_step(&mut self, app: usize, replica: usize) {
        let lost = self.random.per_mille(self.faults.lost_publish_ack);
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        state.publish(&mut self.apps[app], &mut self.broker, self.now, lost, self.connection);
        self.apps[app].replicas[replica] = Some(state);
    }

    fn run_effect(&mut self, app: usize, replica: usize) {
        let lost = self.random.per_mille(self.faults.lost_outcome);
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        if !state.running.is_empty() {
            let index = self.random.below(state.running.len());
            state.run_effect(&self.apps[app], index, lost);
        }
        self.apps[app].replicas[replica] = Some(state);
    }

    fn heartbeat(&mut self, app: usize, replica: usize) {
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        if !state.is_busy() {
            state.heartbeat(&mut self.apps[app], self.now);
        }
        state.look_at_tails(&mut self.apps[app], &mut self.broker, self.now, self.connection);
        let App { name, feeds, store, .. } = &mut self.apps[app];
        for stream in feeds.iter().map(|feed| feed.decoder.stream) {
            if let (Ok(info), Some(mark)) = (self.broker.consumer_info(self.now, stream, name), store.settled(stream)) {
                let seen = Some(mark.recorded().max(info.ack_floor.stream));
                store.move_settled(&mark, Settled { seen, ..mark.clone() });
            }
        }
        self.apps[app].replicas[replica] = Some(state);
    }

    fn sweep(&mut self, index: usize, replica: usize) {
        let patience = millis(self.timing.deadline_patience);
        let app = &mut self.apps[index];
        let Some(mut state) = app.replicas[replica].take() else { return };
        let mut drained = !state.holds_messages();
        for feed in &app.feeds {
            let info = self.broker.consumer_info(self.now, feed.decoder.stream, app.name);
            drained &= info.is_ok_and(|info| info.num_pending == 0 && info.num_ack_pending == 0);
        }
        let may_fire = drained || self.now >= state.started + patience;
        state.sweep_wakes(app, self.now, may_fire);
        state.sweep_instances(app, self.now);
        app.replicas[replica] = Some(state);
    }

    /// Deletes old journal entries.
    fn expire(&mut self, index: usize) {
        let now = Timestamp::from_millis(self.now);
        let before = now - self.timing.journal_retention;
        let app = &mut self.apps[index];
        let mut floors = Vec::new();
        for feed in app.feeds.iter().filter(|feed| feed.start.is_some()) {
            let Ok(info) = self.broker.consumer_info(self.now, feed.decoder.stream, app.name) else { continue };
            let created = self.broker.stream_info(self.now, feed.decoder.stream).map_or(0, |info| info.created);
            floors.push(Floor {
                stream: feed.decoder.stream.into(),
                through: info.ack_floor.stream,
                created: created.to_string(),
                before,
                until: before + self.timing.journal_retention / 2,
            });
        }
        let expiry = Expiry { before, floors, now, limit: 1000 };
        app.store.expire(&expiry);
        for state in app.replicas.iter_mut().flatten() {
            for mark in state.marks.values_mut() {
                if let Some(later) = app.store.settled(&mark.stream) {
                    *mark = later;
                }
            }
        }
    }

    /// Lets the broker come back without some of the last messages that a service has published to a stream.
    fn forget(&mut self, index: usize) {
        let app = &self.apps[index];
        let streams = streams(app);
        let (stream, _) = &streams[self.random.below(streams.len())];
        let most = 1 + self.random.below(8) as u64;
        let last = self.broker.stream_info(self.now, stream).map_or(0, |info| info.last_seq);
        let mut messages = 0;
        // What others have published there nobody would publish again.
        while messages < most.min(last)
            && let Ok(message) = self.broker.get(self.now, stream, last - messages)
            && message.header(header::SOURCE) != Some("sim")
        {
            messages += 1;
        }
        let stream = stream.clone();
        self.lose_tail(&stream, messages);
        self.note(index, 0, &format!("the broker forgets {messages} of {stream}"));
    }

    /// Deletes a durable: made anew, it begins after the mark again.
    fn disturb(&mut self, index: usize) {
        let app = &self.apps[index];
        let feed = &app.feeds[self.random.below(app.feeds.len())];
        let (stream, name) = (feed.decoder.stream, app.name);
        if self.broker.delete_consumer(self.now, stream, name).is_ok() {
            self.note(index, 0, &format!("the durable on {stream} is deleted"));
        }
    }
}

/// Makes the durables of a service, each from the message after its mark, which is in the database first.
fn declare(app: &mut App, broker: &mut SimBroker, now: u64, state: &mut Replica) {
    let App { name, planner, feeds, store, .. } = app;
    for feed in feeds {
        let stream = feed.decoder.stream;
        let Ok(info) = broker.stream_info(now, stream) else { continue };
        let mut config = ConsumerConfig::new(*name, millis(planner.timing.ack_wait));
        config.filter_subjects = feed.filters.clone();
        let existing = broker.consumer_info(now, stream, name).ok();
        let mut place = if existing.is_some() { Place::Keep } else { Place::Make { from: 1 } };
        if let Some(start) = feed.start {
            let found = Found {
                stream: stream.into(),
                created: info.created.to_string(),
                first: info.first_seq,
                last: info.last_seq,
                last_at: Timestamp::from_millis(now),
                durable: existing.map(|info| Durable { floor: info.ack_floor.stream, grows: false }),
            };
            let known = Known { mark: store.settled(stream), ..Known::default() };
            let Decision::Go { mark, durable, .. } = decide(start, &found, &known) else { continue };
            match known.mark {
                Some(known) if known.created == mark.created => drop(store.move_settled(&known, mark.clone())),
                _ => drop(store.init_settled(mark.clone())),
            }
            state.marks.insert(stream, mark);
            place = durable;
        }
        if let Place::MakeAnew { .. } = place {
            // It was just seen to be there.
            let _ = broker.delete_consumer(now, stream, name);
        }
        if let Place::Make { from } | Place::MakeAnew { from } = place {
            if feed.start.is_some() {
                config.deliver = Deliver::ByStartSequence(from);
            }
            // It was just seen not to be there.
            let _ = broker.create_consumer(now, stream, config);
        }
    }
}

fn decode(decoder: &Decoder, delivery: &crate::sim::broker::Delivery) -> Option<Delivery> {
    let message = &delivery.message;
    let wire = Emitted {
        subject: message.subject.clone(),
        headers: message.headers.clone(),
        payload: message.payload.clone(),
    };
    decoder.decode(Incoming {
        seq: message.seq,
        delivered: i64::try_from(delivery.delivered).unwrap_or(i64::MAX),
        given_before: false,
        published: Timestamp::from_millis(message.time),
        payload: message.payload.clone(),
        wire: Box::new(wire),
    })
}
