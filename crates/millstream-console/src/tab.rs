//! One open tab: its queue is bounded, and the events that a slow tab misses are counted and reported.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, stream};
use serde_json::json;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Capacity of a tab's queue, in frames: three and a half seconds.
const WAITING: usize = 16;
/// Send buffer of a tab's connection; the system's default is megabytes, which is minutes of updates.
const UNREAD_BYTES: usize = 64 << 10;

/// A message to all tabs.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The name of the server-sent event.
    pub(crate) name: &'static str,
    /// Its data.
    pub(crate) data: Arc<str>,
    /// The number of events in it, which a tab misses if it misses the frame.
    pub(crate) events: u64,
}

/// Makes a connection notice soon that the client does not read.
pub(crate) fn notice_early(connection: &mut TcpStream) {
    if let Err(error) = SockRef::from(&*connection).set_send_buffer_size(UNREAD_BYTES) {
        tracing::debug!(%error, "cannot set the send buffer of a connection");
    }
}

/// The sending end of a tab.
#[derive(Debug)]
pub(crate) struct Tab {
    queue: mpsc::Sender<Frame>,
    skipped: Arc<AtomicU64>,
}

impl Tab {
    /// A tab, and the stream of its frames.
    pub(crate) fn open() -> (Self, impl Stream<Item = Frame> + Send + use<>) {
        let (queue, frames) = mpsc::channel(WAITING);
        let skipped = Arc::new(AtomicU64::new(0));
        let tab = Self { queue, skipped: skipped.clone() };
        let next =
            async |(mut frames, skipped, mut ready): (mpsc::Receiver<Frame>, Arc<AtomicU64>, VecDeque<Frame>)| {
                if ready.is_empty() {
                    let frame = frames.recv().await?;
                    let missed = skipped.swap(0, Ordering::AcqRel);
                    if missed > 0 {
                        let data = json!({ "events": missed }).to_string().into();
                        ready.push_back(Frame { name: "skipped", data, events: 0 });
                    }
                    ready.push_back(frame);
                }
                let frame = ready.pop_front()?;
                Some((frame, (frames, skipped, ready)))
            };
        (tab, stream::unfold((frames, skipped, VecDeque::new()), next))
    }

    /// Whether the client is still connected.
    pub(crate) fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Sends a frame, or counts what was missed; returns whether the tab is still open.
    pub(crate) fn tell(&self, frame: &Frame) -> bool {
        match self.queue.try_send(frame.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(frame)) => {
                self.skipped.fetch_add(frame.events, Ordering::AcqRel);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_slow_tab_is_told_what_it_skipped_and_goes_on() {
        let (tab, frames) = Tab::open();
        let frame = |at: usize| Frame { name: "events", data: at.to_string().into(), events: 10 };
        for at in 0..WAITING + 3 {
            assert!(tab.tell(&frame(at)));
        }
        let mut frames = std::pin::pin!(frames);
        let first = frames.next().await.unwrap();
        assert_eq!((first.name, &*first.data), ("skipped", r#"{"events":30}"#));
        for at in 0..WAITING {
            assert_eq!(&*frames.next().await.unwrap().data, at.to_string());
        }
        assert!(tab.tell(&frame(99)));
        assert_eq!(&*frames.next().await.unwrap().data, "99", "nothing is told twice");
    }
}
