//! The connection of one process to the broker, which can be cut or go silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// They end, and new ones are closed at once.
    Cut,
    /// They stay, and nothing is passed on; at its end they are closed, with all that was on its way.
    HalfOpen,
}

/// A port that leads to the broker while it is open. Dropped, it is closed.
pub(super) struct Line {
    pub(super) address: SocketAddr,
    state: watch::Sender<State>,
    _carrying: JoinSet<()>,
}

impl Line {
    pub(super) async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("there is no free port")?;
        let (state, seen) = watch::channel(State::Open);
        let address = listener.local_addr()?;
        let mut carrying = JoinSet::new();
        carrying.spawn(accept(listener, target, seen));
        Ok(Self { address, state, _carrying: carrying })
    }

    pub(super) fn turn(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(carry(client, target, state.clone()))),
                // There may be too many files open for a moment.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let passing = async {
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // How a connection ends is a matter between its two ends.
        let disturbed = tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != State::Open) => true,
            _ = copy_bidirectional(&mut client, &mut server) => false,
        };
        if disturbed {
            let _ = state.wait_for(|state| *state != State::HalfOpen).await;
        }
    };
    passing.await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Says everything back.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn said_back(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_line_that_is_cut_ends_its_connections_and_takes_new_ones_once_it_is_open_again() {
        let line = Line::to(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(line.address).await.unwrap();
        assert_eq!(said_back(&mut stream).await.unwrap(), b'x');
        line.turn(State::Cut);
        assert!(said_back(&mut stream).await.is_err());
        let mut stream = TcpStream::connect(line.address).await.unwrap();
        assert!(said_back(&mut stream).await.is_err());
        line.turn(State::Open);
        let mut stream = TcpStream::connect(line.address).await.unwrap();
        assert_eq!(said_back(&mut stream).await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_half_open_line_swallows_what_is_sent_until_it_is_open_and_then_ends_the_connection() {
        let line = Line::to(echo().await).await.unwrap();
        let mut old = TcpStream::connect(line.address).await.unwrap();
        assert_eq!(said_back(&mut old).await.unwrap(), b'x');
        line.turn(State::HalfOpen);
        let mut new = TcpStream::connect(line.address).await.unwrap();
        for stream in [&mut old, &mut new] {
            stream.write_all(b"x").await.unwrap();
        }
        let (mut a, mut b) = ([0], [0]);
        let heard = tokio::time::timeout(std::time::Duration::from_millis(50), async {
            tokio::select! {
                heard = old.read(&mut a) => heard,
                heard = new.read(&mut b) => heard,
            }
        });
        assert!(heard.await.is_err(), "neither an answer nor an end");
        line.turn(State::Open);
        for mut stream in [old, new] {
            assert_eq!(stream.read(&mut a).await.unwrap_or_default(), 0, "it has ended");
        }
    }
}
