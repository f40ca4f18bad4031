//! What the gateway tells of its captures and refunds.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use contracts::Money;
use millstream::http::Problem;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::books::{Charge, Refund};
use crate::wire::total;

/// Which part of a list is wanted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    order_id: Option<String>,
    limit: Option<usize>,
    /// The last id of the page before, as `nextCursor` gave it.
    #[serde(alias = "cursor")]
    after: Option<String>,
}

const MAX_LIMIT: usize = 1000;

impl Listing {
    /// Ids are numbered in order, so the one to go on after says where it is.
    fn page<'a, T>(&self, all: &'a [T], id: impl Fn(&T) -> &str) -> Result<(&'a [T], Option<String>), Problem> {
        let limit = self.limit.unwrap_or(100);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let message = format!("must be from 1 to {MAX_LIMIT}");
            return Err(Problem::bad_request("no such page").at("limit", message));
        }
        let start = match &self.after {
            None => 0,
            Some(after) => after
                .rsplit_once('-')
                .and_then(|(_, number)| number.parse::<usize>().ok())
                .filter(|number| number.checked_sub(1).and_then(|at| all.get(at)).is_some_and(|item| id(item) == after))
                .ok_or_else(|| Problem::bad_request("no such page").at("after", "must be the nextCursor of a page"))?,
        };
        let end = all.len().min(start + limit);
        let page = &all[start..end];
        Ok((page, page.last().filter(|_| end < all.len()).map(|last| id(last).into())))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChargeList<'a> {
    charges: Vec<&'a Charge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefundList<'a> {
    refunds: Vec<&'a Refund>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub(super) async fn charges(State(gateway): Shared, Query(listing): Query<Listing>) -> Result<Response, Problem> {
    gateway.enter().await?;
    let books = gateway.books();
    let (charges, next_cursor) = match &listing.order_id {
        Some(order) => (books.of(order).collect(), None),
        None => {
            let (page, next) = listing.page(books.charges(), |charge| &charge.charge_id)?;
            (page.iter().collect(), next)
        }
    };
    Ok(Json(ChargeList { charges, next_cursor }).into_response())
}

pub(super) async fn refunds(State(gateway): Shared, Query(listing): Query<Listing>) -> Result<Response, Problem> {
    gateway.enter().await?;
    let books = gateway.books();
    let (refunds, next_cursor) = match &listing.order_id {
        Some(order) => (books.refunds().iter().filter(|refund| refund.order_id == *order).collect(), None),
        None => {
            let (page, next) = listing.page(books.refunds(), |refund| &refund.refund_id)?;
            (page.iter().collect(), next)
        }
    };
    Ok(Json(RefundList { refunds, next_cursor }).into_response())
}

/// What an audit wants to know; answered also while the gateway is down.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    captures: usize,
    captured: Money,
    refunds: usize,
    refunded: Money,
    /// Captured less refunded.
    net: Money,
    declines: u64,
    /// How many orders were captured more than once, and the first hundred of them.
    captured_twice: usize,
    captured_twice_orders: Vec<String>,
}

pub(super) async fn summary(State(gateway): Shared) -> Response {
    let books = gateway.books();
    let captured = total(books.charges().iter().map(|charge| charge.amount));
    let refunded = total(books.refunds().iter().map(|refund| refund.amount));
    let twice = books.captured_twice();
    let summary = Summary {
        captures: books.charges().len(),
        captured,
        refunds: books.refunds().len(),
        refunded,
        net: Money::from_minor(captured.minor() - refunded.minor()).unwrap_or_default(),
        declines: books.declines(),
        captured_twice: twice.len(),
        captured_twice_orders: twice.iter().take(100).map(|(order, _)| (*order).to_owned()).collect(),
    };
    Json(summary).into_response()
}
