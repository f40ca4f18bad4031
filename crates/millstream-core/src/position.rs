//! Positions: where a durable goes on reading, decided by what the broker says of the stream and what the database has recorded.
//!
//! A position belongs to a stream, a stretch of time and a database. Each of the three can be put back or made anew without the
//! others: a database from a backup, a stream from a backup, a durable that was deleted. What can be repaired by reading again is
//! repaired that way, because the journal answers what was handled; what cannot is refused. Nothing here does I/O.

use std::fmt;

use crate::ids::Timestamp;
use crate::record::Settled;

/// Where a service begins to read a stream the first time. It belongs to (service, stream) and has no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the stream's first message: for participants of a saga.
    Beginning,
    /// After the stream's last message: for onlookers with effects, who must not mail last week's customers. A stream that this
    /// service has read before and that was recreated is read from its beginning.
    Now,
}

/// A stream as the broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The stream.
    pub stream: String,
    /// Its creation time, which tells one stream from another of the same name.
    pub created: String,
    /// The sequence of its first message; without one, that of the next.
    pub first: u64,
    /// The sequence of its last message so far, whether or not it is still there.
    pub last: u64,
    /// When that was published.
    pub last_at: Timestamp,
    /// The service's durable, if it is there.
    pub durable: Option<Durable>,
}

/// A durable as the broker describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Everything up to here is acked.
    pub floor: u64,
    /// Whether it lacks a filter that this release asks for.
    pub grows: bool,
}

/// What this side knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The database's mark of the stream.
    pub mark: Option<Settled>,
    /// The highest sequence that this very process has handled, while the durable and the database were known to agree.
    pub handled: u64,
    /// Whether this process has declared the durable before: one that lacks a filter now was made anew by an older release.
    pub declared: bool,
}

/// What is to be done before messages are pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The mark is written, then the durable is brought to its place.
    Go {
        /// The mark that holds from now on.
        mark: Settled,
        /// What becomes of the durable.
        durable: Place,
        /// What is to be said about it.
        notes: Vec<Note>,
    },
    /// Reading on would lose or double something, and only its operator can tell which database belongs to it.
    Refuse,
}

/// What becomes of a durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It goes on where it is.
    Keep,
    /// It is not there, and is made to begin with this sequence.
    Make {
        /// The first sequence that it delivers.
        from: u64,
    },
    /// It is deleted, and made anew to begin with this sequence.
    MakeAnew {
        /// The first sequence that it delivers.
        from: u64,
    },
}

/// Something that an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The durable was acked further than the database has recorded.
    Ahead {
        /// What the database has recorded.
        recorded: u64,
        /// What was acked.
        acked: u64,
    },
    /// The stream ends before what was handled of it.
    PutBack {
        /// What was handled.
        handled: u64,
        /// Where it ends.
        last: u64,
    },
    /// The stream was deleted and recreated.
    MadeAnew,
    /// Messages were trimmed, or deleted, before this database recorded them as handled.
    Gone {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// The durable was extended to further types of events, and reads again what came before for the sake of these.
    Grown,
}

impl Note {
    /// How many messages are missing.
    pub fn gone(&self) -> u64 {
        match self {
            Self::Gone { from, to } => to - from + 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead { recorded, acked } => write!(
                f,
                "the durable was acked up to message {acked}, and this database has recorded {recorded}: the messages after \
                 {recorded} are read again, and the journal answers those that were handled"
            ),
            Self::PutBack { handled, last } => write!(
                f,
                "the stream ends with message {last}, and {handled} were handled before: it was restored from a backup, and all \
                 of it is read again"
            ),
            Self::MadeAnew => f.write_str("the stream was deleted and recreated: it is read from its beginning"),
            Self::Gone { from, to } => write!(
                f,
                "messages {from} to {to} are no longer in the stream, and this database has not recorded them as handled"
            ),
            Self::Grown => {
                f.write_str("the durable was extended to further types of events: it reads again what came before")
            }
        }
    }
}

/// Decides where a durable goes on.
pub fn decide(start: Start, found: &Found, known: &Known) -> Decision {
    match &known.mark {
        None if found.durable.is_some() => Decision::Refuse,
        None => first_read(start, found),
        Some(mark) if mark.created != found.created => {
            let mark = Settled::new(&found.stream, &found.created, 0);
            begin_again(found, mark, Note::MadeAnew)
        }
        Some(mark) if found.last < mark.recorded() => {
            let note = Note::PutBack { handled: mark.recorded(), last: found.last };
            begin_again(found, put_back(start, found, mark), note)
        }
        Some(mark) => read_on(start, found, known, mark),
    }
}

fn first_read(start: Start, found: &Found) -> Decision {
    let mark = match start {
        Start::Beginning => Settled::new(&found.stream, &found.created, 0),
        Start::Now => Settled { until: Some(found.last_at), ..Settled::new(&found.stream, &found.created, found.last) },
    };
    let from = mark.next();
    Decision::Go { mark, durable: Place::Make { from }, notes: gone(found, from).into_iter().collect() }
}

