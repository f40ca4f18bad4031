//! One service or the gateway in a process of its own, as in production.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use millstream::Service;
use millstream::api_keys::ApiKeys;
use millstream::config::{Config, NatsUrl, StoreUrl, listen};
use millstream::service::{Options, Rebuild};
use millstream::telemetry::init_logs;
use millstream::terminal;
use payments::gateway::HttpGateway;
use secrecy::{ExposeSecret, SecretString};

use crate::ports::Ports;

/// The service to run, and its options.
#[derive(Debug, Subcommand)]
pub enum Which {
    /// Accepts orders and decides their outcome.
    #[command(mut_arg("port", |port| port.default_value("8081")))]
    Orders(Orders),
    /// Keeps stock and reserves it for orders.
    #[command(mut_arg("port", |port| port.default_value("8082")))]
    Inventory(#[command(flatten)] Config),
    /// Charges and refunds through the payment gateway.
    #[command(mut_arg("port", |port| port.default_value("8083")))]
    Payments(Payments),
    /// Notifies customers of the outcome of their orders.
    #[command(mut_arg("port", |port| port.default_value("8084")))]
    Notifications(Notifications),
    /// Aggregates orders into sales figures.
    #[command(mut_arg("port", |port| port.default_value("8085")))]
    Analytics(Analytics),
}

/// Options of the orders service.
#[derive(Debug, Args)]
pub struct Orders {
    #[command(flatten)]
    config: Config,
    /// File of the callers that may use the HTTP API, one `name:hash` a line; the hash is the SHA-256 of the caller's key, in
    /// hexadecimal. Without it anybody may.
    #[arg(long, env = "API_KEYS_FILE", value_name = "FILE", value_parser = read_keys)]
    api_keys_file: Option<ApiKeys>,
}

fn read_keys(path: &str) -> Result<ApiKeys, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read (API_KEYS_FILE): {error}"))?;
    ApiKeys::read(&text).map_err(|wrong| format!("(API_KEYS_FILE) {wrong}"))
}

/// Options of the payments service.
#[derive(Debug, Args)]
pub struct Payments {
    #[command(flatten)]
    config: Config,
    /// URL of the payment gateway.
    #[arg(long, env = "GATEWAY_URL", value_name = "URL", default_value = "http://127.0.0.1:8090")]
    gateway_url: String,
    /// Age from which a charge or refund that is repeated is looked up at the gateway first, since the gateway may have forgotten
    /// its idempotency key.
    #[arg(long, env = "GATEWAY_QUERY_AFTER", value_name = "DURATION", default_value = "23h", value_parser = humantime::parse_duration)]
    gateway_query_after: Duration,
}

/// Options of the notifications service.
#[derive(Debug, Args)]
pub struct Notifications {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    mail: Mail,
}

/// How customers are reached.
#[derive(Clone, Debug, Args)]
pub struct Mail {
    /// Mail server, `smtp://[user:password@]host[:port]` or `smtps://…`; without it notifications are logged only. Percent-encode
    /// anything in the password but letters, digits and `-._~`. With smtp://, TLS is required if there is a password, and otherwise
    /// used if the server offers it; override with `?tls=required`, `?tls=opportunistic` or `?tls=none`.
    #[arg(long, env = "SMTP_URL", value_name = "URL", hide_env_values = true)]
    smtp_url: Option<SecretString>,
    /// Sender address. Default: shop@ and the domain below.
    #[arg(long, env = "MAIL_FROM", value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// Domain of the customers' mailboxes: mail for `ada` goes to ada@example.com.
    #[arg(long, env = "MAIL_DOMAIN", value_name = "DOMAIN", default_value = "example.com")]
    mail_domain: String,
}

impl Mail {
    /// Whether a mail server is named.
    pub(crate) fn is_sent(&self) -> bool {
        self.smtp_url.as_ref().is_some_and(|url| !url.expose_secret().is_empty())
    }

    /// As the notifications service takes it.
    pub(crate) fn settings(self) -> notifications::Settings {
        let Self { smtp_url, mail_from, mail_domain } = self;
        notifications::Settings { smtp_url, from: mail_from, domain: mail_domain }
    }
}

/// Options of the analytics service.
#[derive(Debug, Args)]
pub struct Analytics {
    #[command(flatten)]
    config: Config,
    /// Discard all figures and rebuild them from the stream of orders. Refused if the stream has lost its beginning; `partial`
    /// rebuilds from what is left, and the summary shows since when. No other instance may run. Every start with this flag
    /// rebuilds again.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "whole")]
    rebuild: Option<Rebuild>,
}

/// Runs one service until `shutdown`, or prints what it needs of the broker.
///
/// # Errors
/// When it cannot start or continue.
pub async fn run(which: Which, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let ports = Ports::default();
    let mut options = Options::default();
    let (service, config, port) = match which {
        Which::Orders(Orders { config, api_keys_file }) => {
            let service = orders::service(orders::Settings::default());
            let service = match api_keys_file {
                Some(callers) => service.only_for(callers),
                None => service,
            };
            (service, config, ports.orders())
        }
        Which::Inventory(config) => (inventory::service(), config, ports.inventory()),
        Which::Payments(Payments { config, gateway_url, gateway_query_after }) => {
            (payments(&gateway_url, gateway_query_after)?, config, ports.payments())
        }
        Which::Notifications(Notifications { config, mail }) => {
            (notifications(&mail.settings())?, config, ports.notifications())
        }
        Which::Analytics(Analytics { config, rebuild }) => {
            options.rebuild = rebuild;
            (analytics::service(), config, ports.analytics())
        }
    };
    if config.declare {
        return terminal::line(&service.declaration_with(&config).to_string()).context("cannot write the output");
    }
    init_logs(&config.logs)?;
    let name = service.name();
    let listener = listen(config.address(port), "--port (HTTP_PORT)").await?;
    service.run(config, options, listener, shutdown).await.with_context(|| format!("{name} failed"))
}

/// The payments service with the gateway's HTTP client.
///
/// # Errors
/// When the URL cannot be one.
pub fn payments(gateway_url: &str, query_after: Duration) -> Result<Service> {
    let gateway = HttpGateway::new(gateway_url).with_context(|| format!("invalid gateway URL `{gateway_url}`"))?;
    Ok(payments::service(gateway.with_query_after(query_after)))
}

/// The notifications service.
///
/// # Errors
/// When the settings cannot be used, as the command line says it.
pub fn notifications(settings: &notifications::Settings) -> Result<Service> {
    let bad = |error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n"));
    Ok(notifications::service(settings).map_err(bad)?)
}

/// The configuration of a service that is run inside of this process: everything as it comes, but these two.
///
/// # Errors
/// When one of them is not such a URL.
pub fn config(nats_url: &str, store_url: &str) -> Result<Config> {
    let nats_url = NatsUrl::read(nats_url).map_err(anyhow::Error::msg)?;
    Ok(Config::new(nats_url, StoreUrl::read(store_url).map_err(anyhow::Error::msg)?))
}
