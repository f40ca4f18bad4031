//! The four boards.

pub(crate) mod broker;
pub(crate) mod events;
pub(crate) mod service;
pub(crate) mod shop;
