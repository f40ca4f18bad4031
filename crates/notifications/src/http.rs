//! The route.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use contracts::OrderId;
use millstream::commands::Context;
use millstream::http::{Filter, List, Problem};
use serde::Serialize;

use crate::notification::Notification;

pub(crate) fn routes() -> Router<Context> {
    Router::new().route("/notifications", get(list))
}

/// A page of notifications, newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notifications {
    notifications: Vec<Notification>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<String>,
}

const ORDER: Filter = ("orderId", |value| value.parse::<OrderId>().map(drop).map_err(|error| error.to_string()));

async fn list(State(cx): State<Context>, list: List) -> Result<Json<Notifications>, Problem> {
    let page = cx.page(list.query::<Notification>(&[ORDER])?.newest_first()).await?;
    Ok(Json(Notifications { notifications: page.items, next_cursor: page.next }))
}
