//! The streams that a service owns: declared when it starts, and again while it runs, where one was deleted. A service that declares
//! nothing compares, and waits for them.

use std::sync::Arc;

use millstream_core::declaration::Published;
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::declare::{DeclareError, dead_letters, events};
use crate::engine::status::Status;
use crate::event::Stream;
use crate::release::Release;
use crate::retry::{Retry, once_per_text};

/// What a service declares: the streams of its events, and that of its dead letters.
#[derive(Clone)]
pub(crate) struct Owned {
    pub(crate) service: &'static str,
    pub(crate) release: Release,
    pub(crate) streams: Vec<Stream>,
}

impl Owned {
    /// Makes what is missing, and changes what is not as declared; or says what somebody else has to do about it.
    pub(crate) async fn declare(&self, broker: &Broker) -> Result<(), DeclareError> {
        for stream in &self.streams {
            broker.ensure(events(&Published::from(stream)), &self.release).await?;
        }
        broker.ensure(dead_letters(self.service), &self.release).await
    }

    /// Declares all of it again after each reconnect, and whenever somebody says that something may be missing.
    pub(crate) async fn keep(self, broker: Broker, missing: Arc<Notify>, status: Arc<Status>, retry: Retry) {
        let mut link = broker.link.clone();
        loop {
            tokio::select! {
                () = missing.notified() => {}
                Ok(()) = link.changed() => {}
            }
            let mut say = once_per_text(|error| {
                tracing::warn!(error, "a stream cannot be declared again; retrying");
                status.set_waits_for(Some(format!("the broker: {error}")));
            });
            let mut attempt = 0_u32;
            // Without a connection nothing can be said of the streams; when it is back, all is looked at again.
            while link.borrow_and_update().up {
                let declared = self.declare(&broker).await;
                attempt = attempt.saturating_add(1);
                let Err(error) = declared else { break };
                if broker.is_up() {
                    say(error, retry.delay(attempt));
                }
                tokio::time::sleep(retry.delay(attempt)).await;
            }
            drop(say);
            status.set_waits_for(None);
            // What is refused for another reason is refused again and again.
            tokio::time::sleep(retry.longest).await;
        }
    }
}
