//! The engine's own metrics.

use std::time::Duration;

use crate::engine::input::{Delivery, Input};
use crate::engine::plan::Plan;
use crate::ids::Timestamp;
use crate::store::{CommitError, WakesDue};

#[derive(Default)]
pub(crate) struct Meters {}

impl Meters {
    pub(crate) fn received(&self, _: &Delivery) {}
    pub(crate) fn published(&self, _: &str) {}
    pub(crate) fn publish_failed(&self) {}
    pub(crate) fn effect_ran(&self, _: &str, _: Duration) {}
    pub(crate) fn wakes_due(&self, _: &[WakesDue], _: Timestamp) {}
    pub(crate) fn conflict(&self, _: &CommitError) {}
    pub(crate) fn committed(&self, _: &[Input], _: &Plan) {}
}
