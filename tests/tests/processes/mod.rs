//! The engine in processes of their own, which are killed, stopped and poisoned: what came in is handled once all the same.
//!
//! [`ledger`] is the service that they run, [`child`] starts it, [`audit`] looks at broker and database from outside.

mod accounts;
mod audit;
mod books;
mod child;
mod commit;
mod crash;
mod ledger;
mod poison;
mod redrive;
mod replicas;
mod zombie;