/// The mark of a stream that was restored from a backup: it gives sequences again, so only what was published in the time of the
/// mark stays settled.
fn put_back(start: Start, found: &Found, mark: &Settled) -> Settled {
    let through = match (mark.until, start) {
        (Some(_), _) => mark.through,
        (None, Start::Beginning) => 0,
        // What was there before its first start is not to be read now.
        (None, Start::Now) => mark.through.min(found.last),
    };
    Settled { through, seen: Some(0), ..mark.clone() }
}

/// Reads a stream from its first message. Another replica may have brought the durable there.
fn begin_again(found: &Found, mark: Settled, note: Note) -> Decision {
    let from = mark.next();
    let durable = match found.durable {
        None => Place::Make { from },
        Some(_) => Place::MakeAnew { from },
    };
    let notes = [Some(note), gone(found, from)].into_iter().flatten().collect();
    Decision::Go { mark, durable, notes }
}

fn read_on(start: Start, found: &Found, known: &Known, mark: &Settled) -> Decision {
    let recorded = mark.recorded();
    let Some(durable) = found.durable else {
        let from = mark.next();
        let notes = gone(found, recorded + 1).into_iter().collect();
        return Decision::Go { mark: mark.clone(), durable: Place::Make { from }, notes };
    };
    let mut mark = mark.clone();
    let mut notes = vec![];
    let mut from = None;
    if mark.seen.is_none() {
        // A release that did not record it has written the mark: the durable is taken at its word once.
        mark.seen = Some(mark.through.max(durable.floor));
    } else if durable.floor > recorded.max(known.handled) {
        // A floor below the first message was moved there by the trimming, and there is nothing to go back to.
        if durable.floor >= found.first {
            notes.push(Note::Ahead { recorded, acked: durable.floor });
            from = Some(recorded + 1);
        }
        notes.extend(gone(found, recorded + 1));
    }
    if durable.grows {
        notes.push(Note::Grown);
        if start == Start::Now && !known.declared {
            // What came before is not to be read now; an interrupted change must not go back further either.
            let done = durable.floor.min(from.map_or(u64::MAX, |from| from - 1));
            if done > mark.through {
                (mark.through, mark.until) = (done, Some(found.last_at));
            }
        }
        from = Some(mark.next().min(from.unwrap_or(u64::MAX)));
    }
    Decision::Go { mark, durable: from.map_or(Place::Keep, |from| Place::MakeAnew { from }), notes }
}

