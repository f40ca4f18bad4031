//! `shop trickle`: the demo load on its own, for a shop that runs as separate processes.

use std::time::Duration;

use anyhow::Result;
use secrecy::SecretString;

use crate::{demo_load, stock, wire};

/// Delay before stocking the catalogue is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// Options of `shop trickle`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Orders per second; 0 only stocks the catalogue.
    #[arg(long, env = "DEMO_ORDERS_PER_SECOND", value_name = "RATE", default_value = "2", value_parser = rate)]
    rate: f64,
    /// URL of the orders service.
    #[arg(long, env = "ORDERS_URL", value_name = "URL", default_value = "http://127.0.0.1:8081")]
    orders_url: String,
    /// Key for the HTTP API of orders, if it asks for one. Prefer the variable: command lines can be read by others.
    #[arg(long, env = "ORDERS_API_KEY", value_name = "KEY", hide_env_values = true)]
    orders_api_key: Option<SecretString>,
    /// URL of the inventory service.
    #[arg(long, env = "INVENTORY_URL", value_name = "URL", default_value = "http://127.0.0.1:8082")]
    inventory_url: String,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate == 0.0 || (0.01..=1000.0).contains(rate));
    rate.ok_or_else(|| "expected a number of orders per second from 0.01 to 1000, or 0 for none".into())
}

/// Stocks missing products of the catalogue as soon as inventory answers, and submits orders until `shutdown`.
///
/// # Errors
/// Never: it waits for services that do not answer.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    let (client, others) = (wire::orders_client(options.orders_api_key.as_ref())?, wire::client()?);
    let work = async {
        let mut told = false;
        while let Err(error) = stock::seed(&others, &options.inventory_url).await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, url = options.inventory_url, "cannot stock the catalogue yet; retrying");
            }
            tokio::time::sleep(AGAIN).await;
        }
        if options.rate > 0.0 {
            demo_load::run(client, options.orders_url, options.rate).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = shutdown => Ok(()),
        () = work => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_at_a_rate_of_0_and_other_bad_rates_are_refused() {
        assert_eq!((rate("2"), rate("0")), (Ok(2.0), Ok(0.0)));
        for text in ["-1", "0.001", "NaN", "inf", "many"] {
            assert!(rate(text).unwrap_err().contains("0 for none"), "{text}");
        }
    }
}
