//! Logs: one JSON object a line, or text for people.
//!
//! In JSON the fields of a line and of the spans around it are all at the top level, so a task that runs in a span with a
//! `service` field says in every line whose it is, also when several services share a process. The fields with a meaning
//! everywhere are `service`, `correlation`, `causation` and `event_id`.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{JsonFields, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::flag::Checked;
use crate::ids::Timestamp;
use crate::terminal::visible;

/// What is logged if nothing else is asked for.
const LOG: &str = "info,async_nats=warn";

/// What a process logs, and how.
#[derive(clap::Args, Clone, Debug)]
pub struct Logs {
    /// How log lines look, `pretty` or `json`. Default: pretty on a terminal, json elsewhere.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_parser = Checked(str::parse::<LogFormat>))]
    pub log_format: Option<LogFormat>,

    /// What is logged: a level (error, warn, info, debug, trace), or levels by module such as `info,millstream=debug`.
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = LOG, value_parser = Checked(checked_filter))]
    pub log: String,
}

impl Logs {
    /// How log lines look.
    pub fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or_else(LogFormat::detect)
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self { log_format: None, log: LOG.into() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, JSON elsewhere.
    pub fn detect() -> Self {
        if io::stderr().is_terminal() { Self::Pretty } else { Self::Json }
    }
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is not a valid log format: use `pretty` or `json`")),
        }
    }
}

/// A log filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{filter}` is not a valid log filter: use a level (error, warn, info, debug, trace), or such as `info,millstream=debug`"
)]
pub struct BadFilter {
    filter: String,
}

/// Starts the process's logs, on standard error so that standard output stays the program's own.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logs(logs: &Logs) -> Result<(), BadFilter> {
    match logs.log_format() {
        LogFormat::Json => init_json(&logs.log, io::stderr)?,
        LogFormat::Pretty => {
            let filter = read_filter(&logs.log)?;
            let logs = tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter);
            let logs = logs.with_writer(io::stderr).fmt_fields(debug_fn(write_visible).delimited(" "));
            // The first start of a process stays: a test that starts them again changes nothing.
            drop(tracing::subscriber::set_global_default(logs.with_ansi(io::stderr().is_terminal()).finish()));
        }
    }
    Ok(())
}

/// Starts the process's logs in a file, as JSON.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logs_to(file: std::fs::File, logs: &Logs) -> Result<(), BadFilter> {
    init_json(&logs.log, std::sync::Mutex::new(file))
}

/// A field as text for people, without what would steer the terminal.
fn write_visible(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(out, "{}", visible(&value)),
        name => write!(out, "{}={}", name.strip_prefix("r#").unwrap_or(name), visible(&value)),
    }
}

fn init_json(filter: &str, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> Result<(), BadFilter> {
    drop(tracing::subscriber::set_global_default(json_logs(read_filter(filter)?, writer)));
    // The default hook's many lines would be no JSON; as a line of ours the panic also has its span's ids.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    Ok(())
}

/// A filter as it is, if it can be read.
fn checked_filter(filter: &str) -> Result<String, String> {
    read_filter(filter).map(|_| filter.to_owned()).map_err(|error| error.to_string())
}

fn read_filter(filter: &str) -> Result<EnvFilter, BadFilter> {
    let bad = || BadFilter { filter: filter.into() };
    // An empty filter would be read as one that lets nothing through.
    if filter.trim().is_empty() {
        return Err(bad());
    }
    EnvFilter::builder().parse(filter).map_err(|_| bad())
}

fn json_logs<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        // Who no longer reads the logs must not end the process: the remark about it would be a panic.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .fmt_fields(JsonFields::new())
        .event_format(JsonLine)
        .finish()
}

/// A log line as JSON. The crate's own format nests the fields of spans, where a search for `service` does not find them.
struct JsonLine;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: Timestamp,
    level: &'a str,
    target: &'a str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Map::new();
        for span in cx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            // `JsonFields` has written the span's fields as a JSON object.
            if let Some(written) = span.extensions().get::<FormattedFields<N>>()
                && let Ok(Value::Object(of_span)) = serde_json::from_str(written)
            {
                fields.extend(of_span);
            }
        }
        event.record(&mut Fields(&mut fields));
        for reserved in ["timestamp", "level", "target"] {
            fields.remove(reserved);
        }
        let about = event.metadata();
        let line =
            Line { timestamp: Timestamp::system(), level: about.level().as_str(), target: about.target(), fields };
        writeln!(out, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, run: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let writer = sink.clone();
        let logs = json_logs(read_filter(filter).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(logs, run);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_spans_and_its_own_at_the_top() {
        let lines = logged("info", || {
            let _service = tracing::error_span!("service", service = "orders").entered();
            let _request = tracing::error_span!("request", correlation = "c-1\n\"x\"", attempt = 1).entered();
            tracing::info!(event_id = %"e-1", attempt = 2, late = true, "stored {}", "it");
            tracing::debug!("not this one");
        });
        let [line] = &lines[..] else { panic!("one line, not {lines:?}") };
        for (field, value) in [
            ("service", Value::from("orders")),
            ("correlation", "c-1\n\"x\"".into()),
            ("event_id", "e-1".into()),
            ("attempt", 2.into()),
            ("late", true.into()),
            ("message", "stored it".into()),
            ("level", "INFO".into()),
        ] {
            assert_eq!(line[field], value, "{field}");
        }
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[test]
    fn text_for_people_cannot_steer_the_terminal() {
        let sink = Sink::default();
        let writer = sink.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
        let logs = logs.fmt_fields(debug_fn(write_visible).delimited(" ")).finish();
        tracing::subscriber::with_default(logs, || {
            let _request = tracing::error_span!("request", correlation = %"c\u{1b}[2J").entered();
            tracing::error!(key = %"k\u{202e}\n", count = 2, "stored {}", "\u{9b}31m");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        for part in [r"correlation=c\u{1b}[2J", r"stored \u{9b}31m", r"key=k\u{202e}\n count=2"] {
            assert!(text.contains(part), "`{part}` is missing in: {text:?}");
        }
        assert_eq!(text.chars().filter(|letter| crate::terminal::steers(*letter)).collect::<String>(), "\n");
    }

    #[test]
    fn the_service_is_named_also_where_only_warnings_are_logged() {
        let telemetry = crate::telemetry::Telemetry::new("payments", &[]);
        let lines = logged("warn", || telemetry.span().in_scope(|| tracing::warn!("slow")));
        assert_eq!(lines[0]["service"], "payments");
    }

    #[test]
    fn a_line_stays_one_line_whatever_is_logged() {
        let lines = logged(
            "info",
            || tracing::info!(text = "a\nb\u{2028}\"}", nan = f64::NAN, error = ?io::Error::other("x\ny")),
        );
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["text"], &lines[0]["nan"]), (&Value::from("a\nb\u{2028}\"}"), &Value::Null));
    }

    #[test]
    fn a_bad_filter_says_what_would_be_right() {
        for bad in ["", "info,millstream=loud", "=debug"] {
            let Err(error) = read_filter(bad) else { panic!("`{bad}` was taken") };
            assert!(error.to_string().contains("info,millstream=debug"), "{error}");
        }
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("`pretty` or `json`"));
    }
}
