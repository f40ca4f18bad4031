//! The MongoDB store: the conformance suite.

use millstream::store::conformance::Database;
use millstream::testing::TestStore;

millstream::conformance_suite!(fresh);

fn fresh() -> Option<Database> {
    let stores = TestStore::on_mongo()?;
    Some(Database::At { url: stores.url("conformance"), keep: Box::new(stores) })
}
