//! Repeating what needs a dependency until the dependency is there.

use std::fmt::Display;
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

/// For [`forever`]: passes an error on only when its text differs from the one before, so that a long outage fills no log.
pub(crate) fn once_per_text<E: Display>(mut say: impl FnMut(&str)) -> impl FnMut(E, Duration) {
    let mut last = None;
    move |error, _| {
        let text = error.to_string();
        if last.as_ref() != Some(&text) {
            say(&text);
            last = Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_passed_on_when_its_text_changes() {
        let mut said = vec![];
        let mut failed = once_per_text(|error| said.push(error.to_owned()));
        for error in ["refused", "refused", "timed out", "timed out", "refused"] {
            failed(error, Duration::ZERO);
        }
        drop(failed);
        assert_eq!(said, ["refused", "timed out", "refused"]);
    }
}
