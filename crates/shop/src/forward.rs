//! `shop forward`: hands TCP connections on, so that any number of replicas stands behind one fixed port.
//!
//! The target's name is looked up for each connection, and its addresses are tried in turn: a replica that is gone costs a
//! moment, not an error.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// Options of `shop forward`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Local port and the target of its connections.
    #[arg(required = true, value_name = "PORT=HOST:PORT")]
    routes: Vec<Route>,
    /// Address to listen on.
    #[arg(long, env = "HTTP_HOST", value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
}

/// `8081=orders:8081`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    port: u16,
    target: String,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(port, target)| {
            let (host, of_target) = target.rsplit_once(':')?;
            of_target.parse::<u16>().ok().filter(|_| !host.is_empty())?;
            Some(Self { port: port.parse().ok()?, target: target.into() })
        });
        parts.ok_or_else(|| "expected PORT=HOST:PORT, for example 8081=orders:8081".into())
    }
}

/// Forwards until `shutdown`.
///
/// # Errors
/// When a port cannot be listened on.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut listening = JoinSet::new();
    for Route { port, target } in options.routes {
        let host = options.host;
        let listener = TcpListener::bind((host, port)).await;
        let listener = listener.map_err(|error| anyhow!("cannot listen on {host}, port {port}: {error}"))?;
        listening.spawn(forward(listener, vec![target]));
    }
    shutdown.await;
    Ok(())
}

/// Hands each connection to the next of the targets that takes it.
pub(crate) async fn forward(listener: TcpListener, mut targets: Vec<String>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            // There are no descriptors left; some come back when connections end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        targets.rotate_left(1);
        let targets = targets.clone();
        tokio::spawn(async move {
            let Some(mut server) = connect(&targets).await else {
                tracing::warn!(?targets, "no replica accepts a connection");
                return;
            };
            // Small requests and answers must not wait for each other's acknowledgements.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            // How a connection ends is a matter between its two ends.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

async fn connect(targets: &[String]) -> Option<TcpStream> {
    for target in targets {
        let Ok(addresses) = lookup_host(target).await else { continue };
        for address in addresses {
            if let Ok(Ok(server)) = timeout(CONNECT, TcpStream::connect(address)).await {
                return Some(server);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;

    use super::*;

    #[test]
    fn a_route_is_a_port_and_where_it_leads() {
        assert_eq!("8081=orders:80".parse(), Ok(Route { port: 8081, target: "orders:80".into() }));
        for text in ["8081", "orders:8081", "8081=orders", "8081=:80", "x=orders:80", "8081=orders:http"] {
            assert!(text.parse::<Route>().unwrap_err().contains("8081=orders:8081"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_connection_reaches_what_stands_behind_the_port_and_goes_on_after_it_was_away() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let behind = server.local_addr().unwrap();
        // A replica that is down.
        let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let front = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", front.local_addr().unwrap());
        let forwarding = tokio::spawn(forward(front, vec![gone.to_string(), behind.to_string()]));
        let ask = async || reqwest::Client::new().get(&url).send().await?.text().await;

        let serve = |server| tokio::spawn(async { axum::serve(server, Router::new().route("/", get("here"))).await });
        let serving = serve(server);
        assert_eq!(ask().await.unwrap(), "here");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(ask().await.is_err(), "nobody is there");
        let serving = serve(TcpListener::bind(behind).await.unwrap());
        assert_eq!(ask().await.unwrap(), "here");
        serving.abort();
        forwarding.abort();
    }
}
