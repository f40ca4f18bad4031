//! The routes.

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use contracts::{OrderId, UserId};
use millstream::FieldError;
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, Filter, LastEventId, List, Problem};
use serde::Serialize;

use crate::new_order::NewOrder;
use crate::order::{Order, Status};
use crate::{CancelOrder, Settings};

/// The expected answers: method, route and status.
pub(crate) const ANSWERS: [[&str; 3]; 10] = [
    ["POST", "/orders", "201"],
    ["POST", "/orders", "400"],
    ["POST", "/orders", "503"],
    ["GET", "/orders", "200"],
    ["GET", "/orders/{id}", "200"],
    ["GET", "/orders/{id}", "404"],
    ["GET", "/orders/{id}/events", "200"],
    ["GET", "/orders/{id}/events", "404"],
    ["POST", "/orders/{id}/cancel", "202"],
    ["POST", "/orders/{id}/cancel", "409"],
];

pub(crate) fn routes(settings: Settings) -> Router<Context> {
    let place = move |cx, caller, body| place(settings, cx, caller, body);
    Router::new()
        .route("/orders", post(place).get(list))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/events", get(events))
        .route("/orders/{id}/cancel", post(cancel))
}

async fn place(
    settings: Settings,
    State(cx): State<Context>,
    caller: Caller,
    Body(order): Body<NewOrder>,
) -> Result<Response, Problem> {
    let command = order.check(settings).map_err(|errors| bad_request("the order is invalid: see `errors`", errors))?;
    let accepted = cx.submit(&caller, command).await?;
    let location = format!("/orders/{}", accepted.id);
    Ok(answer(StatusCode::CREATED, accepted, [(header::LOCATION, location)]))
}

async fn show(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<Order>, Problem> {
    let order = match id.parse::<OrderId>() {
        Ok(id) => cx.get::<Order>(&id).await?,
        Err(_) => None,
    };
    order.map(Json).ok_or_else(|| no_such_order(&id))
}

/// The current order, and each later version until it is finished, as server-sent events.
async fn events(State(cx): State<Context>, Path(id): Path<String>, seen: LastEventId) -> Result<Response, Problem> {
    let order: OrderId = id.parse().map_err(|_| no_such_order(&id))?;
    let watch = cx.watch::<Order>(&order).await?;
    if !watch.exists() {
        return Err(no_such_order(&id));
    }
    Ok(watch.events("status", seen, |order| order.status.has_ended()))
}

async fn cancel(State(cx): State<Context>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = id.parse().map_err(|_| no_such_order(&id))?;
    let accepted = cx.submit(&caller, CancelOrder { id }).await?;
    Ok(answer(StatusCode::ACCEPTED, accepted, []))
}

/// A page of orders, newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Orders {
    orders: Vec<Order>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<String>,
}

const USER: Filter = ("userId", |value| value.parse::<UserId>().map(drop).map_err(|error| error.to_string()));
const STATUS: Filter = ("status", |value| {
    let known = Status::ALL.into_iter().any(|status| status.name() == value);
    if known { Ok(()) } else { Err(format!("must be one of {}", Status::ALL.map(Status::name).join(", "))) }
});

async fn list(State(cx): State<Context>, list: List) -> Result<Json<Orders>, Problem> {
    let page = cx.page::<Order>(list.query::<Order>(&[USER, STATUS], true)?).await?;
    Ok(Json(Orders { orders: page.items, next_cursor: page.next }))
}

/// The committed reply, byte for byte the same for a repeated request; a header marks the repeat.
fn answer<const N: usize>(status: StatusCode, accepted: Accepted, headers: [(HeaderName, String); N]) -> Response {
    let mut response = (status, headers, accepted.reply).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if accepted.repeated {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn bad_request(detail: &str, errors: Vec<FieldError>) -> Problem {
    Problem { status: StatusCode::BAD_REQUEST, detail: detail.into(), errors }
}

fn no_such_order(id: &str) -> Problem {
    let detail = format!("no order with id {id}");
    Problem { status: StatusCode::NOT_FOUND, detail, errors: vec![] }
}
