//! Transactions that nobody will finish.
//!
//! The server keeps the transaction of a process that was killed for a minute, and whatever it has written is in everybody's way
//! for as long. Between two commands of a commit there are some milliseconds, so one that has been idle for a second is of a
//! process that is dead, cut off or held. To abort it is safe in any case: it was not committed, and whoever comes back to it
//! learns that and begins anew.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReadConcern;

use super::Link;
use super::read::all;
use super::trouble::{Trouble, answer};

/// How long a transaction is idle until it counts as abandoned.
pub(super) const ABANDONED: Duration = Duration::from_secs(1);

/// Aborts what this service's processes have abandoned. A user needs no right of its own for its own sessions.
pub(super) async fn abort(link: &Link) -> Result<(), Trouble> {
    let admin = link.client.database("admin");
    let idle = doc! {
        "type": "idleSession",
        "appName": &link.app_name,
        "transaction.timeInactiveMicros": { "$gte": ABANDONED.as_micros() as i64 },
    };
    let ours = doc! { "$currentOp": { "allUsers": false, "idleSessions": true } };
    let idle = admin.aggregate([ours, doc! { "$match": idle }]).read_concern(ReadConcern::local());
    let session = |op: Document| op.get_document("lsid").ok()?.get("id").cloned();
    let sessions: Vec<Bson> =
        all(idle).await?.into_iter().filter_map(session).map(|id| doc! { "id": id }.into()).collect();
    if !sessions.is_empty() {
        tracing::warn!(count = sessions.len(), "aborting abandoned transactions");
        answer(admin.run_command(doc! { "killSessions": sessions })).await?;
    }
    Ok(())
}
