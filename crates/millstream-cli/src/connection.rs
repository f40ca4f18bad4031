//! Address of the broker and credentials: flags, then environment, then a context file of the `nats` command line, then 127.0.0.1.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use async_nats::ConnectOptions;
use clap::Args;
use millstream::broker::inbox_prefix;
use millstream::config::NatsUrl;
use millstream::operator::Operator;
use serde::Deserialize;

use crate::output;

/// Time limit for the first connection.
const PATIENCE: Duration = Duration::from_secs(5);
const DEFAULT: &str = "nats://127.0.0.1:4222";

/// Address of the broker, and the credentials to use.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// URL of the broker, `nats://[user:password@]host[:port]`; percent-encode anything in the password but letters, digits and `-._~`.
    /// Default: the URL of the context, or nats://127.0.0.1:4222
    #[arg(short, long, global = true, env = "NATS_URL", value_name = "URL", hide_env_values = true, value_parser = NatsUrl::read)]
    pub(crate) server: Option<NatsUrl>,
    /// NATS credentials file (`.creds`), instead of user and password
    #[arg(long, global = true, env = "NATS_CREDS", value_name = "FILE")]
    creds: Option<PathBuf>,
    /// CA certificates (PEM) that sign the broker's certificate, instead of the system's trust store
    #[arg(long = "tlsca", global = true, env = "NATS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Context of the `nats` command line: its name, or the path of its JSON file
    #[arg(long, global = true, env = "NATS_CONTEXT", value_name = "NAME")]
    context: Option<String>,
}

/// The fields of a context file that are used here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContextFile {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
    inbox_prefix: String,
}

impl Connection {
    /// Connects, or says why not. Does not retry: a person is waiting for the answer.
    pub(crate) async fn open(&self) -> Result<Operator> {
        let (url, options) = self.options().await?;
        if let Some(warning) = url.demo_warning() {
            output::note(&format!("warning: {warning}"));
        }
        let connecting = options.connect(url.servers());
        let client =
            tokio::time::timeout(PATIENCE, connecting).await.map_err(|_| anyhow!("no answer within {PATIENCE:?}"));
        let client = client.and_then(|client| client.map_err(Into::into));
        Ok(Operator::new(client.with_context(|| format!("cannot reach the broker at {url} (--server, NATS_URL)"))?))
    }

    /// The URL and the options to connect with.
    pub(crate) async fn options(&self) -> Result<(NatsUrl, ConnectOptions)> {
        let file = self.context.as_deref().map(read).transpose()?.unwrap_or_default();
        let url = match &self.server {
            Some(url) => url.clone(),
            None => NatsUrl::read(or(&file.url, DEFAULT)).map_err(|error| anyhow!("the context's `url`: {error}"))?,
        };
        let mut options = ConnectOptions::new();
        if !file.user.is_empty() {
            options = options.user_and_password(file.user, file.password);
        } else if !file.token.is_empty() {
            options = options.token(file.token);
        } else if !file.nkey.is_empty() {
            let seed = fs::read_to_string(&file.nkey).with_context(|| format!("the context's `nkey` {}", file.nkey))?;
            options = options.nkey(seed.trim().into());
        }
        // A login in the URL takes precedence over one in the context.
        options = url.authenticate(options);
        if let Some(path) = self.creds.clone().or_else(|| path(&file.creds)) {
            let read = options.credentials_file(&path).await;
            options =
                read.with_context(|| format!("`{}` is not a readable credentials file (--creds)", path.display()))?;
        }
        if let Some(path) = self.ca.clone().or_else(|| path(&file.ca)) {
            options = options.add_root_certificates(path);
        }
        if let (Some(cert), Some(key)) = (path(&file.cert), path(&file.key)) {
            options = options.add_client_certificate(cert, key);
        }
        let inbox = if file.inbox_prefix.is_empty() { inbox_prefix("operator") } else { file.inbox_prefix };
        Ok((url, options.name("millstream").custom_inbox_prefix(inbox).connection_timeout(PATIENCE)))
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn read(name: &str) -> Result<ContextFile> {
    let path = if name.contains('/') {
        PathBuf::from(name)
    } else {
        let folder = env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
        let folder = folder.context(
            "cannot find contexts by name: neither XDG_CONFIG_HOME nor HOME is set; give the path of the file",
        )?;
        folder.join("nats").join("context").join(format!("{name}.json"))
    };
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read the context {}", path.display()))?;
    // The error may quote a value, and one of them is a password.
    let wrong =
        |error: serde_json::Error| anyhow!("{} is not a valid context file: line {}", path.display(), error.line());
    serde_json::from_str(&text).map_err(wrong)
}
