//! What is being published, as a state machine: events of the connection in, messages to send and jobs done out. Times are
//! milliseconds of any clock that never goes back.
//!
//! Messages are sent in order and pipelined. What is not acked within the time-out is sent again, and so is all that is unacked
//! after a reconnect or a refusal: to the broker it is the same message. After a refusal nothing new is sent until the delay is over.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::event::Emitted;
use crate::retry::Retry;

/// Messages that are sent and not yet acked by the broker, by numbers that rise by one; `D` is what is known of a job that is done.
#[derive(Debug)]
pub struct Outbox<D> {
    waiting: VecDeque<Sent<D>>,
    /// The number of the first message waiting.
    first: u64,
    phase: Phase,
    /// Refusals since the last ack.
    refusals: u32,
    /// Whether the next sending again is because of a reconnect, and not of a time-out.
    reconnected: bool,
    timeout: Duration,
    retry: Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Acks are awaited until then.
    Flowing(u64),
    /// A message was refused: nothing new goes out, and at this time all that is unacked does again.
    Held(u64),
}

#[derive(Debug)]
struct Sent<D> {
    /// `None` only keeps a job without messages in its place.
    message: Option<Emitted>,
    acked: bool,
    /// Set on the last message of a job.
    ends: Option<D>,
}

/// What an ack has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Acked<D> {
    /// Messages that are out, in order, with the jobs that ended with them.
    pub out: Vec<(Option<Emitted>, Option<D>)>,
    /// What is to be told.
    pub news: Option<News>,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The broker has refused a message, for the first time since the last ack.
    Refused {
        /// The message's subject.
        subject: String,
        /// What the broker says.
        error: String,
    },
    /// Another refusal in a row.
    RefusedAgain,
    /// Messages go out again.
    Resumed,
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
    pub fn new(timeout: Duration, retry: Retry) -> Self {
        Self {
            waiting: VecDeque::new(),
            first: 0,
            phase: Phase::Flowing(0),
            refusals: 0,
            reconnected: false,
            timeout,
            retry,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a job is taken while at most `limit` messages wait.
    pub fn has_room(&self, limit: usize) -> bool {
        matches!(self.phase, Phase::Flowing(_)) && self.waiting.len() < limit
    }

    /// Takes a job; the messages of these numbers are to be sent now.
    pub fn accept(&mut self, now: u64, messages: Vec<Emitted>, job: D) -> Range<u64> {
        if self.waiting.is_empty() {
            self.phase = Phase::Flowing(self.later(now, self.timeout));
        }
        let start = self.first + self.waiting.len() as u64;
        let (count, mut job) = (messages.len(), Some(job));
        for (index, message) in messages.into_iter().enumerate() {
            let ends = if index + 1 == count { job.take() } else { None };
            self.waiting.push_back(Sent { message: Some(message), acked: false, ends });
        }
        if job.is_some() {
            self.waiting.push_back(Sent { message: None, acked: true, ends: job });
        }
        start..start + count as u64
    }

    /// The message of a number, if it is not acked.
    pub fn message(&self, number: u64) -> Option<&Emitted> {
        self.sent(number)?.message.as_ref()
    }

    fn sent(&self, number: u64) -> Option<&Sent<D>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.waiting.get(index).filter(|sent| !sent.acked)
    }

    /// Takes the broker's answer to a message: an ack, or why it refuses it. An answer to what is acked already changes nothing.
    pub fn answered(&mut self, now: u64, number: u64, answer: Result<(), String>) -> Acked<D> {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(sent) = index.and_then(|index| self.waiting.get_mut(index)) else {
            return Acked { out: vec![], news: None };
        };
        match (answer, self.phase) {
            (Ok(()), phase) => {
                sent.acked = true;
                let out = self.take_out();
                let mut news = None;
                if let (false, Phase::Flowing(_)) = (out.is_empty(), phase) {
                    self.phase = Phase::Flowing(self.later(now, self.timeout));
                    news = (std::mem::take(&mut self.refusals) > 0).then_some(News::Resumed);
                }
                Acked { out, news }
            }
            (Err(error), Phase::Flowing(_)) => {
                let subject = sent.message.as_ref().map_or(String::new(), |message| message.subject.clone());
                self.refusals = self.refusals.saturating_add(1);
                self.phase = Phase::Held(self.later(now, self.retry.delay(self.refusals)));
                let first = self.refusals == 1;
                let news = if first { News::Refused { subject, error } } else { News::RefusedAgain };
                Acked { out: vec![], news: Some(news) }
            }
            // It was sent before the refusal that holds it.
            (Err(_), Phase::Held(_)) => Acked { out: vec![], news: None },
        }
    }

    /// Takes off what is acked at the front.
    pub fn take_out(&mut self) -> Vec<(Option<Emitted>, Option<D>)> {
        let mut out = Vec::new();
        while self.waiting.front().is_some_and(|sent| sent.acked) {
            let Some(Sent { message, ends, .. }) = self.waiting.pop_front() else { break };
            self.first += 1;
            out.push((message, ends));
        }
        out
    }

    /// The connection is back: what is unacked is due at once.
    pub fn reconnected(&mut self, now: u64) {
        self.phase = match self.phase {
            Phase::Flowing(_) => Phase::Flowing(now),
            Phase::Held(_) => Phase::Held(now),
        };
        self.reconnected = true;
    }

    /// When [`Outbox::due`] is to be called; `None` while nothing waits.
    pub fn deadline(&self) -> Option<u64> {
        let (Phase::Flowing(at) | Phase::Held(at)) = self.phase;
        (!self.waiting.is_empty()).then_some(at)
    }

    /// The deadline has passed: all that is unacked is to be sent again, these numbers, in order.
    pub fn due(&mut self, now: u64) -> (Again, Vec<u64>) {
        let held = matches!(self.phase, Phase::Held(_));
        let why = if held || std::mem::take(&mut self.reconnected) { Again::Retry } else { Again::Timeout };
        self.reconnected = false;
        self.phase = Phase::Flowing(self.later(now, self.timeout));
        let unacked = (self.first..).zip(&self.waiting).filter(|(_, sent)| !sent.acked);
        (why, unacked.map(|(number, _)| number).collect())
    }

    fn later(&self, now: u64, delay: Duration) -> u64 {
        now.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { first: Duration::from_millis(50), longest: Duration::from_secs(2), jitter: 0.0, attempts: u32::MAX };

    fn outbox() -> Outbox<&'static str> {
        Outbox::new(Duration::from_secs(5), RETRY)
    }

    fn messages(subjects: &[&str]) -> Vec<Emitted> {
        let message =
            |subject: &&str| Emitted { subject: (*subject).into(), headers: vec![], payload: bytes::Bytes::new() };
        subjects.iter().map(message).collect()
    }

    fn jobs(acked: Acked<&'static str>) -> Vec<&'static str> {
        acked.out.into_iter().filter_map(|(_, job)| job).collect()
    }

    #[test]
    fn a_job_is_done_when_all_before_it_and_all_of_its_own_messages_are_acked() {
        let mut outbox = outbox();
        assert_eq!(outbox.accept(0, messages(&["a", "b"]), "one"), 0..2);
        assert_eq!(outbox.accept(0, messages(&["c"]), "two"), 2..3);
        assert_eq!(jobs(outbox.answered(1, 2, Ok(()))), [""; 0]);
        assert_eq!(jobs(outbox.answered(1, 0, Ok(()))), [""; 0]);
        assert_eq!(jobs(outbox.answered(1, 1, Ok(()))), ["one", "two"]);
        assert!(outbox.is_empty() && outbox.deadline().is_none());
    }

    #[test]
    fn a_job_without_messages_keeps_its_place() {
        let mut outbox = outbox();
        outbox.accept(0, messages(&["a"]), "one");
        assert_eq!(outbox.accept(0, vec![], "empty"), 1..1);
        assert_eq!(jobs(outbox.answered(1, 0, Ok(()))), ["one", "empty"]);
        outbox.accept(2, vec![], "alone");
        assert_eq!(outbox.take_out().into_iter().filter_map(|(_, job)| job).collect::<Vec<_>>(), ["alone"]);
    }

    #[test]
    fn what_is_not_acked_in_time_is_sent_again_in_order_and_acks_put_the_time_off() {
        let mut outbox = outbox();
        outbox.accept(0, messages(&["a", "b", "c"]), "one");
        assert_eq!(outbox.deadline(), Some(5000));
        outbox.answered(3000, 0, Ok(()));
        assert_eq!(outbox.deadline(), Some(8000));
        outbox.answered(3500, 2, Ok(()));
        assert_eq!(outbox.due(8000), (Again::Timeout, vec![1]));
        assert_eq!(outbox.deadline(), Some(13_000));
    }

    #[test]
    fn after_a_refusal_nothing_new_goes_out_until_the_growing_delay_is_over() {
        let mut outbox = outbox();
        outbox.accept(0, messages(&["a", "b"]), "one");
        let refused = outbox.answered(10, 0, Err("no".into())).news;
        assert_eq!(refused, Some(News::Refused { subject: "a".into(), error: "no".into() }));
        assert!(!outbox.has_room(10));
        assert_eq!(outbox.answered(11, 1, Err("no".into())).news, None, "it was sent before the refusal");
        assert_eq!(outbox.deadline(), Some(60));
        assert_eq!(outbox.due(60), (Again::Retry, vec![0, 1]));
        assert!(outbox.has_room(10));
        assert_eq!(outbox.answered(70, 0, Err("no".into())).news, Some(News::RefusedAgain));
        assert_eq!(outbox.deadline(), Some(170), "the second delay is longer");
        outbox.due(170);
        assert_eq!(outbox.answered(180, 0, Ok(())).news, Some(News::Resumed));
        assert_eq!(outbox.answered(181, 1, Ok(())).news, None);
    }

    #[test]
    fn an_ack_while_it_is_held_neither_resumes_it_nor_puts_its_time_off() {
        let mut outbox = outbox();
        outbox.accept(0, messages(&["a", "b"]), "one");
        outbox.answered(10, 1, Err("no".into()));
        assert_eq!(outbox.answered(20, 0, Ok(())).news, None);
        assert_eq!(outbox.deadline(), Some(60));
    }

    #[test]
    fn after_a_reconnect_all_that_is_unacked_goes_out_at_once_and_that_is_no_time_out() {
        let mut outbox = outbox();
        outbox.accept(0, messages(&["a", "b"]), "one");
        outbox.reconnected(100);
        assert_eq!(outbox.deadline(), Some(100));
        assert_eq!(outbox.due(100), (Again::Retry, vec![0, 1]));
        assert_eq!(outbox.due(5100), (Again::Timeout, vec![0, 1]));
    }

    #[test]
    fn an_answer_to_what_is_out_already_changes_nothing() {
        let mut outbox = outbox();
        outbox.accept(0, messages(&["a"]), "one");
        outbox.answered(1, 0, Ok(()));
        for answer in [Ok(()), Err("late".into())] {
            assert_eq!(outbox.answered(2, 0, answer), Acked { out: vec![], news: None });
        }
        assert_eq!(outbox.answered(2, 99, Ok(())), Acked { out: vec![], news: None });
    }
}
