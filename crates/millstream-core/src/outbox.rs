//! What is being published, as a state machine: events of the connection in, messages to send and jobs done out. Times are
//! milliseconds of any clock that never goes back.
//!
//! Messages are sent in order and pipelined. What is not acked within the time-out is sent again, and so is all that is unacked
//! after a reconnect: to the broker it is the same message. A subject whose message is refused, or passed over, is held: what goes
//! there waits, in order, and after a growing delay one message is sent to see whether it is taken now. All other subjects go on.
//! Jobs are done in the order in which they were accepted, so a held message holds up the watermark, and once as much is behind it
//! as may be above the watermark, the service. A job that has no part in the order is done with its own last message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::event::Emitted;
use crate::retry::Retry;

/// Messages that are not yet acked by the broker, by numbers that rise by one; `D` is what is known of a job that is done.
#[derive(Debug)]
pub struct Outbox<D> {
    waiting: VecDeque<Sent<D>>,
    /// The number of the first message waiting.
    first: u64,
    /// Jobs that have no part in the order, by the numbers of their first messages, with how many of theirs are unacked.
    apart: BTreeMap<u64, (usize, D)>,
    /// Those of them that are done and not taken off yet.
    finished: Vec<D>,
    /// What is to be sent, in order.
    ready: VecDeque<u64>,
    /// What was sent and not answered.
    flight: BTreeSet<u64>,
    /// When what is in flight is sent again.
    due: u64,
    /// The last number that was acked since then.
    acked: Option<u64>,
    /// The subjects that are held.
    lanes: BTreeMap<String, Lane>,
    /// When the first of them is tried again, or earlier.
    retry_at: u64,
    /// Whether the next sending again is because of a reconnect, and not of a time-out.
    reconnected: bool,
    limits: Limits,
}

/// How much is sent at once, and when again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages that may be sent and not answered.
    pub in_flight: usize,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How a subject is tried again whose message was refused.
    pub retry: Retry,
}

#[derive(Debug)]
struct Sent<D> {
    /// `None` once it is acked; a job without messages has one without from the beginning.
    message: Option<Emitted>,
    /// Set on the last message of a job.
    ends: Option<D>,
    /// Set on each message of a job that has no part in the order.
    apart: Option<u64>,
}

/// A subject that is held.
#[derive(Debug)]
struct Lane {
    phase: Phase,
    /// Refusals in a row.
    refusals: u32,
    /// What the broker said last.
    error: String,
    /// What waits, in order.
    held: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing goes there until then.
    Until(u64),
    /// This one was sent to see whether it is taken.
    Trying(u64),
}

/// What an answer has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered<D> {
    /// The message that is out now.
    pub out: Option<Emitted>,
    /// The jobs that are done with it, in order.
    pub done: Vec<D>,
    /// What is to be told.
    pub news: Option<News>,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The broker has refused a message, and held nothing else of its kind.
    Refused {
        /// The message's subject.
        subject: String,
        /// What the broker says.
        error: String,
    },
    /// Another refusal of the kind.
    RefusedAgain,
    /// Nothing of the kind is held any more.
    Resumed {
        /// The subject that was the last.
        subject: String,
    },
}

/// Messages that the broker goes on refusing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The subject of one of them.
    pub subject: String,
    /// How many there are whose subjects begin with the same word.
    pub messages: usize,
    /// What the broker says.
    pub error: String,
}

/// Why messages are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No ack came in time.
    Timeout,
    /// After a refusal or a reconnect.
    Retry,
}

