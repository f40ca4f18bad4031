//! What stands around a service's routes.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use super::extract::{Correlation, correlation, fresh_correlation};
use super::health::{self, Probe};
use super::problem::Problem;
use crate::telemetry::metrics::{HTTP_ACTIVE, HTTP_DURATION, HTTP_SHED, METHODS};
use crate::telemetry::{CONTENT_TYPE as METRICS_TYPE, Telemetry};

/// How many requests to a service's own routes may be in flight; more are answered with 503 at once.
pub const MAX_IN_FLIGHT: usize = 4096;

const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
/// `http_route` of requests that no route took: their paths are no closed set.
const NO_ROUTE: &str = "unmatched";

struct Shell {
    permits: Semaphore,
    max_in_flight: usize,
    probe: Arc<dyn Probe>,
    telemetry: Telemetry,
}

/// Wraps a service's routes: `/health`, `/livez`, `/readyz` and `/metrics` beside them, every error a problem with the
/// correlation id, panics caught, requests measured, and at most `max_in_flight` of them at once ([`MAX_IN_FLIGHT`]).
///
/// # Panics
/// When a route has the path of one of ours.
pub fn shell<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    state: S,
    probe: Arc<dyn Probe>,
    telemetry: Telemetry,
    max_in_flight: usize,
) -> Router {
    let metrics = telemetry.clone();
    let metrics = get(async move || ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render()));
    let shell =
        Arc::new(Shell { permits: Semaphore::new(max_in_flight), max_in_flight, probe: probe.clone(), telemetry });
    // Health and metrics are outside the bound: they must answer above all when there is too much to do.
    let bounded = routes.with_state(state).layer(from_fn_with_state(shell.clone(), bound));
    let inner = bounded
        .merge(health::routes(probe))
        .route("/metrics", metrics)
        .fallback(no_route)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(note_route));
    // A router adds `Allow` to a 405 after its own layers, so what reads it stands around the router.
    Router::new().fallback_service(inner).layer(from_fn_with_state(shell, surround))
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    Problem::not_found(format!("there is no route {method} {}", uri.path()))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    tracing::error!(panic = text.unwrap_or("not a text"), "a route panicked");
    Problem::internal().into_response()
}

/// Tells [`surround`], which stands outside the router, which route it was.
async fn note_route(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(path) = path {
        response.extensions_mut().insert(path);
    }
    response
}

async fn bound(State(shell): State<Arc<Shell>>, request: Request, next: Next) -> Response {
    let shed = |reason| shell.telemetry.counter(&HTTP_SHED, &[reason]).increment(1);
    let Ok(_permit) = shell.permits.try_acquire() else {
        shed("overload");
        let detail = format!("{} requests are in flight, which is the limit: try again", shell.max_in_flight);
        return Problem::unavailable(detail).into_response();
    };
    let response = next.run(request).await;
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        shed(if shell.probe.draining() { "draining" } else { "unavailable" });
    }
    response
}

/// Counts a request as active until it is answered or its caller gone.
struct Active(metrics::Gauge);

impl Active {
    fn new(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

async fn surround(State(shell): State<Arc<Shell>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let telemetry = &shell.telemetry;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let method_label = METHODS.iter().find(|known| **known == method.as_str()).unwrap_or(&"_OTHER");
    let _active = Active::new(telemetry.gauge(&HTTP_ACTIVE, &[method_label]));
    let given = correlation(request.headers());
    let id = given.as_ref().ok().cloned().flatten().unwrap_or_else(fresh_correlation);
    // An error span, so that a filter that lets only errors through does not take the ids from them.
    let span = tracing::error_span!("request", service = telemetry.service(), correlation = id);
    request.extensions_mut().insert(Correlation(id.clone()));

    let response = match given {
        Ok(_) => next.run(request).instrument(span.clone()).await,
        Err(problem) => problem.into_response(),
    };
    let mut response = finish(response, &method, &uri, id).await;

    let status = response.status();
    let route = response.extensions_mut().remove::<MatchedPath>();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let took = started.elapsed();
    telemetry.histogram(&HTTP_DURATION, &[method_label, route, status.as_str()]).record(took.as_secs_f64());
    let duration_ms = took.as_secs_f64() * 1e3;
    span.in_scope(
        || tracing::debug!(%method, path = uri.path(), route, status = status.as_u16(), duration_ms, "request"),
    );
    response
}

/// Names the correlation id in the answer, and makes a problem of every error that is none yet.
async fn finish(mut response: Response, method: &Method, uri: &Uri, correlation: String) -> Response {
    let status = response.status();
    let known = response.extensions_mut().remove::<Problem>();
    if known.is_some() || (is_error(status) && is_bare(response.headers())) {
        let (mut parts, body) = response.into_parts();
        let problem = match known {
            Some(problem) => problem,
            None => from_bare(status, &parts.headers, body, method, uri).await,
        };
        let rendered = problem.render(Some(&correlation));
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.extend(rendered.headers().clone());
        response = Response::from_parts(parts, rendered.into_body());
    }
    if let Ok(value) = HeaderValue::from_bytes(correlation.as_bytes()) {
        response.headers_mut().insert(X_CORRELATION_ID, value);
    }
    response
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Whether an answer has no body, or only a text: then it comes from the framework or a bare status of a route.
fn is_bare(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

async fn from_bare(
    status: StatusCode,
    headers: &HeaderMap,
    body: axum::body::Body,
    method: &Method,
    uri: &Uri,
) -> Problem {
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = headers.get(ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
        return Problem::new(status, format!("{method} is not possible on {}: use {allowed}", uri.path()));
    }
    // The text of a server error is about internals.
    let text = match status.is_client_error() {
        true => axum::body::to_bytes(body, 4096).await.unwrap_or_default(),
        false => bytes::Bytes::new(),
    };
    let text = String::from_utf8_lossy(&text);
    let text = if text.is_empty() { status.canonical_reason().unwrap_or("error") } else { &text };
    Problem::new(status, text)
}
