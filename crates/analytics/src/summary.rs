//! [`Summary`]: the figures as returned to callers.

use std::collections::BTreeMap;

use millstream::Timestamp;
use serde::{Deserialize, Serialize};

use crate::figures::{Cancelled, Sold, Totals};
use crate::spread::Spread;
use crate::sum::Sum;

/// Maximum length of each list of [`TopProducts`].
const TOP: usize = 10;

/// The sales figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Time of the earliest counted event: after a rebuild, the earliest still in the stream. Anything before
    /// is not included. `null` if nothing is counted.
    pub since: Option<Timestamp>,
    /// Time of the latest counted event.
    pub until: Option<Timestamp>,
    /// Orders accepted.
    pub accepted: u64,
    /// Orders confirmed.
    pub confirmed: u64,
    /// Orders cancelled, by reason.
    pub cancelled: Cancelled,
    /// Revenue of confirmed orders, by currency.
    pub revenue: BTreeMap<String, Sum>,
    /// Time from acceptance to completion.
    pub saga_durations: Durations,
    /// Best-selling products.
    pub top_products: TopProducts,
}

/// Durations of sagas, by outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Durations {
    /// Of confirmed orders.
    pub confirmed: Timing,
    /// Of cancelled orders.
    pub cancelled: Timing,
}

/// Durations in milliseconds; all 0 if there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// The count.
    pub count: u64,
    /// The shortest.
    pub min_ms: u64,
    /// The mean.
    pub mean_ms: u64,
    /// The median; an estimate.
    pub p50_ms: u64,
    /// The 95th percentile; an estimate.
    pub p95_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl From<&Spread> for Timing {
    fn from(spread: &Spread) -> Self {
        Self {
            count: spread.count,
            min_ms: spread.min_ms,
            mean_ms: spread.mean_ms(),
            p50_ms: spread.percentile_ms(50),
            p95_ms: spread.percentile_ms(95),
            max_ms: spread.max_ms,
        }
    }
}

/// The best-selling products, in descending order. A product sold in several currencies is listed once per currency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopProducts {
    /// By quantity.
    pub by_quantity: Vec<Sold>,
    /// By revenue.
    pub by_revenue: Vec<Sold>,
}

impl Summary {
    pub(crate) fn of(totals: Totals, sold: Vec<Sold>) -> Self {
        let Totals { since, until, accepted, confirmed, cancelled, revenue, to_confirmed, to_cancelled } = totals;
        let saga_durations = Durations { confirmed: (&to_confirmed).into(), cancelled: (&to_cancelled).into() };
        let top_products =
            TopProducts { by_quantity: top(&sold, |sold| sold.quantity), by_revenue: top(&sold, |sold| sold.revenue) };
        Self { since, until, accepted, confirmed, cancelled, revenue, saga_durations, top_products }
    }
}

/// The highest; of equals the first by id, which is the order they come in.
fn top<K: Ord>(sold: &[Sold], key: impl Fn(&Sold) -> K) -> Vec<Sold> {
    let mut ranked: Vec<&Sold> = sold.iter().collect();
    ranked.sort_by_key(|sold| std::cmp::Reverse(key(sold)));
    ranked.into_iter().take(TOP).cloned().collect()
}
