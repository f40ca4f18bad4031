//! Old entries go in small chunks.
//!
//! Ids sort by time, so the search walks the journal from its start. What stays behind there (parked, open, not acked yet) must
//! not be walked through by every call: one looks at a bounded number of entries, and the next goes on after them. An entry
//! whose id is from a clock that ran ahead stays until that time has come.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};

use super::commit::code;
use super::read::{id_at, uint};
use super::schema::int;
use super::session::{Failure, Session, write};
use crate::ids::{Id, Timestamp};
use crate::store::{CommitError, Expiry, Floor, State, StoreError};

/// How many entries a call looks at: some ten milliseconds.
const LOOKED_AT: usize = 4_096;

struct Found {
    id: Id,
    stream: String,
    seq: u64,
    at: Timestamp,
    may_go: bool,
    /// The creation time of the stream that has the mark.
    created: Option<String>,
}

impl Session {
    /// Nothing expires while another writer is in the way: the next call will do.
    pub(super) fn expire(&mut self, expiry: &Expiry) -> Result<usize, StoreError> {
        let from = self.expired_to;
        match self.run(|conn| expire(conn, expiry, from)) {
            Ok((gone, next)) => {
                self.expired_to = next;
                Ok(gone)
            }
            Err(CommitError::Busy) => Ok(0),
            Err(CommitError::Away(error) | CommitError::Unknown(error)) => Err(StoreError::new(error)),
            Err(error) => Err(StoreError::new(error.to_string())),
        }
    }
}

fn expire(conn: &mut Connection, expiry: &Expiry, from: Option<Id>) -> Result<(usize, Option<Id>), Failure> {
    write(conn, |tx| {
        let first = Id::from(uuid::Uuid::nil());
        let last = first_id_of(expiry.before);
        let mut walk = Walk { gone: vec![], looked_at: 0, expiry };
        let mut next = walk.between(tx, from.unwrap_or(first), last)?;
        if let (None, Some(from)) = (next, from) {
            next = walk.between(tx, first, from.min(last))?;
        }
        forget(tx, &walk.gone, expiry)?;
        tx.prepare_cached(
            "DELETE FROM keys WHERE hash IN (SELECT hash FROM keys WHERE expires < ? ORDER BY expires LIMIT ?)",
        )?
        .execute(params![int(expiry.now.millis()), int(expiry.limit as u64)])?;
        Ok((walk.gone.len(), next))
    })
}

/// The lowest id of a time.
fn first_id_of(at: Timestamp) -> Id {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&at.millis().to_be_bytes()[2..]);
    Id::from(uuid::Uuid::from_bytes(bytes))
}

struct Walk<'a> {
    gone: Vec<Found>,
    looked_at: usize,
    expiry: &'a Expiry,
}

impl Walk<'_> {
    /// Collects what may go of the ids from `from` to before `to`; says where it stopped if it did not get to the end.
    fn between(&mut self, tx: &Transaction<'_>, from: Id, to: Id) -> Result<Option<Id>, Failure> {
        let floors = floors(self.expiry);
        let mut walk = tx.prepare_cached(
            "SELECT j.id, j.stream, j.seq, j.state = ?3 AND j.at < ?4 \
                 AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = j.instance AND i.published < j.batch), s.created, j.at \
             FROM journal j LEFT JOIN settled s ON s.stream = j.stream WHERE j.id >= ?1 AND j.id < ?2 ORDER BY j.id",
        )?;
        let before = int(self.expiry.before.millis());
        let rows = walk.query_map(params![from.bytes(), to.bytes(), code(State::Done), before], |row| {
            let (id, may_go) = (id_at(row, 0)?, row.get(3)?);
            let at = Timestamp::from_millis(uint(row, 5)?);
            Ok(Found { id, stream: row.get(1)?, seq: uint(row, 2)?, at, may_go, created: row.get(4)? })
        })?;
        for found in rows {
            let found = found?;
            if self.gone.len() >= self.expiry.limit || self.looked_at >= LOOKED_AT {
                return Ok(Some(found.id));
            }
            self.looked_at += 1;
            let floor = found.created.as_ref().and_then(|created| floors.get(&(&*found.stream, &**created)));
            if found.may_go && (found.stream.is_empty() || floor.is_some_and(|floor| passed(floor, &found))) {
                self.gone.push(found);
            }
        }
        Ok(None)
    }
}

fn floors(expiry: &Expiry) -> HashMap<(&str, &str), &Floor> {
    expiry.floors.iter().map(|floor| ((&*floor.stream, &*floor.created), floor)).collect()
}

fn passed(floor: &Floor, found: &Found) -> bool {
    found.seq <= floor.through && found.at < floor.before
}

/// Deletes entries, and raises the marks of their streams to the highest sequences deleted.
fn forget(tx: &Transaction<'_>, gone: &[Found], expiry: &Expiry) -> Result<(), Failure> {
    let mut highest: HashMap<&str, u64> = HashMap::new();
    let mut delete = tx.prepare_cached("DELETE FROM journal WHERE id = ?")?;
    for found in gone {
        delete.execute([found.id.bytes()])?;
        if !found.stream.is_empty() {
            let mark = highest.entry(&found.stream).or_default();
            *mark = found.seq.max(*mark);
        }
    }
    let mut raise = tx.prepare_cached(
        "UPDATE settled SET through = max(through, ?3), seen = max(seen, ?3), until = max(coalesce(until, 0), ?4) \
         WHERE stream = ?1 AND created = ?2",
    )?;
    for floor in floors(expiry).values() {
        if let Some(through) = highest.get(&*floor.stream) {
            raise.execute(params![floor.stream, floor.created, int(*through), int(floor.until.millis())])?;
        }
    }
    Ok(())
}
