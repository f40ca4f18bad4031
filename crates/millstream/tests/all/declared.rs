//! What is declared and what is there must fit; what does not is said.

use millstream::Stream;
use millstream::service::Options;
use millstream::store::open;
use millstream::testing::Bench;

use crate::bank::*;

#[tokio::test]
async fn a_new_database_beside_an_old_durable_is_not_read_into_and_both_remedies_are_named() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    publish(&bench, "a", "first", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;

    publish(&bench, "a", "second", Act::Add(1)).await;
    let store = open(&bench.store.url("another")).unwrap();
    let options = Options { timing: short(), store: Some(store), ..Options::default() };
    let service = bench.launch_with(ledger(&World::default()), options).await;
    service
        .until_waits_for(
            "consumer ledger on BANK exists, but this database has never read the stream: \
             restore the database that belongs to it, or delete the consumer to start over",
        )
        .await;
    assert_eq!(bench.durable(&BANK, SERVICE).await.unwrap().num_pending, 1, "nothing is taken from it");
    bench.jetstream().get_stream(BANK.name).await.unwrap().delete_consumer(SERVICE).await.unwrap();
    service.until_ready().await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["first", "second"]);
    service.stop().await;
}

#[tokio::test]
async fn a_stream_with_another_partition_count_is_an_error_that_names_the_field() {
    let bench = Bench::start().await;
    bench.declare(&BANK).await;
    bench.declare(&Stream { partitions: 4, ..LEDGER }).await;
    let service = bench.launch(ledger(&World::default()), short()).await;
    service.until_waits_for("stream LEDGER exists with another `partitions`").await;
    service.stop().await;
}