impl<D> Outbox<D> {
    /// An outbox that is empty.
    pub fn new(limits: Limits) -> Self {
        Self {
            waiting: VecDeque::new(),
            first: 0,
            apart: BTreeMap::new(),
            finished: vec![],
            ready: VecDeque::new(),
            flight: BTreeSet::new(),
            due: 0,
            acked: None,
            lanes: BTreeMap::new(),
            retry_at: u64::MAX,
            reconnected: false,
            limits,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another job is taken: what is held takes no room.
    pub fn has_room(&self) -> bool {
        self.flight.len() + self.ready.len() < self.limits.in_flight
    }

    /// Takes a job. It is done after all that were taken before.
    pub fn accept(&mut self, messages: Vec<Emitted>, job: D) {
        let (count, mut job) = (messages.len(), Some(job));
        for (index, message) in messages.into_iter().enumerate() {
            let ends = if index + 1 == count { job.take() } else { None };
            self.push(message, ends, None);
        }
        if job.is_some() {
            self.waiting.push_back(Sent { message: None, ends: job, apart: None });
        }
    }

    /// Takes a job that is done as soon as its own messages are out, whatever those before it wait for.
    pub fn accept_apart(&mut self, messages: Vec<Emitted>, job: D) {
        if messages.is_empty() {
            return self.finished.push(job);
        }
        let number = self.next();
        self.apart.insert(number, (messages.len(), job));
        messages.into_iter().for_each(|message| self.push(message, None, Some(number)));
    }

    fn push(&mut self, message: Emitted, ends: Option<D>, apart: Option<u64>) {
        let number = self.next();
        match self.lanes.get_mut(&message.subject) {
            Some(lane) => drop(lane.held.insert(number)),
            None => self.ready.push_back(number),
        }
        self.waiting.push_back(Sent { message: Some(message), ends, apart });
    }

    /// The number that the next message gets.
    pub fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// The unacked messages of jobs that are done in order.
    pub fn ordered(&self) -> impl Iterator<Item = &Emitted> {
        self.waiting.iter().filter(|sent| sent.apart.is_none()).filter_map(|sent| sent.message.as_ref())
    }

    /// What is to be sent now, in order; it counts as sent.
    pub fn send(&mut self, now: u64) -> Vec<u64> {
        let mut numbers = vec![];
        while self.flight.len() < self.limits.in_flight
            && let Some(number) = self.ready.pop_front()
        {
            let Some(Emitted { subject, .. }) = message_of(&self.waiting, self.first, number) else { continue };
            match self.lanes.get_mut(subject) {
                Some(lane) if lane.phase != Phase::Trying(number) => drop(lane.held.insert(number)),
                _ => {
                    if self.flight.is_empty() {
                        self.due = later(now, self.limits.timeout);
                    }
                    self.flight.insert(number);
                    numbers.push(number);
                }
            }
        }
        numbers
    }

    /// The message of a number, if it is not acked.
    pub fn message(&self, number: u64) -> Option<&Emitted> {
        message_of(&self.waiting, self.first, number)
    }

    /// Takes the broker's answer to a message: an ack, or why it refuses it. An answer to what is acked already changes nothing.
    pub fn answered(&mut self, now: u64, number: u64, answer: Result<(), String>) -> Answered<D> {
        if self.message(number).is_none() {
            return Answered { out: None, done: vec![], news: None };
        }
        match answer {
            Ok(()) => self.ack(now, number),
            Err(error) => Answered { out: None, done: vec![], news: self.refuse(now, number, error) },
        }
    }

    fn ack(&mut self, now: u64, number: u64) -> Answered<D> {
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let sent = self.waiting.get_mut(index);
        let apart = sent.as_ref().and_then(|sent| sent.apart);
        let out = sent.and_then(|sent| sent.message.take());
        if let Some(apart) = apart.filter(|_| out.is_some()) {
            self.finish(apart);
        }
        if self.flight.first() == Some(&number) {
            self.due = later(now, self.limits.timeout);
        }
        self.flight.remove(&number);
        self.acked = self.acked.max(Some(number));
        let news = out.as_ref().and_then(|message| self.release(&message.subject, number));
        Answered { out, done: self.done(), news }
    }

    /// A message of a job that has no part in the order is out.
    fn finish(&mut self, apart: u64) {
        let Some((left, _)) = self.apart.get_mut(&apart) else { return };
        *left -= 1;
        if *left == 0 {
            self.finished.extend(self.apart.remove(&apart).map(|(_, job)| job));
        }
    }

    /// A message of a subject is out: if the subject was being tried, all of it goes out again.
    fn release(&mut self, subject: &str, number: u64) -> Option<News> {
        let lane = self.lanes.get_mut(subject)?;
        lane.held.remove(&number);
        if matches!(lane.phase, Phase::Until(_)) && !lane.held.is_empty() {
            return None;
        }
        let lane = self.lanes.remove(subject)?;
        self.ready.extend(lane.held);
        self.is_first_of_kind(subject).then(|| News::Resumed { subject: subject.into() })
    }

    fn refuse(&mut self, now: u64, number: u64, error: String) -> Option<News> {
        self.flight.remove(&number);
        let subject = self.message(number)?.subject.clone();
        let first = self.is_first_of_kind(&subject);
        let fresh = || Lane { phase: Phase::Trying(number), refusals: 0, error: String::new(), held: BTreeSet::new() };
        let lane = self.lanes.entry(subject.clone()).or_insert_with(fresh);
        lane.held.insert(number);
        if matches!(lane.phase, Phase::Until(_)) {
            // It was sent before the refusal that holds it.
            return None;
        }
        lane.refusals = lane.refusals.saturating_add(1);
        lane.error.clone_from(&error);
        let until = later(now, self.limits.retry.delay(lane.refusals));
        lane.phase = Phase::Until(until);
        self.retry_at = self.retry_at.min(until);
        Some(if first { News::Refused { subject, error } } else { News::RefusedAgain })
    }

    /// Whether no subject is held that begins with the same word: a stream that is gone is told of once.
    fn is_first_of_kind(&self, subject: &str) -> bool {
        let kind = kind(subject);
        let below = format!("{kind}.");
        let next = self.lanes.range(below.clone()..).next();
        !self.lanes.contains_key(kind) && next.is_none_or(|(other, _)| !other.starts_with(&below))
    }

    /// Takes off the jobs that are done.
    pub fn done(&mut self) -> Vec<D> {
        let mut done = std::mem::take(&mut self.finished);
        while self.waiting.front().is_some_and(|sent| sent.message.is_none()) {
            let Some(Sent { ends, .. }) = self.waiting.pop_front() else { break };
            self.first += 1;
            done.extend(ends);
        }
        done
    }

    /// The connection is back: what is unacked is due at once.
    pub fn reconnected(&mut self, now: u64) {
        (self.due, self.retry_at) = (now, now);
        for lane in self.lanes.values_mut() {
            if let Phase::Until(until) = &mut lane.phase {
                *until = now;
            }
        }
        self.reconnected = true;
    }

    /// When [`Outbox::again`] is to be called; `None` while there is nothing to be sent again.
    pub fn deadline(&self) -> Option<u64> {
        let flight = (!self.flight.is_empty()).then_some(self.due);
        let held = (!self.lanes.is_empty()).then_some(self.retry_at);
        flight.into_iter().chain(held).min()
    }

    /// The deadline has passed: what is unacked is made ready to be sent again, and of each subject that was held for long enough
    /// one message. Says why, if anything is.
    pub fn again(&mut self, now: u64) -> Option<Again> {
        let mut why = None;
        if !self.flight.is_empty() && self.due <= now {
            let reconnected = std::mem::take(&mut self.reconnected);
            why = Some(if reconnected { Again::Retry } else { Again::Timeout });
            // What the broker has passed over while it took later ones may be something that it never answers.
            let passed = self.acked.filter(|_| !reconnected);
            let mut flight = std::mem::take(&mut self.flight);
            let unanswered = passed.map_or(BTreeSet::new(), |acked| {
                let rest = flight.split_off(&acked);
                std::mem::replace(&mut flight, rest)
            });
            for number in unanswered {
                let error = format!("the broker has not answered within {:?}", self.limits.timeout);
                self.refuse(now, number, error);
            }
            for number in flight.into_iter().rev() {
                self.ready.push_front(number);
            }
            self.acked = None;
        }
        self.reconnected = false;
        if self.retry_at > now {
            return why;
        }
        self.retry_at = u64::MAX;
        for lane in self.lanes.values_mut() {
            match lane.phase {
                Phase::Until(until) if until > now => self.retry_at = self.retry_at.min(until),
                Phase::Until(_) => {
                    let Some(number) = lane.held.pop_first() else { continue };
                    lane.phase = Phase::Trying(number);
                    self.ready.push_back(number);
                    why = why.or(Some(Again::Retry));
                }
                Phase::Trying(_) => {}
            }
        }
        why
    }

    /// What is refused and was refused again: one for all subjects that begin with the same word.
    pub fn held(&self) -> Vec<Held> {
        let mut all: Vec<Held> = vec![];
        for (subject, lane) in self.lanes.iter().filter(|(_, lane)| lane.refusals > 1) {
            let messages = lane.held.len() + usize::from(matches!(lane.phase, Phase::Trying(_)));
            match all.iter_mut().find(|held| kind(&held.subject) == kind(subject)) {
                Some(held) => held.messages += messages,
                None => all.push(Held { subject: subject.clone(), messages, error: lane.error.clone() }),
            }
        }
        all
    }
}

fn message_of<D>(waiting: &VecDeque<Sent<D>>, first: u64, number: u64) -> Option<&Emitted> {
    let index = usize::try_from(number.checked_sub(first)?).ok()?;
    waiting.get(index)?.message.as_ref()
}

/// The word that a subject begins with: the domain, or `dlq`.
fn kind(subject: &str) -> &str {
    subject.split('.').next().unwrap_or_default()
}

fn later(now: u64, delay: Duration) -> u64 {
    now.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { first: Duration::from_millis(50), longest: Duration::from_secs(2), jitter: 0.0, attempts: u32::MAX };
    const LIMITS: Limits = Limits { in_flight: 10, timeout: Duration::from_secs(5), retry: RETRY };
    const NO: Result<(), &str> = Err("no");

    /// An outbox that has sent a job with these subjects.
    fn sent(subjects: &[&str]) -> Outbox<&'static str> {
        let mut outbox = Outbox::new(LIMITS);
        outbox.accept(messages(subjects), "one");
        assert_eq!(outbox.send(0), (0..subjects.len() as u64).collect::<Vec<_>>());
        outbox
    }

    fn messages(subjects: &[&str]) -> Vec<Emitted> {
        let message =
            |subject: &&str| Emitted { subject: (*subject).into(), headers: vec![], payload: bytes::Bytes::new() };
        subjects.iter().map(message).collect()
    }

    impl Outbox<&'static str> {
        fn answer(&mut self, now: u64, number: u64, answer: Result<(), &str>) -> (Vec<&'static str>, Option<News>) {
            let Answered { done, news, .. } = self.answered(now, number, answer.map_err(Into::into));
            (done, news)
        }

        /// What is sent when the deadline has passed.
        fn after(&mut self, now: u64) -> (Option<Again>, Vec<u64>) {
            (self.again(now), self.send(now))
        }
    }

