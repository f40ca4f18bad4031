//! Services that declare nothing: they wait for what `millstream declare` makes.

use super::*;

async fn says(app: &Caller, service: &str, part: &str) {
    let waits = async || {
        let (status, said) = app.ready(service).await;
        status == 503 && said.to_string().contains(part)
    };
    eventually(&format!("{service} to say `{part}`"), SOON, waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_declare_nothing_wait_for_their_streams_and_name_what_is_missing_and_the_remedy() {
    let broker = Guarded::start(&configuration(), &[]).await;
    let shop = Guests::start_undeclared(&broker, async |app| {
        for service in SERVICES {
            says(app, service, "is missing: run `millstream declare`").await;
        }
        says(app, "orders", "stream ORDERS is missing").await;
        // What a release declares otherwise than the one before it is waited for, too.
        let mut other = declarations();
        other[0].publishes[0].max_bytes = 1 << 20;
        let operator = Operator::new(broker.client("operator").await.0);
        operator.declare(&other).await.unwrap();
        says(app, "orders", "stream ORDERS differs from what this release declares (max_bytes)").await;
        broker.declare().await;
    })
    .await;
    let app = &shop.caller;
    app.stock("mug", 100).await;
    let order = app.place(order_of("ada", &[line("mug", 1, 1000)])).await;
    assert_eq!(app.ended(&order).await["status"], "CONFIRMED");

    // While they run they do not make it again either, and go on when it is there.
    let operator = jetstream::new(broker.client("operator").await.0);
    operator.delete_stream("DLQ_PAYMENTS").await.unwrap();
    operator.delete_stream("ORDERS").await.unwrap();
    says(app, "orders", "stream ORDERS is missing").await;
    says(app, "analytics", "stream ORDERS is missing").await;
    broker.declare().await;
    app.urls.ready(&app.http, SOON).await.unwrap();
    let order = app.place(order_of("bob", &[line("mug", 1, 1000)])).await;
    assert_eq!(app.ended(&order).await["status"], "CONFIRMED");
    let log = fs::read_to_string(broker.folder.path().join("log")).unwrap();
    assert!(!log.contains("Violation"), "nobody tries what it may not: {log}");
}