/// What is missing of what is due.
fn gone(found: &Found, due: u64) -> Option<Note> {
    (found.first > due).then(|| Note::Gone { from: due, to: found.first - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(43_200_000);

    fn found(first: u64, last: u64, floor: Option<u64>) -> Found {
        let durable = floor.map(|floor| Durable { floor, grows: false });
        Found { stream: "S".into(), created: "monday".into(), first, last, last_at: NOON, durable }
    }

    fn growing(mut found: Found) -> Found {
        if let Some(durable) = &mut found.durable {
            durable.grows = true;
        }
        found
    }

    fn mark(through: u64, seen: u64) -> Settled {
        Settled { until: Some(NOON), seen: Some(seen), ..Settled::new("S", "monday", through) }
    }

    fn known(mark: Settled) -> Known {
        Known { mark: Some(mark), ..Known::default() }
    }

    #[track_caller]
    fn go(start: Start, found: &Found, known: &Known) -> (Settled, Place, Vec<Note>) {
        match decide(start, found, known) {
            Decision::Go { mark, durable, notes } => (mark, durable, notes),
            Decision::Refuse => panic!("refused"),
        }
    }

    #[test]
    fn a_first_start_begins_where_the_service_says_and_tells_what_was_trimmed_before_it() {
        let (mark, place, notes) = go(Start::Beginning, &found(1, 100, None), &Known::default());
        assert_eq!((mark.through, mark.seen, place, notes), (0, Some(0), Place::Make { from: 1 }, vec![]));
        let (_, place, notes) = go(Start::Beginning, &found(61, 100, None), &Known::default());
        assert_eq!((place, notes), (Place::Make { from: 1 }, vec![Note::Gone { from: 1, to: 60 }]));
        let (mark, place, notes) = go(Start::Now, &found(61, 100, None), &Known::default());
        assert_eq!((mark.through, mark.until, mark.seen), (100, Some(NOON), Some(100)));
        assert_eq!((place, notes), (Place::Make { from: 101 }, vec![]));
    }

    #[test]
    fn a_durable_that_the_database_has_never_read_is_refused() {
        assert_eq!(decide(Start::Beginning, &found(1, 10, Some(10)), &Known::default()), Decision::Refuse);
    }

    #[test]
    fn a_durable_that_agrees_with_the_database_goes_on() {
        for (floor, seen, handled) in [(20, 20, 0), (15, 20, 0), (25, 20, 25), (0, 0, 0)] {
            let known = Known { handled, ..known(mark(10, seen)) };
            let (after, place, notes) = go(Start::Beginning, &found(1, 30, Some(floor)), &known);
            assert_eq!((after, place, notes), (mark(10, seen), Place::Keep, vec![]), "{floor} {seen} {handled}");
        }
    }

    #[test]
    fn a_durable_ahead_of_its_database_goes_back_to_what_the_database_has_recorded() {
        for start in [Start::Beginning, Start::Now] {
            let (after, place, notes) = go(start, &found(1, 30, Some(20)), &known(mark(5, 10)));
            assert_eq!((after, place), (mark(5, 10), Place::MakeAnew { from: 11 }));
            assert_eq!(notes, [Note::Ahead { recorded: 10, acked: 20 }]);
        }
        let (_, place, notes) = go(Start::Beginning, &found(15, 30, Some(20)), &known(mark(5, 10)));
        assert_eq!(place, Place::MakeAnew { from: 11 });
        assert_eq!(notes, [Note::Ahead { recorded: 10, acked: 20 }, Note::Gone { from: 11, to: 14 }]);
    }

    #[test]
    fn a_floor_that_only_the_trimming_has_moved_is_kept_and_what_is_gone_is_told() {
        let (_, place, notes) = go(Start::Beginning, &found(21, 30, Some(20)), &known(mark(5, 10)));
        assert_eq!((place, notes), (Place::Keep, vec![Note::Gone { from: 11, to: 20 }]));
    }

    #[test]
    fn a_mark_of_a_release_that_recorded_less_takes_the_durable_at_its_word_once() {
        let old = Settled { until: None, seen: None, ..mark(5, 0) };
        let (after, place, notes) = go(Start::Beginning, &found(1, 30, Some(20)), &known(old));
        assert_eq!((after.seen, place, notes), (Some(20), Place::Keep, vec![]));
    }

    #[test]
    fn a_durable_that_is_missing_is_made_after_what_is_settled() {
        let (after, place, notes) = go(Start::Now, &found(1, 30, None), &known(mark(5, 10)));
        assert_eq!((after, place, notes), (mark(5, 10), Place::Make { from: 6 }, vec![]));
        // What is trimmed and recorded as handled is missed by nobody.
        let (_, _, notes) = go(Start::Beginning, &found(11, 30, None), &known(mark(5, 10)));
        assert_eq!(notes, []);
        let (_, _, notes) = go(Start::Beginning, &found(14, 30, None), &known(mark(5, 10)));
        assert_eq!(notes, [Note::Gone { from: 11, to: 13 }]);
    }

    #[test]
    fn a_stream_that_was_made_anew_is_read_from_its_beginning_by_whoever_read_the_one_before() {
        let other = Settled { created: "sunday".into(), ..mark(50, 90) };
        for start in [Start::Beginning, Start::Now] {
            let (after, place, notes) = go(start, &found(1, 8, None), &known(other.clone()));
            assert_eq!(after, Settled::new("S", "monday", 0));
            assert_eq!((place, notes), (Place::Make { from: 1 }, vec![Note::MadeAnew]));
        }
    }

    #[test]
    fn a_stream_that_was_put_back_is_read_again_and_what_is_settled_stays_so_by_its_time() {
        for start in [Start::Beginning, Start::Now] {
            for (durable, place) in [(None, Place::Make { from: 1 }), (Some(3), Place::MakeAnew { from: 1 })] {
                let (after, placed, notes) = go(start, &found(1, 8, durable), &known(mark(20, 25)));
                assert_eq!((after.clone(), placed), (mark(20, 0), place));
                assert_eq!(notes, [Note::PutBack { handled: 25, last: 8 }]);
                assert!(after.covers(4, NOON) && !after.covers(4, Timestamp::from_millis(NOON.millis() + 1)));
                // It is put back once.
                let (again, place, notes) = go(start, &found(1, 8, Some(0)), &known(after));
                assert_eq!((again, place, notes), (mark(20, 0), Place::Keep, vec![]));
            }
        }
        let timeless = Settled { until: None, ..mark(20, 25) };
        assert_eq!(go(Start::Beginning, &found(1, 8, None), &known(timeless.clone())).0.through, 0);
        assert_eq!(go(Start::Now, &found(1, 8, None), &known(timeless)).0.through, 8);
    }

    #[test]
    fn a_filter_that_grows_reads_again_from_what_is_settled_and_an_onlooker_from_its_own_floor() {
        let found = growing(found(1, 30, Some(20)));
        let (after, place, notes) = go(Start::Beginning, &found, &known(mark(5, 20)));
        assert_eq!((after, place, notes), (mark(5, 20), Place::MakeAnew { from: 6 }, vec![Note::Grown]));
        let (after, place, _) = go(Start::Now, &found, &known(mark(5, 20)));
        assert_eq!((after.through, after.until, place), (20, Some(NOON), Place::MakeAnew { from: 21 }));
        // An older release has made it anew beside this one: some of what this one asks for may have gone by.
        let beside = Known { declared: true, ..known(mark(5, 20)) };
        assert_eq!(go(Start::Now, &found, &beside).1, Place::MakeAnew { from: 6 });
        // Ahead of its database as well.
        let (after, place, _) = go(Start::Now, &found, &known(mark(5, 10)));
        assert_eq!((after.through, place), (10, Place::MakeAnew { from: 11 }));
    }
}
