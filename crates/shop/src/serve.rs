//! One service or the gateway in a process of its own, as in production.

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use millstream::Service;
use millstream::config::{Config, NatsUrl, StoreUrl, listen};
use millstream::service::Options;
use millstream::telemetry::init_logs;
use payments::gateway::HttpGateway;
use secrecy::{ExposeSecret, SecretString};

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
    /// Tells customers how their orders ended.
    #[command(mut_arg("port", |port| port.default_value("8084")))]
    Notifications(Notifications),
    /// Adds up what the orders come to.
    #[command(mut_arg("port", |port| port.default_value("8085")))]
    Analytics(Analytics),
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

/// What the notifications service is told.
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
    /// The mail server, `smtp://[user:password@]host[:port]` or `smtps://…`; without one notifications are logged. In a password
    /// anything but letters, digits and `-._~` is percent-encoded. Over smtp:// TLS is required if there is a password and taken if
    /// it is offered otherwise; `?tls=required`, `?tls=opportunistic` or `?tls=none` say another.
    #[arg(long, env = "SMTP_URL", value_name = "URL", hide_env_values = true)]
    smtp_url: Option<SecretString>,
    /// Who mails are from. Default: shop@ and the domain below.
    #[arg(long, env = "MAIL_FROM", value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// Where customers have their mailboxes: `ada` is written to at ada@example.com.
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

/// What the analytics service is told.
#[derive(Debug, Args)]
pub struct Analytics {
    #[command(flatten)]
    config: Config,
    /// Forgets all figures and adds them up again from what the stream of orders still holds; the summary says since when that is. No
    /// other instance may run. Each start with it begins anew.
    #[arg(long)]
    rebuild: bool,
}

/// Runs one service until `shutdown`.
///
/// # Errors
/// When it cannot start, or not go on.
pub async fn run(which: Which, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let ports = Ports::default();
    let mut options = Options::default();
    let (service, config, port) = match which {
        Which::Orders(config) => (orders::service(orders::Settings::default()), config, ports.orders()),
        Which::Inventory(config) => (inventory::service(), config, ports.inventory()),
        Which::Payments(Payments { config, gateway_url }) => (payments(&gateway_url)?, config, ports.payments()),
        Which::Notifications(Notifications { config, mail }) => {
            (notifications(&mail.settings())?, config, ports.notifications())
        }
        Which::Analytics(Analytics { config, rebuild }) => {
            options.rebuild = rebuild;
            (analytics::service(), config, ports.analytics())
        }
    };
    init_logs(&config.logs)?;
    let name = service.name();
    let listener = listen(config.address(port), "--port (HTTP_PORT)").await?;
    service.run(config, options, listener, shutdown).await.with_context(|| format!("{name} has ended"))
}

/// The payments service with the gateway's HTTP client.
///
/// # Errors
/// When the URL cannot be one.
pub fn payments(gateway_url: &str) -> Result<Service> {
    let gateway = HttpGateway::new(gateway_url);
    Ok(payments::service(gateway.with_context(|| format!("the gateway's URL `{gateway_url}` cannot be used"))?))
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
