//! The file that Prometheus reads: recordings and alerts.

use std::fmt::Write;

use crate::alerts::{Severity, all, recordings};

/// Where the runbooks and the boards are, as Prometheus' configuration says it in its external labels.
const RUNBOOKS: &str = "{{ $externalLabels.runbooks }}";
const BOARDS: &str = "{{ $externalLabels.boards }}";

/// The file, in YAML.
pub fn file() -> String {
    // A JSON text is a YAML text too.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    // Labels that a rule adds are not there yet when its texts are filled in.
    let about = |text: &str, job: Option<&str>| text.replace("{{ $labels.job }}", job.unwrap_or("{{ $labels.job }}"));
    let mut file = String::from("# Written by `cargo xtask dashboards`.\ngroups:\n  - name: objectives\n    rules:\n");
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(file, "{text}");
    };
    for recording in recordings() {
        line(format_args!("      - record: {}", recording.name));
        line(format_args!("        expr: {}", quoted(&recording.expr)));
    }
    line(format_args!("  - name: alerts\n    rules:"));
    for alert in all() {
        let severity = if alert.severity == Severity::Page { "page" } else { "ticket" };
        line(format_args!("      - alert: {}", alert.name));
        line(format_args!("        expr: {}", quoted(alert.expr().trim())));
        line(format_args!("        for: {}", alert.lasts));
        line(format_args!("        labels:\n          severity: {severity}"));
        if let Some(job) = alert.job {
            line(format_args!("          job: {job}"));
        }
        line(format_args!("        annotations:"));
        line(format_args!("          summary: {}", quoted(&about(alert.summary, alert.job))));
        line(format_args!("          description: {}", quoted(&about(alert.description, alert.job))));
        line(format_args!("          runbook_url: {}", quoted(&format!("{RUNBOOKS}#{}", alert.anchor()))));
        line(format_args!("          dashboard_url: {}", quoted(&format!("{BOARDS}/d/millstream-{}", alert.board))));
    }
    file
}
