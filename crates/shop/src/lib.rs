//! The shop in one place: the payment gateway simulator, load, and the check of the invariants.

pub mod amount;
pub mod check;
mod dice;
pub mod gateway;
pub mod load;
mod wire;
