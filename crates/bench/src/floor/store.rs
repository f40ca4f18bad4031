//! A service's SQLite file with its one writer: as durable as the shop's, and nothing in it but the state of each order.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

/// An order's new state in this service. A row of state 1 is a new one; a later state replaces an earlier one only.
pub(super) struct Row {
    pub(super) key: u128,
    pub(super) state: u8,
}

/// What is committed together: rows, what is added to the total, and whom to tell.
type Batch = (Vec<Row>, i64, oneshot::Sender<()>);

/// A file, and the way to its writer, which ends with the last of these.
#[derive(Clone)]
pub(super) struct Store {
    file: PathBuf,
    writer: mpsc::Sender<Batch>,
}

impl Store {
    /// A new file, whose rows have bodies of this many bytes.
    pub(super) fn open(folder: &Path, service: &str, body: usize) -> Result<Self> {
        let file = folder.join(format!("{service}.db"));
        let db = Connection::open(&file)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(
            "CREATE TABLE states (id BLOB PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE total (count INTEGER NOT NULL);
             INSERT INTO total VALUES (0);",
        )?;
        let (writer, batches) = mpsc::channel::<Batch>();
        thread::spawn(move || {
            let body = vec![b'x'; body];
            // Who waits for a batch that fails is told by the loss of the sender.
            while let Ok((rows, counted, done)) = batches.recv()
                && write(&db, &rows, counted, &body).is_ok()
            {
                done.send(()).ok();
            }
        });
        Ok(Self { file, writer })
    }

    pub(super) async fn commit(&self, rows: Vec<Row>, counted: i64) -> Result<()> {
        let (done, committed) = oneshot::channel();
        self.writer.send((rows, counted, done)).ok().context("the writer has ended")?;
        committed.await.with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Sees that so many orders are in their last state, and so many were counted.
    pub(super) fn verify(&self, state: u8, orders: i64, counted: i64) -> Result<()> {
        let db = Connection::open(&self.file)?;
        let in_state: i64 = db.query_one("SELECT count(*) FROM states WHERE state = ?1", [state], |row| row.get(0))?;
        let total: i64 = db.query_one("SELECT count FROM total", [], |row| row.get(0))?;
        let file = self.file.display();
        ensure!(in_state == orders, "{file}: {in_state} orders in state {state}, not {orders}");
        ensure!(total == counted, "{file}: {total} counted, not {counted}");
        Ok(())
    }
}

fn write(db: &Connection, rows: &[Row], counted: i64, body: &[u8]) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(db, rusqlite::TransactionBehavior::Immediate)?;
    for Row { key, state } in rows {
        let sql = match state {
            1 => "INSERT INTO states VALUES (?1, ?2, ?3)",
            _ => "UPDATE states SET state = ?2, body = ?3 WHERE id = ?1 AND state < ?2",
        };
        db.prepare_cached(sql)?.execute((&key.to_be_bytes()[..], state, body))?;
    }
    if counted > 0 {
        db.prepare_cached("UPDATE total SET count = count + ?1")?.execute([counted])?;
    }
    transaction.commit()
}
