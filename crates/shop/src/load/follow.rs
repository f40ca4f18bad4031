//! Following accepted orders to their ends, by pages: the lists of open orders are read until none of ours is in them, then
//! ours are looked up among the ended ones.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use reqwest::StatusCode;

use super::progress::Progress;
use crate::wire::{Api, Order};

/// The shortest pause between two looks at the open orders; looking costs the service something.
const PAUSE: Duration = Duration::from_millis(250);

/// How many times longer than a look the pause after it is, so that following a long backlog does not slow it down.
const PAUSE_PER_LOOK: u32 = 5;

/// What became of the accepted orders.
#[derive(Default)]
pub(super) struct Fates {
    pub(super) ended: Vec<Order>,
    /// Not ended in time.
    pub(super) open: Vec<String>,
    /// Accepted, and now unknown to the service.
    pub(super) lost: Vec<String>,
    /// Why the service could not be asked at the end, if so; the orders concerned are among the open ones.
    pub(super) trouble: Option<String>,
}

/// Waits until each order has ended, at most `patience` long, and reads what became of them.
pub(super) async fn follow(api: &Api, ids: &HashSet<String>, patience: Duration, progress: &Progress) -> Fates {
    let deadline = Instant::now() + patience;
    loop {
        let look = Instant::now();
        match open(api, ids).await {
            Ok(open) => {
                progress.at(ids.len() - open, ids.len());
                if open == 0 {
                    break;
                }
            }
            Err(error) => progress.say(&format!("{error:#}; retrying")),
        }
        let pause = PAUSE.max(look.elapsed() * PAUSE_PER_LOOK);
        if Instant::now() + pause >= deadline {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    read(api, ids).await
}

/// How many of ours are open. An order goes from PENDING to RESERVED only, so none slips through between the two lists when
/// they are read in that order.
async fn open(api: &Api, ids: &HashSet<String>) -> anyhow::Result<usize> {
    let mut open = HashSet::new();
    for status in ["PENDING", "RESERVED"] {
        let orders: Vec<Order> = api.list(&format!("/orders?status={status}"), "orders").await?;
        open.extend(orders.into_iter().map(|order| order.id).filter(|id| ids.contains(id)));
    }
    Ok(open.len())
}

/// How many orders are asked for one by one at the same time.
const AT_ONCE: usize = 32;

/// Finds ours in the list of all orders. It begins with the newest; when ours should have been found by then, or the list
/// fails, the rest are asked for by id.
async fn read(api: &Api, ids: &HashSet<String>) -> Fates {
    let mut found: HashMap<String, Order> = HashMap::new();
    let mut cursor: Option<String> = None;
    for _ in 0..2 * ids.len() / 1000 + 5 {
        let page = api.page::<Order>("/orders", "orders", cursor.as_deref()).await;
        let Ok((orders, next)) = page else { break };
        found.extend(orders.into_iter().filter(|order| ids.contains(&order.id)).map(|order| (order.id.clone(), order)));
        cursor = next;
        if cursor.is_none() || found.len() == ids.len() {
            break;
        }
    }
    let mut fates = Fates::default();
    let missing = ids.iter().filter(|id| !found.contains_key(*id)).cloned().collect::<Vec<_>>();
    let mut rest = stream::iter(missing).map(async |id| (one(api, &id).await, id)).buffer_unordered(AT_ONCE);
    while let Some((order, id)) = rest.next().await {
        match order {
            Ok(Some(order)) => drop(found.insert(id, order)),
            Ok(None) => fates.lost.push(id),
            Err(error) => {
                fates.trouble = Some(format!("{error:#}"));
                fates.open.push(id);
            }
        }
    }
    for order in found.into_values() {
        if order.ended_at.is_some() { fates.ended.push(order) } else { fates.open.push(order.id) }
    }
    fates.open.sort_unstable();
    fates.lost.sort_unstable();
    fates
}

async fn one(api: &Api, id: &str) -> anyhow::Result<Option<Order>> {
    let answer = api.http.get(api.url(&format!("/orders/{id}"))).send().await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Ok(Some(answer.error_for_status()?.json().await?))
}
