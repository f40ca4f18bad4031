//! The routes.

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use contracts::{OrderId, UserId};
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, Problem};
use millstream::store::Query;
use millstream::{Document, FieldError};
use serde::Serialize;

use crate::new_order::NewOrder;
use crate::order::{Order, Status};
use crate::{CancelOrder, Settings};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

pub(crate) fn routes(settings: Settings) -> Router<Context> {
    let place = move |cx, caller, body| place(settings, cx, caller, body);
    Router::new()
        .route("/orders", post(place).get(list))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/cancel", post(cancel))
}

async fn place(
    settings: Settings,
    State(cx): State<Context>,
    caller: Caller,
    Body(order): Body<NewOrder>,
) -> Result<Response, Problem> {
    let command = order.check(settings).map_err(|errors| bad_request("the order breaks the rules below", errors))?;
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

async fn cancel(State(cx): State<Context>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = id.parse().map_err(|_| no_such_order(&id))?;
    let accepted = cx.submit(&caller, CancelOrder { id }).await?;
    Ok(answer(StatusCode::ACCEPTED, accepted, []))
}

/// A page of orders, the newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    orders: Vec<Order>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<OrderId>,
}

async fn list(
    State(cx): State<Context>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Json<Page>, Problem> {
    let mut query = page_query(parameters).map_err(|errors| bad_request("the query is wrong", errors))?;
    let limit = query.limit;
    // One more than asked for tells whether there is a next page.
    query.limit += 1;
    let mut orders = cx.find::<Order>(query).await?;
    let more = orders.len() > limit;
    orders.truncate(limit);
    let next_cursor = orders.last().filter(|_| more).map(|order| order.id.clone());
    Ok(Json(Page { orders, next_cursor }))
}

fn page_query(parameters: Vec<(String, String)>) -> Result<Query, Vec<FieldError>> {
    let mut query =
        Query { collection: Order::COLLECTION, filters: vec![], after: None, descending: true, limit: DEFAULT_LIMIT };
    let mut errors = vec![];
    let mut seen: Vec<String> = vec![];
    for (name, value) in parameters {
        let message = match name.as_str() {
            _ if seen.contains(&name) => Some("is given twice".into()),
            "userId" => {
                value.parse::<UserId>().map(|_| query.filters.push(("userId", value))).err().map(|e| e.to_string())
            }
            "status" => match Status::ALL.into_iter().find(|status| status.name() == value) {
                Some(status) => {
                    query.filters.push(("status", status.name().into()));
                    None
                }
                None => Some(format!("must be one of {}", Status::ALL.map(Status::name).join(", "))),
            },
            "limit" => match value.parse() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => {
                    query.limit = limit;
                    None
                }
                _ => Some(format!("must be a whole number from 1 to {MAX_LIMIT}")),
            },
            "cursor" => match value.parse::<OrderId>() {
                Ok(_) => {
                    query.after = Some(value);
                    None
                }
                Err(_) => Some("must be a `nextCursor` as an earlier page gave it".into()),
            },
            _ => Some("is not known; there are userId, status, limit and cursor".into()),
        };
        errors.extend(message.map(|message: String| FieldError { field: name.clone(), message }));
        seen.push(name);
    }
    if errors.is_empty() { Ok(query) } else { Err(errors) }
}

/// The committed reply, byte for byte the same when a request is repeated; a header tells the repeat.
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
    let detail = format!("there is no order with the id {id}");
    Problem { status: StatusCode::NOT_FOUND, detail, errors: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(parameters: &[(&str, &str)]) -> Result<Query, Vec<FieldError>> {
        page_query(parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn a_list_is_filtered_limited_and_continued() {
        let query = query(&[("userId", "ALFKI"), ("status", "PENDING"), ("limit", "500"), ("cursor", "01932f6e-7a00")])
            .unwrap();
        assert_eq!(query.filters, [("userId", "ALFKI".to_owned()), ("status", "PENDING".to_owned())]);
        assert_eq!((query.limit, query.after.as_deref(), query.descending), (500, Some("01932f6e-7a00"), true));
    }

    #[test]
    fn every_wrong_parameter_is_named_with_what_would_be_right() {
        let wrong = [("userId", "a b"), ("status", "pending"), ("limit", "0"), ("cursor", "?"), ("sort", "x")];
        let errors = query(&wrong).unwrap_err();
        let said: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(said, wrong.map(|(name, _)| name));
        assert!(errors[1].message.contains("PENDING, RESERVED, CONFIRMED, CANCELLED"));
        for limit in ["-1", "501", "ten", "1.5", ""] {
            assert!(query(&[("limit", limit)]).unwrap_err()[0].message.contains("1 to 500"), "{limit}");
        }
        assert_eq!(query(&[("limit", "1"), ("limit", "2")]).unwrap_err()[0].message, "is given twice");
    }
}
