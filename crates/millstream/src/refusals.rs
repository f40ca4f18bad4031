//! What the broker refuses for lack of rights. It says so once for each try, apart from the request, which only times out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Subjects that are kept apart at most.
const MOST: usize = 64;

/// The refusals of one connection.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<String, Refusal>>);

struct Refusal {
    at: Instant,
    /// A subscription is not tried again before the next connect.
    lasting: bool,
}

/// Whether an error of the broker's is a refusal.
pub(crate) fn is_refusal(error: &str) -> bool {
    error.to_lowercase().contains("permissions violation")
}

impl Refusals {
    /// Notes a refusal; whether it is new.
    pub(crate) fn note(&self, error: &str) -> bool {
        let lasting = error.to_lowercase().contains("subscription");
        let mut all = self.lock();
        if all.len() >= MOST && !all.contains_key(error) {
            return false;
        }
        all.insert(error.into(), Refusal { at: Instant::now(), lasting }).is_none()
    }

    /// Forgets all: what is still refused is refused again.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// What is refused now. What a service may not publish it tries again; what has not been refused for `patience` is allowed.
    pub(crate) fn now(&self, patience: Duration) -> Vec<String> {
        let mut all = self.lock();
        all.retain(|_, refusal| refusal.lasting || refusal.at.elapsed() < patience);
        all.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_publish_is_forgotten_when_it_is_not_refused_again_and_a_subscription_with_the_next_connect() {
        let patience = Duration::from_secs(30);
        let refusals = Refusals::default();
        let (publish, subscribe) =
            (r#"Permissions Violation for Publish to "a""#, r#"Permissions Violation for Subscription to "b""#);
        assert!(is_refusal(publish) && is_refusal(subscribe) && !is_refusal("authorization violation"));
        assert!(refusals.note(publish) && !refusals.note(publish), "only the first is new");
        assert!(refusals.note(subscribe));
        tokio::time::advance(patience / 2).await;
        assert!(!refusals.note(publish));
        tokio::time::advance(patience / 2).await;
        assert_eq!(refusals.now(patience), [publish, subscribe]);
        tokio::time::advance(patience).await;
        assert_eq!(refusals.now(patience), [subscribe]);
        assert!(refusals.note(publish), "it is news again");
        refusals.clear();
        assert!(refusals.now(patience).is_empty());
    }
}
