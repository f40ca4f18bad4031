//! The payment gateway simulator: an HTTP server that behaves like a real gateway, failures included.
//!
//! | route | does |
//! | --- | --- |
//! | `POST /charges` | `{orderId, amount, currency, customer}` with `Idempotency-Key` → 201 captured, 402 declined |
//! | `POST /refunds` | `{orderId, amount}` with `Idempotency-Key` → 201, or 409 if no unrefunded capture has that amount |
//! | `GET /charges?orderId=` | an order's captures; without `orderId` all of them, by pages (`limit`, `after`) |
//! | `GET /refunds?orderId=` | likewise |
//! | `GET /summary` | counts and sums, and the orders that were captured more than once |
//! | `GET`, `PUT /faults` | what goes wrong: `{decline, error, latencyMs, down, captureThenFail}` |
//! | `GET /` | these rules |
//!
//! **A repeated key gives the same answer**, for as long as keys are remembered (24 h by default, as gateways do). After that
//! a repeat charges again: a client that late must query (`GET /charges?orderId=`) before charging. The same key with a
//! different body is a 422. Only definite answers are remembered: 201 and 402.
//!
//! **The cents of the amount decide the result of a charge**:
//!
//! | cents | |
//! | --- | --- |
//! | .13 | declined |
//! | .17 | fails with 500 and no capture the first two times (`--fail-first`), then captured |
//! | .19 | no capture and no answer within 30 s (`--hang`) the first time, then captured |
//! | .23 | captured, and the connection is closed before the answer; a repeat under the same key gets it |
//! | other | captured |
//!
//! A refund is of one whole capture; amounts have no effect on it.
//!
//! **Faults** come on top, by shares of 0 to 1. Whom they hit follows from a hash of the seed and the order's id, so a run can
//! be repeated: `decline` and `captureThenFail` (capture or refund done, the first answer lost) by order, `error` (500,
//! nothing done) by attempt. `latencyMs` delays every answer about charges and refunds, and `down` makes it a 503.
//!
//! The state is in memory, and with a ledger also in an append-only file, so that captures survive `kill -9`.

mod audit;
mod books;
mod faults;
mod ledger;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use contracts::Money;
use millstream::http::{self, Problem};
use millstream::{FieldError, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::books::{Answer, Books, ChargeRequest, RefundRequest, Verdict};
pub use self::faults::Faults;

/// `shop gateway`: runs the payment gateway simulator.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on.
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// How it behaves.
    #[command(flatten)]
    pub settings: Settings,
}

/// How the gateway behaves.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// File that keeps captures and refunds across restarts; without it they are in memory only.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// How long idempotency keys are remembered; a later repeat charges again.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    pub remember_keys: Duration,
    /// How long a charge of .19 hangs without an answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub hang: Duration,
    /// How often a charge of .17 fails before it is captured.
    #[arg(long, value_name = "TIMES", default_value_t = 2)]
    pub fail_first: u32,
    /// Seed that selects the orders hit by faults: the same seed and order id give the same fault.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ledger: None,
            remember_keys: Duration::from_secs(24 * 3600),
            hang: Duration::from_secs(30),
            fail_first: 2,
            seed: 1,
        }
    }
}

struct Gateway {
    settings: Settings,
    faults: Mutex<Faults>,
    books: Mutex<Books>,
    /// Ends delays at shutdown, so that a hanging charge does not hold it up.
    stopping: CancellationToken,
}

type Shared = State<Arc<Gateway>>;

/// Listens where the options say and serves until `shutdown`.
///
/// # Errors
/// When the address is taken, or as [`serve`].
pub async fn run(options: Options, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let listen = options.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("the gateway cannot listen on {listen}: choose another address with --listen"))?;
    serve(listener, options.settings, shutdown).await
}

/// Serves the gateway until `shutdown`.
///
/// # Errors
/// When the ledger cannot be opened, is damaged, or belongs to another gateway.
pub async fn serve(
    listener: tokio::net::TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let books = Mutex::new(Books::open(&settings)?);
    let stopping = CancellationToken::new();
    let gateway = Gateway { settings, faults: Mutex::default(), books, stopping: stopping.clone() };
    let routes = Router::new()
        .route("/", get(about))
        .route("/charges", post(charge).get(audit::charges))
        .route("/refunds", post(refund).get(audit::refunds))
        .route("/summary", get(audit::summary))
        .route("/faults", get(faults).put(set_faults))
        .route("/livez", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(health))
        .route("/health", get(health))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such route; GET / lists the routes"))
        .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "see GET / for the methods"))
        .with_state(Arc::new(gateway));
    let listener = listener.tap_io(|connection| {
        // Without it a small answer waits for the acknowledgement of the one before.
        let _ = connection.set_nodelay(true);
    });
    let shutdown = async move {
        shutdown.await;
        stopping.cancel();
    };
    http::serve(listener, routes, shutdown).await.context("the gateway stopped serving")
}

impl Gateway {
    /// A panic under the lock cannot leave the books half changed in a way that matters more than going on.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delay(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// What every request about charges and refunds meets first.
    async fn enter(&self) -> Result<Faults, Problem> {
        let faults = self.faults();
        if faults.latency_ms > 0 {
            self.delay(Duration::from_millis(faults.latency_ms)).await;
        }
        // Read again: it may have gone down meanwhile.
        let faults = self.faults();
        if faults.down {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the gateway is down (PUT /faults {\"down\": false})",
            ));
        }
        Ok(faults)
    }

