//! The route.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use millstream::Document;
use millstream::commands::Context;
use millstream::http::{MAX_PAGE, Problem};
use millstream::store::Query;

use crate::figures::{Sold, Totals};
use crate::summary::Summary;

pub(crate) fn routes() -> Router<Context> {
    Router::new().route("/analytics/summary", get(summary))
}

async fn summary(State(cx): State<Context>) -> Result<Json<Summary>, Problem> {
    let totals = cx.get::<Totals>(Totals::ID).await?.unwrap_or_default();
    let mut sold: Vec<Sold> = vec![];
    let mut after = None;
    loop {
        let page = Query { collection: Sold::COLLECTION, filters: vec![], after, descending: false, limit: MAX_PAGE };
        let page = cx.page::<Sold>(page).await?;
        sold.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(Json(Summary::of(totals, sold)));
        }
    }
}
