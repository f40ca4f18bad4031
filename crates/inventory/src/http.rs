//! The routes.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use contracts::{OrderId, ProductId};
use millstream::FieldError;
use millstream::commands::{Accepted, Caller, Context};
use millstream::http::{Body, List, Problem};
use serde::{Deserialize, Serialize};

use crate::documents::{Product, Reservation};
use crate::stock::{SetStock, Stock};

const MAX_INITIAL: u64 = 1_000_000_000;
const MAX_NAME: usize = 200;

/// The expected answers: method, route and status.
pub(crate) const ANSWERS: [[&str; 3]; 4] = [
    ["GET", "/stock", "200"],
    ["GET", "/stock/{productId}", "200"],
    ["PUT", "/stock/{productId}", "200"],
    ["GET", "/reservations/{orderId}", "200"],
];

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/stock", get(list))
        .route("/stock/{productId}", get(show).put(set))
        .route("/reservations", get(reservations))
        .route("/reservations/{orderId}", get(reservation))
}

/// A page of products, by id.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Products {
    products: Vec<Stock>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<String>,
}

async fn list(State(cx): State<Context>, list: List) -> Result<Json<Products>, Problem> {
    let page = cx.page(list.query::<Product>(&[])?).await?;
    Ok(Json(Products { products: page.items.into_iter().map(Stock::from).collect(), next_cursor: page.next }))
}

/// A page of reservations, newest orders first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reservations {
    reservations: Vec<Reservation>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<String>,
}

async fn reservations(State(cx): State<Context>, list: List) -> Result<Json<Reservations>, Problem> {
    let page = cx.page(list.query::<Reservation>(&[])?.newest_first()).await?;
    Ok(Json(Reservations { reservations: page.items, next_cursor: page.next }))
}

async fn show(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<Stock>, Problem> {
    let product = match id.parse::<ProductId>() {
        Ok(id) => cx.get::<Product>(&id).await?,
        Err(_) => None,
    };
    product.map(|product| Json(product.into())).ok_or_else(|| Problem::not_found(format!("no product with id {id}")))
}

/// The body of `PUT /stock/{productId}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
            broken("name", format!("must have 1 to {MAX_NAME} characters, or be omitted"));
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
) -> Result<Accepted<Stock>, Problem> {
    let command = stock
        .check(&id)
        .map_err(|errors| Problem::bad_request("the request is invalid: see `errors`").with_errors(errors))?;
    Ok(cx.submit(&caller, command).await?)
}

async fn reservation(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<Reservation>, Problem> {
    let found = match id.parse::<OrderId>() {
        Ok(id) => cx.get::<Reservation>(&id).await?,
        Err(_) => None,
    };
    found.map(Json).ok_or_else(|| Problem::not_found(format!("no reservation for order {id}")))
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
        for wrong in
            ["{}", r#"{"initial": -1}"#, r#"{"initial": 1.5}"#, r#"{"initial": "5"}"#, r#"{"initial": 5, "Name": "x"}"#]
        {
            assert!(serde_json::from_str::<NewStock>(wrong).is_err(), "{wrong}");
        }
    }
}
