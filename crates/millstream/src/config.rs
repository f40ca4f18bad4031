//! The configuration of a service: flag, then environment, then default. Only `main` reads it; a bad value ends the start.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use millstream_core::server::MOST;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use crate::flag::Checked;
pub use crate::store::StoreUrl;
pub use crate::telemetry::Logs;

/// The settings that every service has. Printing them shows no secret.
///
/// A program reads it from its command line and environment, flattened into a struct of its own that derives `clap::Parser`; what
/// runs a service otherwise begins with [`Config::new`]. A bound that is `None` is the one of
/// [`Options::timing`](crate::service::Options).
#[derive(clap::Args, Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the broker is, `nats://[user:password@]host[:port]`; several servers of a cluster are separated by commas. In a
    /// password anything but letters, digits and `-._~` is percent-encoded: `@` is %40, `#` is %23.
    #[arg(
        long, env = "NATS_URL", value_name = "URL", default_value = "nats://127.0.0.1:4222",
        hide_env_values = true, value_parser = Checked(NatsUrl::read),
    )]
    pub nats_url: NatsUrl,

    /// A NATS credentials file (`.creds`), instead of user and password.
    #[arg(long, env = "NATS_CREDS", value_name = "FILE", value_parser = Checked(read_path))]
    pub nats_creds: Option<PathBuf>,

    /// Wait for the streams that `millstream declare` makes, instead of making and changing them: for a broker user without that
    /// permission. The service still makes its own durables.
    #[arg(
        long, env = "AWAIT_DECLARED", value_name = "BOOL", num_args = 0..=1, default_value = "false",
        default_missing_value = "true", value_parser = Checked(read_bool),
    )]
    pub await_declared: bool,

    /// How many servers of a cluster keep each stream that the service makes: 1 to 5. A stream that has fewer is raised, and none is
    /// lowered. Default: 3 in a cluster of three servers or more, 1 otherwise.
    #[arg(long, env = "STREAM_REPLICAS", value_name = "COUNT", value_parser = Checked(read_replicas))]
    pub stream_replicas: Option<usize>,

    /// Print what the service needs of the broker, as JSON for `millstream declare`, and exit.
    #[arg(long)]
    pub declare: bool,

    /// CA certificates (PEM) that sign the broker's certificate, instead of the system's trust store; for `tls://`.
    #[arg(long, env = "NATS_CA", value_name = "FILE", value_parser = Checked(read_certificates))]
    pub nats_ca: Option<PathBuf>,

    /// Where the service keeps its data: `sqlite://PATH`, or `mongodb://[user:password@]host[:port]/[database]?replicaSet=NAME`
    /// where this program was built with MongoDB; the database is by default the one of the service's name. A password is
    /// percent-encoded as in NATS_URL. Default: `sqlite://data/<service>.db`.
    #[arg(long, env = "STORE_URL", value_name = "URL", hide_env_values = true, value_parser = Checked(StoreUrl::read))]
    pub store_url: Option<StoreUrl>,

    /// CA certificates (PEM) that sign MongoDB's certificate, instead of the system's trust store. With this option TLS is used.
    #[arg(long, env = "STORE_CA", value_name = "FILE", value_parser = Checked(read_certificates))]
    pub store_ca: Option<PathBuf>,

    /// The address to serve HTTP on; 0.0.0.0 listens on all interfaces.
    #[arg(long, env = "HTTP_HOST", value_name = "IP", default_value = "127.0.0.1", value_parser = Checked(read_ip))]
    pub host: IpAddr,

    /// The port to serve HTTP on. Default: the service's own.
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", value_parser = Checked(read_port))]
    pub port: Option<u16>,

    /// Logs.
    #[command(flatten)]
    pub logs: Logs,

    /// Maximum number of inputs whose events the broker has not accepted yet; at this limit commands are answered with 503.
    /// Default: 10000.
    #[arg(long, env = "UNPUBLISHED_LIMIT", value_name = "COUNT", value_parser = Checked(read_count))]
    pub unpublished_limit: Option<u64>,

    /// How long the journal keeps what is done, and so recognizes a duplicate: `14days`, `36h`; at least a day, because a
    /// repeat under an Idempotency-Key is answered from it. Default: 14days.
    #[arg(long, env = "JOURNAL_RETENTION", value_name = "TIME", value_parser = Checked(read_duration))]
    pub journal_retention: Option<Duration>,
}

