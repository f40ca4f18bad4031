//! `millstream console`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use clap::Args;
use millstream::config::{Logs, listen};
use millstream::signals::asked_to_stop;
use millstream::telemetry::init_logs;

use crate::connection::Connection;

/// How the console is served.
#[derive(Args, Debug)]
pub(crate) struct Console {
    /// Address to listen on; 0.0.0.0 listens on all interfaces. There is no login: anyone who can reach the page can use it
    #[arg(long, env = "HTTP_HOST", value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", default_value = "8080")]
    port: u16,
    /// Allow actions: redrive, edit, discard, reschedule wakes, reveal personal fields. Without it the page is read-only
    #[arg(
        long, env = "CONSOLE_ALLOW_ACTIONS", num_args = 0..=1, default_value = "false", default_missing_value = "true",
        value_name = "BOOL",
    )]
    allow_actions: bool,
    /// Host name of the console, besides localhost and IP addresses; separate several by commas
    #[arg(long, env = "CONSOLE_NAMES", value_name = "NAME", value_delimiter = ',')]
    name: Vec<String>,
    #[command(flatten)]
    logs: Logs,
}

impl Console {
    /// Serves it until the process is asked to stop.
    pub(crate) async fn run(self, connection: &Connection) -> Result<()> {
        init_logs(&self.logs)?;
        let (servers, connect) = connection.options().await?;
        if let Some(warning) = servers.demo_warning() {
            tracing::warn!("{warning}");
        }
        let listener = listen(SocketAddr::new(self.host, self.port), "--port (HTTP_PORT)").await?;
        let settings = millstream_console::Settings {
            servers,
            connect,
            allow_actions: self.allow_actions,
            names: self.name,
            demo: vec![],
        };
        millstream_console::serve(settings, listener, asked_to_stop()).await
    }
}
