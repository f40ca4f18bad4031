//! Commands: done once for an idempotency key, and answered the same again.

use crate::planner::{CommandFailure, CommandInput, Idempotency, Plan, Reply};
use crate::record::IdempotencyKey;
use crate::unit::Ran;

impl Plan<'_> {
    pub(super) fn command(&mut self, command: &CommandInput) -> Result<Reply, CommandFailure> {
        if let Some(entry) = self.entry(command.id) {
            // An earlier attempt was committed after all. Without a key its reply was not kept.
            let reply = entry.reply.clone().ok_or(CommandFailure::OutcomeUnknown)?;
            return Ok(Reply { id: command.id, reply, repeated: false });
        }
        if let Some(key) = command.idempotency
            && let Some(first) = self.key(&key.hash)
        {
            if first.fingerprint != key.fingerprint {
                return Err(CommandFailure::KeyReused);
            }
            let reply = self.entry(first.command).and_then(|entry| entry.reply.clone());
            let reply = reply.ok_or_else(|| CommandFailure::Unavailable("the first reply is not there yet".into()))?;
            return Ok(Reply { id: first.command, reply, repeated: true });
        }
        match self.handle(&command.meta, None, |unit| command.work.handle(unit)) {
            Ran::Handled { reply, staged } => {
                let reply = reply.unwrap_or_default();
                let kept = command.idempotency.map(|_| reply.clone());
                self.done(None, &command.meta, None, staged, kept);
                if let Some(Idempotency { hash, fingerprint }) = command.idempotency {
                    let expires = self.now + self.planner.timing.key_retention;
                    self.keys.push(IdempotencyKey { hash, command: command.id, fingerprint, expires });
                }
                Ok(Reply { id: command.id, reply, repeated: false })
            }
            Ran::Retry(why) | Ran::Ahead(why) => Err(CommandFailure::Unavailable(why)),
            Ran::Rejected(reject) => Err(CommandFailure::Rejected(reject)),
            Ran::TooLarge(why) => Err(CommandFailure::TooLarge(why)),
            Ran::Panicked(error) | Ran::Misused(error) => Err(CommandFailure::Defect(error)),
            // The batch is decided again.
            Ran::Missed(_) => Err(CommandFailure::OutcomeUnknown),
        }
    }
}
