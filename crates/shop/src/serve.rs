//! One service or the gateway in a process of its own, as in production.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use millstream::Service;
use millstream::config::{Config, listen};
use millstream::service::Options;
use millstream::telemetry::init_logs;
use payments::gateway::HttpGateway;

use crate::ports::Ports;

/// Which service is run, and what it is told.
#[derive(Debug, Subcommand)]
pub enum Which {
    /// Takes orders and decides how they end.
    #[command(mut_arg("port", |port| port.default_value("8081")))]
    Orders(#[command(flatten)] Config),
    /// Keeps the stock and reserves it for orders.
    #[command(mut_arg("port", |port| port.default_value("8082")))]
    Inventory(#[command(flatten)] Config),
    /// Charges and refunds through the gateway.
    #[command(mut_arg("port", |port| port.default_value("8083")))]
    Payments(Payments),
}

/// What the payments service is told.
#[derive(Debug, Args)]
pub struct Payments {
    #[command(flatten)]
    config: Config,
    /// The payment gateway.
    #[arg(long, env = "GATEWAY_URL", value_name = "URL", default_value = "http://127.0.0.1:8090")]
    gateway_url: String,
}

/// Runs one service until `shutdown`.
///
/// # Errors
/// When it cannot start, or not go on.
pub async fn run(which: Which, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let ports = Ports::default();
    let (service, config, port) = match which {
        Which::Orders(config) => (orders::service(orders::Settings::default()), config, ports.orders()),
        Which::Inventory(config) => (inventory::service(), config, ports.inventory()),
        Which::Payments(Payments { config, gateway_url }) => (payments(&gateway_url)?, config, ports.payments()),
    };
    init_logs(&config.logs)?;
    let name = service.name();
    let listener = listen(config.address(port), "--port (HTTP_PORT)").await?;
    service.run(config, Options::default(), listener, shutdown).await.with_context(|| format!("{name} has ended"))
}

/// The payments service with the gateway's HTTP client.
///
/// # Errors
/// When the URL cannot be one.
pub fn payments(gateway_url: &str) -> Result<Service> {
    let gateway = HttpGateway::new(gateway_url);
    Ok(payments::service(gateway.with_context(|| format!("the gateway's URL `{gateway_url}` cannot be used"))?))
}

/// The configuration of a service that is run inside of this process: everything as it comes, but these two.
///
/// # Errors
/// When a variable of the environment has a bad value.
pub fn config(nats_url: &str, store_url: &str) -> Result<Config> {
    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Inside {
        #[command(flatten)]
        config: Config,
    }
    Ok(Inside::try_parse_from(["--nats-url", nats_url, "--store-url", store_url])?.config)
}
