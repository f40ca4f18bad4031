//! `millstream console`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use millstream::api_keys::HashedKey;
use millstream::config::{Logs, listen};
use millstream::signals::asked_to_stop;
use millstream::telemetry::init_logs;
use millstream_console::Actions;
use secrecy::{ExposeSecret, SecretString};

use crate::connection::Connection;

/// How the console is served.
#[derive(Args, Debug)]
pub(crate) struct Console {
    /// Address to listen on; 0.0.0.0 listens on all interfaces. Anyone who can reach the page can read it; actions need --key there
    #[arg(long, env = "HTTP_HOST", value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", default_value = "8080")]
    port: u16,
    /// Allow actions: redrive, edit, discard, reschedule wakes, reveal personal fields. Without it the page is read-only. Without a
    /// key they are allowed only if the page is served on a loopback address, or to `anyone`, for a demo
    #[arg(
        long, env = "CONSOLE_ALLOW_ACTIONS", num_args = 0..=1, default_value = "false", default_missing_value = "true",
        value_name = "WHETHER",
    )]
    allow_actions: Allowed,
    /// Key that actions need, at least 16 characters; reading needs none. Prefer the variable: other users of the machine can see flags
    #[arg(long, env = "CONSOLE_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<SecretString>,
    /// Host name of the console, besides localhost and IP addresses; separate several by commas
    #[arg(long, env = "CONSOLE_NAMES", value_name = "NAME", value_delimiter = ',')]
    name: Vec<String>,
    /// Markdown file with the runbook, served at /runbook; its sections have the names of the alerts
    #[arg(long, env = "RUNBOOK", value_name = "FILE")]
    runbook: Option<PathBuf>,
    #[command(flatten)]
    logs: Logs,
}

/// Whether actions are allowed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Allowed {
    False,
    True,
    Anyone,
}

/// The fewest characters of a key. It may be tried as often as one likes.
const LONG: usize = 16;

/// The key, of which an error says nothing.
fn hashed(key: Option<&SecretString>) -> Result<Option<HashedKey>, String> {
    match key.map_or("", |key| key.expose_secret()) {
        "" => Ok(None),
        short if short.chars().count() < LONG => Err(format!(
            "--key (CONSOLE_KEY): the key has fewer than {LONG} characters: take a random one, such as deploy/secrets.sh makes\n"
        )),
        key => Ok(Some(HashedKey::of(key))),
    }
}

impl Console {
    /// Serves it until the process is asked to stop.
    pub(crate) async fn run(self, connection: &Connection) -> Result<()> {
        let key = hashed(self.key.as_ref());
        let key = key.unwrap_or_else(|wrong| clap::Error::raw(ErrorKind::ValueValidation, wrong).exit());
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {} (--runbook, RUNBOOK)", file.display()))
        };
        let runbook = self.runbook.as_ref().filter(|file| !file.as_os_str().is_empty()).map(read).transpose()?;
        init_logs(&self.logs)?;
        let (servers, connect) = connection.options().await?;
        if let Some(warning) = servers.demo_warning() {
            tracing::warn!("{warning}");
        }
        let listener = listen(SocketAddr::new(self.host, self.port), "--port (HTTP_PORT)").await?;
        let settings = millstream_console::Settings {
            servers,
            connect,
            actions: match self.allow_actions {
                Allowed::False => Actions::No,
                Allowed::True => Actions::Yes,
                Allowed::Anyone => Actions::ByAnyone,
            },
            key,
            names: self.name,
            demo: vec![],
            runbook,
        };
        millstream_console::serve(settings, listener, asked_to_stop()).await
    }
}
