//! Names that a server is called by. A page on the web can make its reader's browser call any name that resolves to this machine, and
//! read the answers, if the page's own name does (DNS rebinding); then the `Host` header says that name.

use std::net::IpAddr;

/// The name or address in a `Host` header, without the port.
pub fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether a `Host` header can be of no page elsewhere: `localhost`, or an address, which nobody can make resolve to another.
pub fn is_own_host(host: &str) -> bool {
    let name = host_name(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_page_could_have_is_not_ours() {
        for host in ["localhost:8080", "LocalHost", "127.0.0.1:8080", "[::1]:8080", "10.0.0.7"] {
            assert!(is_own_host(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "[evil]:8080"] {
            assert!(!is_own_host(host), "{host}");
        }
    }
}
