//! Logs and metrics: one table of metrics, one recorder a service.

mod logs;
pub mod metrics;
mod recorder;
mod snapshot;

pub use millstream_core::metric::{Kind, Metric};

pub use logs::{BadFilter, LogFormat, Logs, init_logs, init_logs_to};
pub use recorder::{CONTENT_TYPE, Labels, Telemetry, record};
pub use snapshot::Snapshot;

/// The revision of the sources that this was built from.
pub(crate) const REVISION: &str = match option_env!("MILLSTREAM_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
