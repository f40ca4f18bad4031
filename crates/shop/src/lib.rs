//! The shop in one place: the payment gateway simulator, load, and the check of the invariants.

pub mod amount;
mod dice;
pub mod gateway;