    #[test]
    fn a_job_is_done_when_all_before_it_and_all_of_its_own_messages_are_acked() {
        let mut outbox = sent(&["a", "b"]);
        outbox.accept(messages(&["c"]), "two");
        assert_eq!(outbox.send(0), [2]);
        assert_eq!(outbox.answer(1, 2, Ok(())).0, [""; 0]);
        assert_eq!(outbox.answer(1, 0, Ok(())).0, [""; 0]);
        assert_eq!(outbox.answer(1, 1, Ok(())).0, ["one", "two"]);
        assert!(outbox.is_empty() && outbox.deadline().is_none());
    }

    #[test]
    fn a_job_that_has_no_part_in_the_order_is_done_with_its_own_messages() {
        let mut outbox = sent(&["a"]);
        outbox.accept_apart(messages(&["b", "c"]), "apart");
        outbox.accept(messages(&["d"]), "two");
        assert_eq!(outbox.send(0), [1, 2, 3]);
        // The first one is held, and with it those that are done in order.
        assert_eq!(outbox.answer(1, 0, NO).0, [""; 0]);
        assert_eq!(outbox.answer(1, 3, Ok(())).0, [""; 0]);
        assert_eq!(outbox.answer(1, 1, Ok(())).0, [""; 0]);
        assert_eq!(outbox.answer(1, 1, Ok(())).0, [""; 0], "an ack that comes twice counts once");
        assert_eq!(outbox.answer(1, 2, Ok(())).0, ["apart"]);
        assert_eq!(outbox.after(51).1, [0]);
        assert_eq!(outbox.answer(52, 0, Ok(())).0, ["one", "two"]);
        assert!(outbox.is_empty());
        outbox.accept_apart(vec![], "nothing");
        assert_eq!(outbox.done(), ["nothing"]);
    }

