//! The route.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
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
    let all = Query::<Sold>::all().limit(MAX_PAGE);
    let mut page = cx.page(all.clone()).await?;
    loop {
        sold.extend(page.items);
        let Some(last) = page.next else { return Ok(Json(Summary::of(totals, sold))) };
        page = cx.page(all.clone().after(last)).await?;
    }
}
