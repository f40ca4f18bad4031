//! The shop's one binary: its services one by one or all in one process, and what plays with them and checks them.
#![warn(missing_docs)]

pub mod amount;
pub mod check;
pub mod data;
pub mod demo;
mod demo_load;
mod dice;
pub mod gateway;
pub mod load;
pub mod ports;
pub mod serve;
pub mod stock;
pub mod up;
pub mod whole;
mod wire;