impl Config {
    /// Uses this broker and this store, and defaults for everything else.
    pub fn new(nats_url: NatsUrl, store_url: StoreUrl) -> Self {
        Self {
            nats_url,
            nats_creds: None,
            nats_ca: None,
            await_declared: false,
            stream_replicas: None,
            declare: false,
            store_url: Some(store_url),
            store_ca: None,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: None,
            logs: Logs::default(),
            unpublished_limit: None,
            journal_retention: None,
        }
    }

    /// The store to use: as told, or the service's own file.
    pub fn store(&self, service: &str) -> StoreUrl {
        let url = self.store_url.clone().unwrap_or_else(|| StoreUrl::Sqlite(format!("data/{service}.db").into()));
        match (url, &self.store_ca) {
            #[cfg(feature = "mongodb")]
            (StoreUrl::Mongo(url), Some(ca)) => StoreUrl::Mongo(url.trusting(ca.clone())),
            (url, _) => url,
        }
    }

    /// The address to serve HTTP on.
    pub fn address(&self, default_port: u16) -> SocketAddr {
        SocketAddr::new(self.host, self.port.unwrap_or(default_port))
    }

    /// Connection options with the client's credentials and the CA certificates that it trusts.
    ///
    /// # Errors
    /// When the credentials file cannot be read.
    pub async fn connect_options(&self) -> io::Result<ConnectOptions> {
        let mut options = self.nats_url.authenticate(ConnectOptions::new());
        if let Some(path) = &self.nats_ca {
            options = options.add_root_certificates(path.clone());
        }
        let Some(path) = &self.nats_creds else { return Ok(options) };
        options.credentials_file(path).await.map_err(|error| {
            let path = path.display();
            let text = format!("--nats-creds (NATS_CREDS): `{path}` is not a readable credentials file: {error}");
            io::Error::new(error.kind(), text)
        })
    }

    /// A warning for each password that is a demo's.
    pub(crate) fn demo_warnings(&self, service: &str) -> Vec<String> {
        let broker = self.nats_url.demo_warning().filter(|_| self.nats_creds.is_none());
        let store = self.store(service).user_with(DEMO_PASSWORD).map(|user| demo_warning(&user, "of the store"));
        broker.into_iter().chain(store).collect()
    }

    /// The user that the client connects as, for messages.
    pub(crate) fn broker_user(&self) -> &str {
        match &self.nats_url.login {
            _ if self.nats_creds.is_some() => "of NATS_CREDS",
            Login::User(user, _) => user,
            Login::Token(_) => "of the token",
            Login::Nobody => "without a name",
        }
    }
}

/// Listens on `address`; `flag` is the option that changes it, named in the error when the port is taken.
///
/// # Errors
/// Names the address, and the flag if the port is taken.
pub async fn listen(address: SocketAddr, flag: &str) -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!("{address} is in use: stop what listens there, or choose with {flag}"),
            _ => format!("cannot listen on {address}: {error}"),
        };
        io::Error::new(error.kind(), text)
    })
}

/// The broker's addresses, and the login. Printing it shows neither user nor password.
#[derive(Clone)]
pub struct NatsUrl {
    servers: Vec<ServerAddr>,
    login: Login,
}

#[derive(Clone)]
enum Login {
    Nobody,
    Token(SecretString),
    User(String, SecretString),
}

/// The password of every user in a demo. It is no secret.
const DEMO_PASSWORD: &str = "demo-password";

fn demo_warning(user: &str, place: &str) -> String {
    format!("demo password for user {user} {place}, which is no secret: run deploy/secrets.sh, or set one of your own")
}

const ENCODE: &str =
    "a password must be percent-encoded: `@` is %40, `#` is %23, `/` is %2F, `?` is %3F, `,` is %2C, `%` is %25";

