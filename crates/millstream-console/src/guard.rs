//! Who may query, and who may act. Whoever reaches the console may look, but for the other pages that are open in the same
//! browser; whether one may act, the lock says.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use millstream::http::{Problem, host_name, is_own_host};

use crate::Console;

/// A header that a page from another origin can send only after a preflight request, which is never granted.
const OURS: HeaderName = HeaderName::from_static("x-millstream");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Puts the guard around routes.
pub(crate) fn around(routes: Router<Arc<Console>>, console: &Arc<Console>) -> Router<Arc<Console>> {
    routes.layer(from_fn_with_state(console.clone(), guard))
}

async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let mut response = match check(&console, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(console: &Console, request: &Request) -> Result<(), Problem> {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let refuse = |why: &str| Err(Problem::new(StatusCode::FORBIDDEN, why));
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(&HOST).unwrap_or_default();
    if !is_known(host, &console.names) {
        return refuse(
            "unknown host name: use localhost or an IP address, or start the console with --name (CONSOLE_NAMES)",
        );
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    if text(&OURS).is_none() {
        return refuse("the header X-Millstream is missing: send `X-Millstream: 1`");
    }
    let here = |origin: &str| origin.split_once("://").is_some_and(|(_, place)| place == host);
    // A client that is not a browser sends neither of the two.
    if text(&FETCH_SITE).is_some_and(|site| site != "same-origin") || text(&ORIGIN).is_some_and(|origin| !here(origin))
    {
        return refuse("requests from other origins are refused");
    }
    console.acting.admits(path, headers)
}

/// Whether a `Host` can only be ours. A foreign name could be made to resolve to this address to fool a browser (DNS rebinding);
/// an IP address cannot.
fn is_known(host: &str, names: &[String]) -> bool {
    is_own_host(host) || names.iter().any(|known| known.eq_ignore_ascii_case(host_name(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_anybodys_is_not_known() {
        for host in ["localhost:8080", "LocalHost", "127.0.0.1:8080", "[::1]:8080", "10.0.0.7", "ops.example.com:443"] {
            assert!(is_known(host, &["ops.example.com".into()]), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "[evil]:8080"] {
            assert!(!is_known(host, &["ops.example.com".into()]), "{host}");
        }
    }
}