    #[test]
    fn a_job_without_messages_keeps_its_place() {
        let mut outbox = sent(&["a"]);
        outbox.accept(vec![], "empty");
        assert_eq!(outbox.answer(1, 0, Ok(())).0, ["one", "empty"]);
        outbox.accept(vec![], "alone");
        assert_eq!(outbox.done(), ["alone"]);
    }

    #[test]
    fn what_is_not_acked_in_time_is_sent_again_in_order_and_acks_of_the_oldest_put_the_time_off() {
        let mut outbox = sent(&["a", "b", "c"]);
        assert_eq!(outbox.deadline(), Some(5000));
        outbox.answer(3000, 0, Ok(())).0.clear();
        assert_eq!(outbox.deadline(), Some(8000));
        assert_eq!(outbox.after(8000), (Some(Again::Timeout), vec![1, 2]));
        assert_eq!(outbox.deadline(), Some(13_000));
    }

    #[test]
    fn no_more_is_sent_at_once_than_the_limit_and_what_is_held_takes_no_room() {
        let mut outbox = sent(&["dlq.a"; 10]);
        outbox.accept(messages(&["a.b"; 3]), "two");
        assert!(!outbox.has_room());
        assert_eq!(outbox.send(0), [0; 0]);
        (0..10).for_each(|number| drop(outbox.answer(1, number, NO)));
        assert!(outbox.has_room());
        assert_eq!(outbox.send(1), [10, 11, 12]);
    }