impl NatsUrl {
    /// Reads one or more URLs, separated by commas.
    ///
    /// # Errors
    /// Says what is wrong and what would be right, without the URL.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut all = Self { servers: vec![], login: Login::Nobody };
        let list = text.contains(',');
        for url in text.split(',').map(str::trim) {
            // What follows a comma within a password would otherwise pass as another server.
            if list && !url.contains("://") {
                return Err(format!("each URL of a list begins with nats:// or tls://; {ENCODE}"));
            }
            let (address, login) = Self::read_one(url)?;
            all.servers.push(address);
            if matches!(all.login, Login::Nobody) {
                all.login = login;
            }
        }
        Ok(all)
    }

    fn read_one(text: &str) -> Result<(ServerAddr, Login), String> {
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (login, _) = authority.rsplit_once('@').unwrap_or_default();
        if login.contains(['@', '/']) || authority.contains(['#', '?']) {
            return Err(ENCODE.into());
        }
        let form = "expected nats://[user:password@]host[:port], or tls:// in place of nats://";
        let address: ServerAddr = text.parse().map_err(|_| form.to_owned())?;
        if !["nats", "tls"].contains(&address.scheme()) || address.host().is_empty() {
            return Err(form.into());
        }
        let login = match (address.username(), address.password()) {
            (None, None) => Login::Nobody,
            (Some(token), None) => Login::Token(decode(token)?.into()),
            (user, password) => {
                Login::User(decode(user.unwrap_or_default())?, decode(password.unwrap_or_default())?.into())
            }
        };
        // The client does not read a login from its address, and would print the address in its errors and logs.
        let mut url = address.into_inner();
        let _ = (url.set_username(""), url.set_password(None));
        Ok((ServerAddr::from_url(url).map_err(|_| form.to_owned())?, login))
    }

    /// The servers, without login.
    pub fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// A warning, if the password is the one of a demo, `demo-password`.
    pub fn demo_warning(&self) -> Option<String> {
        let Login::User(user, password) = &self.login else { return None };
        (password.expose_secret() == DEMO_PASSWORD).then(|| demo_warning(user, "of the broker"))
    }

    /// Adds the login to connection options: the client does not take it from the address.
    pub fn authenticate(&self, options: ConnectOptions) -> ConnectOptions {
        match &self.login {
            Login::Nobody => options,
            Login::Token(token) => options.token(token.expose_secret().into()),
            Login::User(user, password) => options.user_and_password(user.clone(), password.expose_secret().into()),
        }
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, server) in self.servers.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", server.as_url_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "user and password must be percent-encoded UTF-8: `%` is %25".into())
}

fn read_path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

fn read_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))
}

fn read_certificates(text: &str) -> Result<PathBuf, String> {
    // Clients read it at each connect, and would not name it in their errors.
    File::open(text).map_err(|error| format!("`{text}` cannot be read: {error}"))?;
    Ok(text.into())
}

fn read_ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not a valid IP address: expected one such as 127.0.0.1 or 0.0.0.0"))
}

fn read_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a valid port: expected a whole number up to 65535; 0 takes any free one"))
}

fn read_count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("`{text}` is not a valid count: expected a whole number from 1 on"))
}

fn read_replicas(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("`{text}` is not a valid number of replicas: expected a whole number from 1 to {MOST}"))
}

