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
    /// The address to serve it on; 0.0.0.0 serves every network the machine is in. There is no login: whoever reaches it may use it
    #[arg(long, env = "HTTP_HOST", value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to serve it on
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", default_value = "8080")]
    port: u16,
    /// Lets the page act: redrive, edit, discard, move wakes, reveal personal fields. Without it the page only shows
    #[arg(
        long, env = "CONSOLE_ALLOW_ACTIONS", num_args = 0..=1, default_value = "false", default_missing_value = "true",
        value_name = "BOOL",
    )]
    allow_actions: bool,
    /// A name under which the console is reached, besides localhost and addresses; several are separated by commas
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