    #[test]
    fn a_refused_subject_holds_up_itself_and_not_the_others_and_jobs_stay_in_order() {
        let mut outbox = sent(&["dlq.x", "a.b"]);
        let refused = outbox.answer(10, 0, NO).1;
        assert_eq!(refused, Some(News::Refused { subject: "dlq.x".into(), error: "no".into() }));
        for job in 0..3000_u64 {
            outbox.accept(messages(&["a.b", "a.c"]), "more");
            outbox.accept(messages(&["dlq.x"]), "letter");
            let numbers = outbox.send(11);
            assert_eq!(numbers.len(), 2, "after {job} jobs, what is held is not sent");
            for number in numbers {
                assert_eq!(outbox.answer(12, number, Ok(())), (vec![], None));
            }
        }
        outbox.answer(13, 1, Ok(()));
        assert_eq!(outbox.after(60), (Some(Again::Retry), vec![0]), "one message goes to see whether it is taken");
        let (done, news) = outbox.answer(61, 0, Ok(()));
        assert_eq!((done, news), (vec!["one", "more"], Some(News::Resumed { subject: "dlq.x".into() })));
        let mut done = 0;
        while !outbox.is_empty() {
            let numbers = outbox.send(62);
            assert!(numbers.len() <= 10);
            done += numbers.into_iter().map(|number| outbox.answer(63, number, Ok(())).0.len()).sum::<usize>();
        }
        assert_eq!(done, 5999);
    }

    #[test]
    fn a_refused_subject_is_tried_again_with_growing_delays_and_told_of_once() {
        let mut outbox = sent(&["a.x", "a.x", "a.y"]);
        assert!(matches!(outbox.answer(10, 0, NO).1, Some(News::Refused { .. })));
        assert_eq!(outbox.answer(11, 1, NO).1, None, "it was sent before the refusal");
        assert_eq!(outbox.answer(11, 2, NO).1, Some(News::RefusedAgain), "its stream is the same");
        assert_eq!(outbox.deadline(), Some(60));
        assert_eq!(outbox.after(60), (Some(Again::Retry), vec![0]));
        assert_eq!(outbox.held(), [], "once may be a moment's");
        assert_eq!(outbox.answer(70, 0, NO).1, Some(News::RefusedAgain));
        let held = Held { subject: "a.x".into(), messages: 2, error: "no".into() };
        assert_eq!(outbox.held(), [held]);
        assert_eq!(outbox.after(61), (Some(Again::Retry), vec![2]));
        outbox.answer(71, 2, Ok(()));
        assert_eq!(outbox.deadline(), Some(170), "the second delay is longer");
        assert_eq!(outbox.after(170), (Some(Again::Retry), vec![0]));
        assert!(matches!(outbox.answer(180, 0, Ok(())).1, Some(News::Resumed { .. })));
        assert_eq!(outbox.send(180), [1]);
        assert_eq!((outbox.answer(181, 1, Ok(())), outbox.held()), ((vec!["one"], None), vec![]));
    }

    #[test]
    fn an_ack_while_its_subject_is_held_does_not_resume_it() {
        let mut outbox = sent(&["a", "a"]);
        outbox.answer(10, 1, NO);
        assert_eq!(outbox.answer(20, 0, Ok(())).1, None);
        assert_eq!(outbox.deadline(), Some(60));
    }

    #[test]
    fn what_the_broker_passes_over_is_held_like_what_it_refuses() {
        let mut outbox = sent(&["secret", "a", "b"]);
        outbox.answer(10, 1, Ok(()));
        assert_eq!(outbox.after(5000), (Some(Again::Timeout), vec![2]));
        assert_eq!(outbox.deadline(), Some(5050));
        assert_eq!(outbox.after(5050), (Some(Again::Retry), vec![0]));
    }

    #[test]
    fn after_a_reconnect_all_that_is_unacked_goes_out_at_once_and_that_is_no_time_out() {
        let mut outbox = sent(&["a", "b", "c"]);
        outbox.answer(10, 2, NO);
        outbox.answer(10, 1, Ok(()));
        outbox.reconnected(20);
        assert_eq!(outbox.deadline(), Some(20));
        assert_eq!(outbox.after(20), (Some(Again::Retry), vec![0, 2]));
        assert_eq!(outbox.after(5020), (Some(Again::Timeout), vec![0, 2]));
    }

    #[test]
    fn an_answer_to_what_is_out_already_changes_nothing() {
        let mut outbox = sent(&["a"]);
        outbox.answer(1, 0, Ok(()));
        for (number, answer) in [(0, Ok(())), (0, NO), (99, Ok(()))] {
            assert_eq!(outbox.answer(2, number, answer), (vec![], None));
        }
    }
}
