//! The store in memory: the conformance suite, and a service on it.

use std::sync::Arc;

use millstream::service::Options;
use millstream::store::conformance::Database;
use millstream::store::memory::MemoryStore;

use crate::bank::*;

millstream::conformance_suite!(fresh, in_process);

fn fresh() -> Database {
    Database::InProcess(Arc::new(MemoryStore::new()))
}

#[tokio::test]
async fn a_service_keeps_its_documents_in_memory_and_goes_on_from_them_after_a_restart() {
    let bench = bench().await;
    let store = MemoryStore::new();
    let options = || Options { timing: short(), store: Some(Arc::new(store.clone())), ..Options::default() };
    for (note, handled) in [("first", 1), ("second", 2)] {
        let service = bench.launch_with(ledger(&World::default()), options()).await;
        service.until_ready().await;
        publish(&bench, "a", note, Act::Add(1)).await;
        bench.until_handled(&BANK, SERVICE).await;
        assert_eq!(service.get::<Account>("a").await.unwrap().balance, handled);
        assert_eq!(bench.expect::<Noted>(handled as usize).await.len(), handled as usize);
        service.stop().await;
    }
    assert!(
        !std::path::Path::new(bench.store.url(SERVICE).trim_start_matches("sqlite://")).exists(),
        "no file is made"
    );
}
