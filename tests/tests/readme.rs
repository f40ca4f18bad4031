//! The README's service and its test, exactly as shown there, and the tests that prove the promises.
#![allow(unreachable_pub, reason = "the README shows a library")]

// README: service
use axum::extract::{Path, State};
use axum::{Json, Router, routing::get};
use contracts::orders::{OrderConfirmed, STREAM};
use millstream::{Document, Fault, Handler, Keys, Received, Service, Start, Unit};
use millstream::{commands::Context, http::Problem};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub struct Points {
    pub customer: String,
    pub balance: i64,
}

impl Document for Points {
    const COLLECTION: &'static str = "points";
    fn id(&self) -> &str {
        &self.customer
    }
}

/// A point for each euro of a confirmed order.
pub struct Earn;

impl Handler<OrderConfirmed> for Earn {
    fn touches(&self, order: &Received<OrderConfirmed>) -> Keys {
        Keys::one::<Points>(order.user_id.to_string())
    }
    fn handle(&self, order: &Received<OrderConfirmed>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let customer = order.user_id.to_string();
        let mut points = unit.get::<Points>(&customer)?.unwrap_or(Points { customer, balance: 0 });
        points.balance += order.total.minor() / 100;
        unit.put(points);
        Ok(())
    }
}

async fn show(State(cx): State<Context>, Path(customer): Path<String>) -> Result<Json<Option<Points>>, Problem> {
    Ok(Json(cx.get::<Points>(&customer).await?))
}

pub fn service() -> Service {
    Service::new("loyalty")
        .keeps::<Points>()
        .reads(STREAM, Start::Beginning)
        .on(Earn)
        .routes(Router::new().route("/points/{customer}", get(show)))
}
// README: end

fn an_order() -> OrderConfirmed {
    serde_json::from_str(include_str!("../../crates/contracts/golden/orders.confirmed.v1.json")).unwrap()
}

// README: test
#[test]
fn a_confirmed_order_earns_a_point_a_euro() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let order = an_order();
    sim.publish(&order);
    sim.settle().unwrap();
    let points: Points = sim.get("loyalty", &order.user_id.to_string()).unwrap();
    assert_eq!(points.balance, order.total.minor() / 100);
}
// README: end

#[test]
fn the_readme_shows_the_service_and_the_test_that_are_run_here() {
    let readme = include_str!("../../README.md");
    let here = include_str!("readme.rs");
    for part in ["service", "test"] {
        let (_, from) = here.split_once(&format!("// README: {part}\n")).unwrap();
        let (code, _) = from.split_once("// README: end").unwrap();
        assert!(readme.contains(code.trim_end()), "the README's {part} is not what tests/tests/readme.rs has");
    }
}

/// Every test that a page names as the proof of a promise exists, and the README's promises are among all of them.
#[test]
fn every_test_that_the_readme_or_the_guarantees_name_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = sources(root);
    let readme = tests_named(include_str!("../../README.md"));
    let guarantees = tests_named(include_str!("../../docs/guarantees.md"));
    assert!(readme.len() >= 10, "the README names {} tests", readme.len());
    assert!(guarantees.len() >= 33, "the guarantees name {} tests", guarantees.len());
    for name in &guarantees {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "docs/guarantees.md names a test `{name}`, which does not exist"
        );
    }
    for name in readme {
        assert!(guarantees.contains(&name), "the README names a test `{name}`, which docs/guarantees.md does not");
    }
}

fn tests_named(page: &str) -> Vec<&str> {
    page.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)).collect()
}

fn is_test_name(text: &str) -> bool {
    text.matches('_').count() >= 4
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn sources(folder: &std::path::Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && name != ".git" {
            all.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    all
}
