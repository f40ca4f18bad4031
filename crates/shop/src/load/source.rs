//! Where the orders of a load come from: a file, or a seeded generator over a catalogue.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use contracts::Money;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Options;
use crate::dice::Dice;
use crate::wire::{Api, Product, total};

/// An order to submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Submission {
    /// The body of the POST.
    pub(super) body: String,
    /// The customer cancels it this long after it was accepted.
    pub(super) cancel_after: Option<Duration>,
}

/// Orders of the file if one is given, else generated ones.
pub(super) async fn orders(options: &Options, http: &reqwest::Client) -> anyhow::Result<Vec<Submission>> {
    if let Some(path) = &options.file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return read(&text).with_context(|| format!("{} is not a valid file of orders", path.display()));
    }
    let products = match &options.catalogue {
        Some(path) => catalogue(path)?,
        None => {
            let stock: Vec<Product> = Api::new(http, &options.inventory_url).list("/stock", "products").await.context(
                "cannot read the catalogue from inventory: check --inventory-url, or give a file with --catalogue",
            )?;
            stock.into_iter().map(|product| product.product_id).collect()
        }
    };
    ensure!(!products.is_empty(), "the catalogue is empty");
    Ok(generate(options, &products))
}

/// Reads a POST body a line; `cancel` and `cancelAfterMs` are ours and not sent.
fn read(text: &str) -> anyhow::Result<Vec<Submission>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| read_line(line).with_context(|| format!("line {}", number + 1))).collect()
}

fn read_line(line: &str) -> anyhow::Result<Submission> {
    // Raw, so that what is sent is what the file says, to the last digit.
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).context("not a JSON object")?;
    let cancel = match fields.remove("cancel").as_deref().map(RawValue::get) {
        None | Some("false") => None,
        Some("true") => Some(Duration::ZERO),
        Some(other) => bail!("cancel: {other} is neither true nor false"),
    };
    let after = fields.remove("cancelAfterMs").map(|raw| {
        raw.get()
            .parse()
            .map(Duration::from_millis)
            .with_context(|| format!("cancelAfterMs: {} is not a whole number of milliseconds", raw.get()))
    });
    Ok(Submission { body: serde_json::to_string(&fields)?, cancel_after: after.transpose()?.or(cancel) })
}

fn catalogue(path: &Path) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "productId")]
        product_id: String,
    }
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows: Result<Vec<Row>, _> = reader.deserialize().collect();
    let rows = rows.with_context(|| format!("{} is not a catalogue with a column productId", path.display()))?;
    Ok(rows.into_iter().map(|row| row.product_id).collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    user_id: String,
    items: Vec<NewLine>,
    total_amount: Money,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewLine {
    product_id: String,
    quantity: u32,
    price: Money,
}

/// The most lines of a generated order.
const LINES: usize = 3;

/// One of the currency.
const UNIT: Money = cents(100);
/// What the payment gateway declines.
const DECLINED: Money = cents(13);

const fn cents(cents: i64) -> Money {
    match Money::from_minor(cents) {
        Some(money) => money,
        None => Money::MAX,
    }
}

/// Prices are whole, so that an order's cents say what they are meant to say to the payment gateway: .13 is declined.
fn generate(options: &Options, products: &[String]) -> Vec<Submission> {
    let mut dice = Dice::new(options.seed);
    let prices: Vec<Money> = {
        // A product has one price whatever the seed of the orders.
        let mut dice = Dice::new(0);
        products.iter().map(|_| UNIT.checked_mul(2 + dice.below(148) as u32).unwrap_or(UNIT)).collect()
    };
    let order = |_| {
        let mut chosen: Vec<usize> = (0..=dice.below(LINES)).map(|_| dice.below(products.len())).collect();
        chosen.sort_unstable();
        chosen.dedup();
        let line = |product: &usize| NewLine {
            product_id: products[*product].clone(),
            quantity: 1 + dice.below(3) as u32,
            price: prices[*product],
        };
        let mut items: Vec<_> = chosen.iter().map(line).collect();
        if dice.roll() < options.decline
            && let Some(line) = items.first_mut()
        {
            line.quantity = 1;
            line.price = total([line.price, DECLINED].into_iter());
        }
        let total_amount = total(items.iter().filter_map(|line| line.price.checked_mul(line.quantity)));
        let user_id = format!("customer-{}", 1 + dice.below(1000));
        let cancel_after = (dice.roll() < options.cancel).then_some(Duration::ZERO);
        let order = NewOrder { user_id, items, total_amount };
        let body = serde_json::to_string(&order).unwrap_or_else(|error| panic!("an order cannot be written: {error}"));
        Submission { body, cancel_after }
    };
    (0..options.orders).map(order).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_as_it_is_but_for_the_cancels() {
        let text = "{\"userId\":\"a\",\"totalAmount\":1.10}\n\n{\"cancel\":true,\"userId\":\"b\"}\n{\"userId\":\"c\",\"cancelAfterMs\":20}\n";
        let cancel = |after: Option<u64>| after.map(Duration::from_millis);
        let submission = |body: &str, after| Submission { body: body.into(), cancel_after: cancel(after) };
        let expected = [
            submission(r#"{"totalAmount":1.10,"userId":"a"}"#, None),
            submission(r#"{"userId":"b"}"#, Some(0)),
            submission(r#"{"userId":"c"}"#, Some(20)),
        ];
        assert_eq!(read(text).unwrap(), expected);
        let error = format!("{:#}", read("{}\n{\"cancel\": 1}").unwrap_err());
        assert_eq!(error, "line 2: cancel: 1 is neither true nor false");
        assert!(read("[1]").is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_orders_and_totals_that_match() {
        let options = Options { orders: 200, decline: 0.1, ..Options::default() };
        let products: Vec<_> = (0..10).map(|n| format!("p-{n}")).collect();
        let orders = generate(&options, &products);
        assert_eq!(orders, generate(&options, &products));
        assert_ne!(orders, generate(&Options { seed: 2, ..options }, &products));
        let declined = orders.iter().filter(|order| order.body.contains(".13}")).count();
        assert!((5..40).contains(&declined), "{declined} of 200 at a share of 0.1");
    }

    #[test]
    fn the_sample_orders_add_up_are_of_the_sample_stock_and_hold_every_outcome() {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Sample {
            items: Vec<SampleLine>,
            total_amount: Money,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct SampleLine {
            product_id: String,
            quantity: u32,
            price: Money,
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        let products = catalogue(&folder.join("stock.csv")).unwrap();
        let orders = read(&std::fs::read_to_string(folder.join("orders.jsonl")).unwrap()).unwrap();
        let (mut declined, mut stumbling, mut lost) = (0, 0, 0);
        for order in &orders {
            let sample: Sample = serde_json::from_str(&order.body).unwrap();
            let sum = total(sample.items.iter().map(|line| line.price.checked_mul(line.quantity).unwrap()));
            assert_eq!(sample.total_amount, sum, "{}", order.body);
            assert!(sample.items.iter().all(|line| products.contains(&line.product_id)), "{}", order.body);
            match sample.total_amount.minor() % 100 {
                13 => declined += 1,
                17 => stumbling += 1,
                23 => lost += 1,
                cents => assert_ne!(cents, 19, "the sample is not held up by a charge that hangs"),
            }
        }
        let cancelled = orders.iter().filter(|order| order.cancel_after.is_some()).count();
        assert_eq!((orders.len(), declined, stumbling, lost, cancelled), (300, 14, 11, 5, 14));
    }
}
