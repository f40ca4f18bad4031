//! The configuration of a service: flag, then environment, then default.

use std::net::IpAddr;

/// What one service is told from outside.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The broker.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// The store.
    #[arg(long, env = "STORE_URL")]
    pub store_url: String,
    /// The address to listen on.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// The port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Logs.
    #[command(flatten)]
    pub logs: Logs,
}

/// How a process logs.
#[derive(Clone, Debug, clap::Args)]
pub struct Logs {
    /// Which lines are logged.
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,
}
