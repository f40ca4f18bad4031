//! What tells a process to stop. Services know nothing of it: a program hands it to those that it runs.

use tokio::signal::unix::{SignalKind, signal};

/// Ends with the first SIGTERM or SIGINT.
pub async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process at once, as they do by default.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
