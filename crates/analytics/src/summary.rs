//! [`Summary`]: the figures as callers see them.

use std::collections::BTreeMap;

use millstream::Timestamp;
use serde::{Deserialize, Serialize};

use crate::figures::{Cancelled, Sold, Totals};
use crate::spread::Spread;
use crate::sum::Sum;

/// How many products each list of [`TopProducts`] has at most.
const TOP: usize = 10;

/// What the orders add up to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// When the earliest event that is counted happened: after a rebuild, the earliest that the stream still held. What was before
    /// is not in these figures. `null` if nothing is counted.
    pub since: Option<Timestamp>,
    /// When the latest did.
    pub until: Option<Timestamp>,
    /// Orders accepted.
    pub accepted: u64,
    /// Orders confirmed.
    pub confirmed: u64,
    /// Orders cancelled, by reason.
    pub cancelled: Cancelled,
    /// What confirmed orders have paid, by currency.
    pub revenue: BTreeMap<String, Sum>,
    /// How long orders took from their acceptance to their end.
    pub saga_durations: Durations,
    /// What was sold most.
    pub top_products: TopProducts,
}

/// Durations of sagas, by how they ended.
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
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min_ms: u64,
    /// The mean.
    pub mean_ms: u64,
    /// Half of them take no longer; an estimate.
    pub p50_ms: u64,
    /// 95 % of them take no longer; an estimate.
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

/// The products of which most was sold, the first first. A product that was sold in several currencies is there once for each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopProducts {
    /// By pieces.
    pub by_quantity: Vec<Sold>,
    /// By what they brought in.
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
