//! The console against a real broker, real services and a real browser.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use millstream::api_keys::HashedKey;
use millstream::config::Config;
use millstream::testing::eventually;
use millstream_console::{Actions, DemoAction, Settings};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

mod browser;
mod guard;
mod lists;
mod observer;
mod pages;
mod redrive;
mod tabs;

const SOON: Duration = Duration::from_secs(30);

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Inside {
    #[command(flatten)]
    config: Config,
}

/// A console that runs; aborted when dropped.
struct Console {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Console {
    async fn start(nats: &str, allow_actions: bool) -> Self {
        Self::start_at(nats, allow_actions, vec![], ([127, 0, 0, 1], 0).into()).await
    }

    async fn start_at(nats: &str, allow_actions: bool, demo: Vec<DemoAction>, at: SocketAddr) -> Self {
        let config = Inside::try_parse_from(["--nats-url", nats]).unwrap().config;
        let actions = if allow_actions { Actions::Yes } else { Actions::No };
        Self::serve(Settings { actions, demo, ..Settings::of(&config).await.unwrap() }, at).await
    }

    /// One that acts with a key.
    async fn start_with_key(nats: &str, key: &str) -> Self {
        let config = Inside::try_parse_from(["--nats-url", nats]).unwrap().config;
        let key = Some(HashedKey::of(key));
        let settings = Settings { actions: Actions::Yes, key, ..Settings::of(&config).await.unwrap() };
        Self::serve(settings, ([127, 0, 0, 1], 0).into()).await
    }

    /// One that lets anyone act, from anywhere.
    async fn start_for_anyone(nats: &str) -> Self {
        let config = Inside::try_parse_from(["--nats-url", nats]).unwrap().config;
        let settings = Settings { actions: Actions::ByAnyone, ..Settings::of(&config).await.unwrap() };
        Self::serve(settings, ([0, 0, 0, 0], 0).into()).await
    }

    async fn serve(settings: Settings, at: SocketAddr) -> Self {
        let listener =
            eventually("the console's port to be free", SOON, async || TcpListener::bind(at).await.ok()).await;
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(millstream_console::serve(settings, listener, async move { drop(stopped.await) }));
        Self { address, stop, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it in order; gives its place.
    async fn stop(self) -> SocketAddr {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
        self.address
    }
}