    async fn answer(&self, verdict: Verdict) -> Response {
        match verdict {
            Verdict::Answer(answer) => {
                let status = match answer {
                    Answer::Declined { .. } => StatusCode::PAYMENT_REQUIRED,
                    Answer::Captured { .. } | Answer::Refunded { .. } => StatusCode::CREATED,
                };
                (status, Json(answer)).into_response()
            }
            Verdict::Lost => broken(),
            Verdict::Hang => {
                self.delay(self.settings.hang).await;
                broken()
            }
            Verdict::Refused(status, detail) => Problem::new(status, detail).into_response(),
        }
    }
}

/// A body that fails makes the server drop the connection; the status is there only in case a client were to see it.
fn broken() -> Response {
    let cut: Result<Bytes, _> = Err(std::io::Error::other("the simulator closed the connection"));
    let body = Body::from_stream(futures_util::stream::iter([cut]));
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_LENGTH, "64")], body).into_response()
}

fn bad_field(field: &str, message: &str) -> FieldError {
    FieldError { field: field.into(), message: message.into() }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("invalid body: {error}")))
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.len() > 255 {
        let detail = "an Idempotency-Key header of 1 to 255 printable characters is required";
        return Err(Problem::bad_request(detail));
    }
    Ok(key.into())
}

fn check(order_id: &str, amount: Money) -> Vec<FieldError> {
    let mut errors = vec![];
    if order_id.is_empty() || order_id.len() > 64 {
        errors.push(bad_field("orderId", "an id of 1 to 64 characters is required"));
    }
    if amount <= Money::ZERO {
        errors.push(bad_field("amount", "must be above 0.00"));
    }
    errors
}

fn refuse_if_any(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Problem::bad_request("some fields are invalid: see `errors`").with_errors(errors))
    }
}

async fn charge(State(gateway): Shared, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let faults = gateway.enter().await?;
    let key = idempotency_key(&headers)?;
    let request: ChargeRequest = read(&body)?;
    let mut errors = check(&request.order_id, request.amount);
    if request.currency.len() != 3 || !request.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        errors.push(bad_field("currency", "three capital letters are required, such as EUR"));
    }
    refuse_if_any(errors)?;
    let verdict = gateway.books().charge(Timestamp::system(), key, request, &faults);
    Ok(gateway.answer(verdict).await)
}

async fn refund(State(gateway): Shared, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let faults = gateway.enter().await?;
    let key = idempotency_key(&headers)?;
    let request: RefundRequest = read(&body)?;
    refuse_if_any(check(&request.order_id, request.amount))?;
    let verdict = gateway.books().refund(Timestamp::system(), key, request, &faults);
    Ok(gateway.answer(verdict).await)
}

async fn faults(State(gateway): Shared) -> Json<Faults> {
    Json(gateway.faults())
}

/// Whether a request cannot come of a page on the web that had its name resolve to this machine: it names this machine, or a
/// name without a dot, as containers call each other.
fn is_known(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = http::host_name(host);
    http::is_own_host(host) || (!name.is_empty() && !name.contains('.'))
}

async fn set_faults(State(gateway): Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Faults>, Problem> {
    if !is_known(&headers) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "unknown host name: use localhost or an IP address"));
    }
    let faults = Faults::parse(&body)
        .map_err(|errors| Problem::bad_request("invalid faults; nothing was changed").with_errors(errors))?;
    *gateway.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    tracing::info!(?faults, "faults switched");
    Ok(Json(faults))
}

async fn health(State(gateway): Shared) -> Response {
    let down = gateway.faults().down;
    let status = if down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = json!({"status": if down { "down" } else { "ok" }, "timestamp": Timestamp::system()});
    (status, Json(body)).into_response()
}

async fn about(State(gateway): Shared) -> Response {
    let Settings { remember_keys, hang, fail_first, seed, .. } = &gateway.settings;
    let (remember_keys, hang) = (humantime::format_duration(*remember_keys), humantime::format_duration(*hang));
    Json(json!({
        "routes": [
            "POST /charges {orderId, amount, currency, customer}, Idempotency-Key: 201 captured, 402 declined",
            "POST /refunds {orderId, amount}, Idempotency-Key: 201, 409 if no unrefunded capture has that amount",
            "GET /charges?orderId= or ?limit=&after=", "GET /refunds?orderId= or ?limit=&after=", "GET /summary",
            "GET /faults", "PUT /faults {decline: 0..1, error: 0..1, latencyMs, down, captureThenFail: 0..1}; \
             what is left out is off",
        ],
        "centsOfACharge": {
            ".13": "declined",
            ".17": format!("fails with 500 and no capture the first {fail_first} times, then captured"),
            ".19": format!("no capture and no answer within {hang} the first time, then captured"),
            ".23": "captured, and the connection is closed before the answer; a repeat under the same key gets it",
            "other": "captured",
        },
        "keysRememberedFor": remember_keys.to_string(),
        "seed": seed,
    }))
    .into_response()
}
