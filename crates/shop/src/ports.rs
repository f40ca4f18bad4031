//! The shop's ports: the same in every mode, and moved together.

use std::fmt;
use std::io;
use std::net::IpAddr;

use anyhow::{Result, anyhow};
use tokio::net::TcpListener;

const DEFAULT_BASE: u16 = 8080;

/// Every port, from one number. The console's is the base itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(u16);

impl Ports {
    /// Free ports, whichever the system gives.
    pub const FREE: Self = Self(0);

    /// Reads `--port-base`.
    ///
    /// # Errors
    /// When it is no port, or leaves no room above it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(base) if base == 0 || (1024..=65_000).contains(&base) => Ok(Self(base)),
            _ => Err("a port base is a number from 1024 to 65000, or 0 for free ports".into()),
        }
    }

    /// The port of the console.
    pub fn console(self) -> u16 {
        self.above(0)
    }

    /// The port of the orders service.
    pub fn orders(self) -> u16 {
        self.above(1)
    }

    /// The port of the inventory service.
    pub fn inventory(self) -> u16 {
        self.above(2)
    }

    /// The port of the payments service.
    pub fn payments(self) -> u16 {
        self.above(3)
    }

    /// The port of the notifications service.
    pub fn notifications(self) -> u16 {
        self.above(4)
    }

    /// The port of the analytics service.
    pub fn analytics(self) -> u16 {
        self.above(5)
    }

    /// The port of the gateway simulator.
    pub fn gateway(self) -> u16 {
        self.above(10)
    }

    /// The port of the embedded broker: the one that NATS clients expect, or 42 above a base that was moved.
    pub fn broker(self) -> u16 {
        if self.0 == DEFAULT_BASE { 4222 } else { self.above(42) }
    }

    fn above(self, offset: u16) -> u16 {
        if self.0 == 0 { 0 } else { self.0 + offset }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(DEFAULT_BASE)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Listens on a port; `remedy` says what to do when it is taken.
///
/// # Errors
/// When it is taken, or the address is not this machine's.
pub async fn listen(what: &str, host: IpAddr, port: u16, remedy: &str) -> Result<TcpListener> {
    TcpListener::bind((host, port)).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!("port {port}, which {what} needs, is in use: {remedy}"),
        io::ErrorKind::AddrNotAvailable => anyhow!("{what} cannot listen on {host}: not an address of this machine"),
        _ => anyhow!("{what} cannot listen on {host}, port {port}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_moves_every_port_and_free_ports_stay_free() {
        let all = |ports: Ports| {
            let services =
                [ports.orders(), ports.inventory(), ports.payments(), ports.notifications(), ports.analytics()];
            (ports.console(), services, ports.gateway(), ports.broker())
        };
        assert_eq!(all(Ports::default()), (8080, [8081, 8082, 8083, 8084, 8085], 8090, 4222));
        assert_eq!(all(Ports::parse("9000").unwrap()), (9000, [9001, 9002, 9003, 9004, 9005], 9010, 9042));
        assert_eq!(all(Ports::parse("0").unwrap()), (0, [0; 5], 0, 0));
        for text in ["80", "65001", "70000", "-1", "http"] {
            assert!(Ports::parse(text).unwrap_err().contains("1024 to 65000"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_flag_that_moves_it() {
        let host = IpAddr::from([127, 0, 0, 1]);
        let taken = listen("orders", host, 0, "").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = listen("orders", host, port, "move it with --port-base").await.unwrap_err().to_string();
        assert_eq!(error, format!("port {port}, which orders needs, is in use: move it with --port-base"));
    }
}
