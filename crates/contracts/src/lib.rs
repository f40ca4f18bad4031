//! What the shop's services say to each other: the events of the three domains, one file each, and the values in them.
//!
//! Services never import each other; they meet here. The exact JSON of each event and version stands in `golden/`, and a
//! test holds the structs to it: readers ignore fields they do not know, values they do not know fail to parse.

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
