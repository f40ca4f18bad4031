//! A service as a program, with a `main` of one line.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Command, FromArgMatches};

use crate::config::{Config, listen};
use crate::service::{Options, Service};
use crate::signals::asked_to_stop;
use crate::telemetry::init_logs;
use crate::terminal::{is_unread, line, note, visible_lines};

/// Where HTTP is served without `--port`.
const PORT: u16 = 8080;

/// Runs a service as the whole of a program: reads flags and environment as [`Config`] describes them, starts the logs, serves
/// HTTP on port 8080 unless told otherwise, and stops in order at SIGTERM or SIGINT.
///
/// An error is printed as text. The exit code is 0 after an orderly stop, 2 if the command line or the environment is wrong, 1
/// if the service could not start or continue. A program that needs more control uses [`Service::run`].
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use millstream::Service;
///
/// #[tokio::main]
/// async fn main() -> ExitCode {
///     millstream::run(Service::new("weather")).await
/// }
/// ```
pub async fn run(service: Service) -> ExitCode {
    let command = Command::new(service.name());
    exit(start(command, std::env::args_os(), |_: Nothing| Ok::<_, Infallible>(service)).await)
}

/// Runs a service as [`run`] does, with flags of its own beside those of [`Config`].
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use millstream::Service;
///
/// #[derive(clap::Args)]
/// struct Args {
///     /// The station to ask for the weather.
///     #[arg(long, env = "STATION_URL", default_value = "http://127.0.0.1:9000")]
///     station_url: String,
/// }
///
/// fn service(args: Args) -> Result<Service, String> {
///     if args.station_url.is_empty() {
///         return Err("--station-url (STATION_URL): the value is empty".into());
///     }
///     Ok(Service::new("weather"))
/// }
///
/// #[tokio::main]
/// async fn main() -> ExitCode {
///     millstream::run_with(service).await
/// }
/// ```
pub async fn run_with<A: Args, E: Display>(service: impl FnOnce(A) -> Result<Service, E>) -> ExitCode {
    let mut args = std::env::args_os();
    let path = args.next().unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or(&path).to_string_lossy().into_owned();
    exit(start(Command::new(&*name.leak()), [path].into_iter().chain(args), service).await)
}

#[derive(Args)]
struct Nothing {}

/// Why a program ends with another exit code than 0.
#[derive(Debug)]
enum Failure {
    /// What was asked for is a help text, or is wrong.
    Asked(clap::Error),
    /// What was asked for cannot be done.
    Wrong(String),
    /// It could not start or continue.
    Ended(String),
}

fn exit(ended: Result<(), Failure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Asked(error)) => {
            drop(error.print());
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
        Err(Failure::Wrong(error)) => {
            note(&format!("error: {}", visible_lines(&error)));
            ExitCode::from(2)
        }
        Err(Failure::Ended(error)) => {
            note(&format!("error: {}", visible_lines(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn start<A: Args, E: Display>(
    command: Command,
    args: impl IntoIterator<Item = OsString>,
    service: impl FnOnce(A) -> Result<Service, E>,
) -> Result<(), Failure> {
    let command = A::augment_args(Config::augment_args(command));
    let matches = command.try_get_matches_from(args).map_err(Failure::Asked)?;
    let config = Config::from_arg_matches(&matches).map_err(Failure::Asked)?;
    let own = A::from_arg_matches(&matches).map_err(Failure::Asked)?;
    let service = service(own).map_err(|error| Failure::Wrong(error.to_string()))?;
    if config.declare {
        let printed = line(&service.declaration_with(&config).to_string());
        return printed
            .or_else(|error| if is_unread(&error) { Ok(()) } else { Err(Failure::Ended(error.to_string())) });
    }
    init_logs(&config.logs).map_err(|error| Failure::Wrong(error.to_string()))?;
    let listener = listen(config.address(PORT), "--port (HTTP_PORT)").await;
    let listener = listener.map_err(|error| Failure::Ended(error.to_string()))?;
    let ran = service.run(config, Options::default(), listener, asked_to_stop()).await;
    ran.map_err(|error| Failure::Ended(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Args)]
    struct Own {
        #[arg(long, default_value = "fine")]
        weather: String,
    }

    async fn failure(args: &[&str]) -> Failure {
        let args = ["weather"].iter().chain(args).map(Into::into);
        let service = |own: Own| match own.weather.as_str() {
            "fine" => Ok(Service::new("weather")),
            other => Err(format!("there is no {other} weather")),
        };
        start(Command::new("weather"), args, service).await.unwrap_err()
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_before_anything_starts() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let ended = failure(&["--host", "127.0.0.1", "--port", &port]).await;
        assert!(matches!(&ended, Failure::Ended(why) if why.contains("--port (HTTP_PORT)")), "{ended:?}");
        let wrong = failure(&["--weather", "foul"]).await;
        assert!(matches!(&wrong, Failure::Wrong(why) if why == "there is no foul weather"), "{wrong:?}");
        let asked = failure(&["--port", "high"]).await;
        assert!(matches!(&asked, Failure::Asked(error) if error.exit_code() == 2), "{asked:?}");
        let help = failure(&["--help"]).await;
        assert!(matches!(&help, Failure::Asked(text) if text.to_string().contains("--weather")), "{help:?}");
    }
}