fn read_duration(text: &str) -> Result<Duration, String> {
    let read = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    read.ok_or_else(|| format!("`{text}` is not a valid duration: expected one such as `14days` or `36h`"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Service {
        #[command(flatten)]
        config: Config,
    }

    fn read(args: &[&str]) -> Result<Config, String> {
        let args = ["service"].iter().chain(args);
        Service::try_parse_from(args).map(|service| service.config).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_and_environment_the_defaults_hold() {
        let command = Service::command().mut_args(|arg| arg.env(None::<&str>));
        let config = Service::from_arg_matches(&command.get_matches_from(["service"])).unwrap().config;
        assert_eq!(config.nats_url.to_string(), "nats://127.0.0.1:4222");
        assert_eq!(config.store("orders").to_string(), "sqlite://data/orders.db");
        assert_eq!(config.address(8081).to_string(), "127.0.0.1:8081");
        assert_eq!((config.unpublished_limit, config.journal_retention), (None, None));
        let timing = crate::engine::timing::Timing::default();
        assert_eq!(timing.unpublished_limit, 10_000, "as the flag's help says");
        assert_eq!(timing.journal_retention, Duration::from_secs(14 * 24 * 3600), "as the flag's help says");
    }

    #[test]
    fn a_bad_value_names_flag_and_variable_and_what_would_be_right() {
        for (flag, value, variable, right) in [
            ("--nats-url", "http://localhost", "NATS_URL", "nats://[user:password@]host[:port]"),
            ("--nats-url", "nats://", "NATS_URL", "nats://[user:password@]host[:port]"),
            ("--nats-url", "nats://host:port", "NATS_URL", "nats://[user:password@]host[:port]"),
            ("--store-url", "orders.db", "STORE_URL", "sqlite://data/orders.db"),
            ("--store-url", "sqlite://", "STORE_URL", "path of a file"),
            ("--host", "localhost", "HTTP_HOST", "127.0.0.1"),
            ("--port", "80000", "HTTP_PORT", "65535"),
            ("--log-format", "xml", "LOG_FORMAT", "`pretty` or `json`"),
            ("--log", "loud=very", "LOG", "info,millstream=debug"),
            ("--stream-replicas", "0", "STREAM_REPLICAS", "from 1 to 5"),
            ("--unpublished-limit", "0", "UNPUBLISHED_LIMIT", "from 1 on"),
            ("--journal-retention", "14 moons", "JOURNAL_RETENTION", "14days"),
            ("--await-declared", "maybe", "AWAIT_DECLARED", "`true` nor `false`"),
            ("--nats-creds", "", "NATS_CREDS", "empty"),
            ("--nats-ca", "nowhere.pem", "NATS_CA", "cannot be read"),
            ("--store-ca", "nowhere.pem", "STORE_CA", "cannot be read"),
        ] {
            let error = read(&[flag, value]).unwrap_err();
            for part in [flag, &format!("environment {variable}"), right] {
                assert!(error.contains(part), "`{part}` is missing in: {error}");
            }
        }
    }

    #[test]
    fn an_odd_password_is_hinted_at_and_never_printed() {
        for url in [
            "nats://me:hun@ter2@host",
            "nats://me:12#hunter2@host",
            "nats://me:hun/ter2@host",
            "nats://me:hunter2?@host",
            "nats://me:12,hunter2@host",
        ] {
            let error = read(&["--nats-url", url]).unwrap_err();
            assert!(error.contains("NATS_URL") && error.contains("`@` is %40"), "{error}");
            assert!(!error.contains("ter2"), "{error}");
        }
        let error = read(&["--store-url", "mongodb://me:hun@ter2@host"]).unwrap_err();
        let why = if cfg!(feature = "mongodb") { "`@` is %40" } else { "built without MongoDB" };
        assert!(error.contains("STORE_URL") && error.contains(why) && !error.contains("ter2"), "{error}");
    }

    #[test]
    fn a_secret_is_not_printed_and_reaches_the_client_decoded() {
        let config = read(&["--nats-url", "nats://me:hun%40ter%232@one,tls://two:4223"]).unwrap();
        assert_eq!(config.nats_url.to_string(), "nats://one,tls://two:4223");
        let printed = format!("{config:?}");
        assert!(!printed.contains("hun") && !printed.contains("me:"), "{printed}");
        let Login::User(user, password) = &config.nats_url.login else { panic!("a user") };
        assert_eq!((user.as_str(), password.expose_secret()), ("me", "hun@ter#2"));
    }

    #[test]
    fn the_password_of_a_demo_is_warned_of_with_its_user_and_the_remedy_and_no_other_is() {
        let broker = read(&["--nats-url", "nats://me:demo-password@host"]).unwrap().demo_warnings("orders");
        let [said] = &broker[..] else { panic!("{broker:?}") };
        for part in ["demo password for user me of the broker", "deploy/secrets.sh"] {
            assert!(said.contains(part), "`{part}` is missing in: {said}");
        }
        for url in ["nats://host", "nats://me:hunter2@host", "nats://demo-password@host"] {
            assert_eq!(read(&["--nats-url", url]).unwrap().demo_warnings("orders"), Vec::<String>::new(), "{url}");
        }
    }

    #[test]
    #[cfg(feature = "mongodb")]
    fn nor_is_it_overlooked_in_the_url_of_the_store() {
        let config = read(&["--store-url", "mongodb://me:demo-password@host/orders"]).unwrap();
        let said = config.demo_warnings("orders");
        assert!(matches!(&said[..], [one] if one.contains("user me of the store")), "{said:?}");
        let config = read(&["--store-url", "mongodb://demo-password:hunter2@host/orders"]).unwrap();
        assert_eq!(config.demo_warnings("orders"), Vec::<String>::new());
    }

    #[test]
    fn the_help_names_every_variable() {
        let help = Service::command().render_long_help().to_string();
        for variable in [
            "NATS_URL",
            "NATS_CREDS",
            "NATS_CA",
            "AWAIT_DECLARED",
            "STREAM_REPLICAS",
            "STORE_URL",
            "STORE_CA",
            "LOG_FORMAT",
            "UNPUBLISHED_LIMIT",
            "JOURNAL_RETENTION",
        ] {
            assert!(help.contains(variable), "{variable} is missing in {help}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_flag() {
        let taken = listen(([127, 0, 0, 1], 0).into(), "--port").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address, "--port").await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--port"), "{error}");
    }
}
