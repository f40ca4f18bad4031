//! The routes.

use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use contracts::{OrderId, ProductId};
use millstream::commands::{Caller, Context};
use millstream::http::{Body, Problem};
use millstream::store::Query;
use millstream::{Document, FieldError};
use serde::{Deserialize, Serialize};

use crate::documents::{Product, Reservation};
use crate::stock::{SetStock, Stock};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;
const MAX_INITIAL: u64 = 1_000_000_000;
const MAX_NAME: usize = 200;

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/stock", get(list))
        .route("/stock/{productId}", get(show).put(set))
        .route("/reservations/{orderId}", get(reservation))
}

/// A page of products, by id.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    products: Vec<Stock>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<ProductId>,
}

async fn list(
    State(cx): State<Context>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Json<Page>, Problem> {
    let mut query = page_query(parameters).map_err(|errors| bad_request("the query is wrong", errors))?;
    let limit = query.limit;
    // One more than asked for tells whether there is a next page.
    query.limit += 1;
    let mut products = cx.find::<Product>(query).await?;
    let more = products.len() > limit;
    products.truncate(limit);
    let next_cursor = products.last().filter(|_| more).map(|product| product.id.clone());
    Ok(Json(Page { products: products.into_iter().map(Stock::from).collect(), next_cursor }))
}

fn page_query(parameters: Vec<(String, String)>) -> Result<Query, Vec<FieldError>> {
    let mut query = Query {
        collection: Product::COLLECTION,
        filters: vec![],
        after: None,
        descending: false,
        limit: DEFAULT_LIMIT,
    };
    let mut errors = vec![];
    for (field, value) in parameters {
        let message = match (field.as_str(), value.parse::<usize>(), value.parse::<ProductId>()) {
            ("limit", Ok(limit), _) if (1..=MAX_LIMIT).contains(&limit) => {
                query.limit = limit;
                continue;
            }
            ("cursor", _, Ok(_)) => {
                query.after = Some(value);
                continue;
            }
            ("limit", ..) => format!("must be a whole number from 1 to {MAX_LIMIT}"),
            ("cursor", ..) => "must be a `nextCursor` as an earlier page gave it".into(),
            _ => "is not known; there are limit and cursor".into(),
        };
        errors.push(FieldError { field, message });
    }
    if errors.is_empty() { Ok(query) } else { Err(errors) }
}

async fn show(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<Stock>, Problem> {
    let product = match id.parse::<ProductId>() {
        Ok(id) => cx.get::<Product>(&id).await?,
        Err(_) => None,
    };
    product.map(|product| Json(product.into())).ok_or_else(|| not_found(format!("there is no product {id}")))
}

/// The body of `PUT /stock/{productId}`.
#[derive(Debug, Deserialize)]
struct NewStock {
    initial: u64,
    #[serde(default)]
    name: Option<String>,
}

impl NewStock {
    fn check(self, product_id: &str) -> Result<SetStock, Vec<FieldError>> {
        let mut errors = vec![];
        let mut broken = |field: &str, message| errors.push(FieldError { field: field.into(), message });
        let product_id = product_id.parse::<ProductId>();
        if let Err(error) = &product_id {
            broken("productId", error.to_string());
        }
        if self.initial > MAX_INITIAL {
            broken("initial", format!("must be a whole number from 0 to {MAX_INITIAL}"));
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.chars().count() > MAX_NAME) {
            broken("name", format!("has 1 to {MAX_NAME} characters, or is left out"));
        }
        match product_id {
            Ok(product_id) if errors.is_empty() => Ok(SetStock { product_id, name: self.name, initial: self.initial }),
            _ => Err(errors),
        }
    }
}

async fn set(
    State(cx): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    Body(stock): Body<NewStock>,
) -> Result<Response, Problem> {
    let command = stock.check(&id).map_err(|errors| bad_request("the stock breaks the rules below", errors))?;
    let accepted = cx.submit(&caller, command).await?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], accepted.reply).into_response())
}

async fn reservation(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<Reservation>, Problem> {
    let found = match id.parse::<OrderId>() {
        Ok(id) => cx.get::<Reservation>(&id).await?,
        Err(_) => None,
    };
    found.map(Json).ok_or_else(|| not_found(format!("nothing was reserved or refused for an order {id}")))
}

fn bad_request(detail: &str, errors: Vec<FieldError>) -> Problem {
    Problem { status: StatusCode::BAD_REQUEST, detail: detail.into(), errors }
}

fn not_found(detail: String) -> Problem {
    Problem { status: StatusCode::NOT_FOUND, detail, errors: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_of_a_stock_is_named() {
        let check = |json: &str, id| {
            let stock: NewStock = serde_json::from_str(json).unwrap();
            stock.check(id).map_err(|errors| errors.into_iter().map(|error| error.field).collect::<Vec<_>>())
        };
        assert_eq!(check(r#"{"initial": 5}"#, "chai").unwrap().initial, 5);
        assert_eq!(
            check(r#"{"initial": 1000000001, "name": ""}"#, "a b").unwrap_err(),
            ["productId", "initial", "name"]
        );
        for wrong in ["{}", r#"{"initial": -1}"#, r#"{"initial": 1.5}"#, r#"{"initial": "5"}"#] {
            assert!(serde_json::from_str::<NewStock>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_wrong_parameter_of_a_list_is_named() {
        let query = |name: &str, value: &str| page_query(vec![(name.into(), value.into())]);
        assert_eq!(query("limit", "500").unwrap().limit, 500);
        assert_eq!(query("cursor", "chai").unwrap().after.as_deref(), Some("chai"));
        for (name, value) in [("limit", "0"), ("limit", "501"), ("limit", "x"), ("cursor", "?"), ("status", "SOLD")] {
            assert_eq!(query(name, value).unwrap_err()[0].field, name);
        }
    }
}
