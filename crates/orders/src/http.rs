//! The routes.

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use contracts::{OrderId, UserId};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, Filter, LastEventId, List, NoBody, Problem};
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
    let command = order
        .check()
        .map_err(|errors| Problem::bad_request("the order is invalid: see `errors`").with_errors(errors))?;
    let accepted = cx.submit_to(&caller, &settings, command).await?;
    Ok(accepted.created(format!("/orders/{}", accepted.id)))
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

async fn cancel(
    State(cx): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    _: NoBody,
) -> Result<(StatusCode, Accepted<Order>), Problem> {
    let id = id.parse().map_err(|_| no_such_order(&id))?;
    Ok((StatusCode::ACCEPTED, cx.submit(&caller, CancelOrder { id }).await?))
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
    let page = cx.page(list.query::<Order>(&[USER, STATUS])?.newest_first()).await?;
    Ok(Json(Orders { orders: page.items, next_cursor: page.next }))
}

fn no_such_order(id: &str) -> Problem {
    Problem::not_found(format!("no order with id {id}"))
}
