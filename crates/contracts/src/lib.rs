//! The contracts between the shop's services: the events of the three domains, one file each, and their value types.
//!
//! Services never import each other; they share only this crate. The exact JSON of each event and version is in `golden/`, and a
//! test compares the structs with it: readers ignore unknown fields; unknown values fail to parse.

pub mod inventory;
pub mod orders;
pub mod payments;

mod ids;
mod line;
mod money;

pub use ids::{InvalidId, OrderId, ProductId, UserId};
pub use line::Line;
pub use money::{Currency, InvalidMoney, Money};

#[cfg(test)]
mod golden;
