//! Repeating what needs a dependency until the dependency is there.

use std::future::Future;
use std::time::Duration;

pub use millstream_core::retry::Retry;

/// Repeats an operation until it succeeds, with growing delays; `failed` hears of each failure and of the delay.
pub(crate) async fn forever<T, E, F>(
    retry: Retry,
    mut operation: impl FnMut() -> F,
    mut failed: impl FnMut(E, Duration),
) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempt = 0_u32;
    loop {
        match operation().await {
            Ok(value) => return value,
            Err(error) => {
                attempt = attempt.saturating_add(1);
                let delay = retry.delay(attempt);
                failed(error, delay);
                tokio::time::sleep(delay).await;
            }
        }
    }
}
