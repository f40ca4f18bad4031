//! `shop health`: asks a part of the shop whether it is ready, for health checks in images that have no other program.

use std::time::Duration;

use anyhow::{Context, Result};
use millstream::terminal::{line, visible_lines};

use crate::wire;

/// Options of `shop health`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// URL to check, for example http://127.0.0.1:8081/readyz.
    #[arg(value_name = "URL")]
    url: String,
    /// Time limit for the answer.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Prints the answer; returns whether its status is a success.
///
/// # Errors
/// When there is no answer.
pub async fn run(options: Options) -> Result<bool> {
    let Options { url, timeout } = options;
    let answer = wire::client()?.get(&url).timeout(timeout).send().await;
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    let good = answer.status().is_success();
    line(&visible_lines(&answer.text().await.unwrap_or_default())).context("cannot write the output")?;
    Ok(good)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn only_a_good_status_is_health_and_silence_is_an_error() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/readyz", get(async || "ready"))
            .route("/waits", get(async || (StatusCode::SERVICE_UNAVAILABLE, "waiting")))
            .route("/hangs", get(async || std::future::pending::<()>().await));
        let server = tokio::spawn(async { axum::serve(listener, routes).await });
        let ask = async |path| run(Options { url: format!("{base}{path}"), timeout: Duration::from_millis(300) }).await;
        assert!(ask("/readyz").await.unwrap());
        assert!(!ask("/waits").await.unwrap());
        assert!(ask("/hangs").await.unwrap_err().to_string().contains("/hangs does not answer"));
        server.abort();
    }
}
