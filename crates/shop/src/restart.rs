//! A service that can be stopped for a while, in order as for an update, and is then started again at its place.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use millstream::Service;
use millstream::config::Config;
use millstream::service::Options;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long until a place that is not free yet is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Stops a service for a while.
#[derive(Clone, Debug)]
pub(crate) struct Breaks(mpsc::Sender<Break>);

pub(crate) struct Break {
    time: Duration,
    stopped: oneshot::Sender<()>,
}

/// What asks for breaks, and what makes them.
pub(crate) fn breaks() -> (Breaks, mpsc::Receiver<Break>) {
    let (ask, asked) = mpsc::channel(1);
    (Breaks(ask), asked)
}

impl Breaks {
    /// Returns once the service has stopped, and whether it was this that stopped it: it may have a break already.
    pub(crate) async fn stop_for(&self, time: Duration) -> bool {
        let (stopped, has_stopped) = oneshot::channel();
        self.0.send(Break { time, stopped }).await.is_ok() && has_stopped.await.is_ok()
    }
}

/// Runs a service until `stop`, with the breaks that are asked for.
pub(crate) async fn run(
    make: impl Fn() -> Result<(Service, Config)>,
    options: Options,
    mut listener: TcpListener,
    stop: CancellationToken,
    mut breaks: mpsc::Receiver<Break>,
) -> Result<()> {
    let address = listener.local_addr()?;
    loop {
        let (service, config) = make()?;
        let name = service.name();
        let once = stop.child_token();
        let mut running = pin!(service.run(config, options.clone(), listener, once.clone().cancelled_owned()));
        let Break { time, stopped } = tokio::select! {
            ended = &mut running => return Ok(ended?),
            Some(asked) = breaks.recv() => asked,
        };
        once.cancel();
        running.await?;
        tracing::info!(service = name, ?time, "stopped for a while");
        let work = async {
            let place = keep(address).await;
            // Nobody waits for the answer who has hung up.
            let _ = stopped.send(());
            sleep(time).await;
            place.listen(BACKLOG)
        };
        let refuse = async {
            // A second request is refused: the service is already stopped.
            while let Some(asked) = breaks.recv().await {
                drop(asked);
            }
            std::future::pending::<()>().await
        };
        listener = tokio::select! {
            listening = work => listening?,
            () = stop.cancelled() => return Ok(()),
            () = refuse => return Ok(()),
        };
    }
}

/// Reserves an address while the service is stopped: a bound socket that does not listen refuses connections, and keeps
/// others from taking the port.
async fn keep(address: SocketAddr) -> TcpSocket {
    loop {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let bound = socket.and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        });
        match bound {
            Ok(socket) => return socket,
            Err(error) => tracing::debug!(%error, %address, "the place is not free yet"),
        }
        sleep(AGAIN).await;
    }
}
