//! Models of what services run on, for simulations: deterministic, synchronous, without I/O and without a clock.

pub mod broker;
