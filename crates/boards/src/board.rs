//! A board: its tiles, its rows, and what all boards have alike.

use serde_json::{Value, json};

use crate::panel::Panel;

/// The window of every rate on a board: Grafana makes it at least four scrapes long.
pub const RATE: &str = "$__rate_interval";
/// The jobs and instances that an operator has chosen.
pub(crate) const CHOSEN: &str = r#"job=~"$job",instance=~"$instance""#;

/// Grafana's columns, and the heights of a tile and of a panel.
const COLUMNS: usize = 24;
const TILE: usize = 4;
const HIGH: usize = 8;

pub(crate) fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Which variables a board asks for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Asks {
    /// None but the data source: job and instance are passed on and not shown.
    Nothing,
    /// Job and instance.
    Instance,
}

pub(crate) struct Board {
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    asks: Asks,
    panels: Vec<Value>,
    y: usize,
}

impl Board {
    pub(crate) fn new(uid: &'static str, title: &'static str, description: &'static str, asks: Asks) -> Self {
        Self { uid, title, description, asks, panels: vec![], y: 0 }
    }

    /// The first row: at most eight tiles.
    pub(crate) fn tiles(mut self, tiles: Vec<Panel>) -> Self {
        let wide = COLUMNS / tiles.len();
        for (at, tile) in tiles.iter().enumerate() {
            self.place(tile, at * wide, wide, TILE);
        }
        self.y += TILE;
        self
    }

    /// A row that answers a question, three panels abreast, or two, or one.
    pub(crate) fn row(mut self, question: &'static str, panels: Vec<Panel>) -> Self {
        let id = self.panels.len() + 1;
        let place = json!({ "x": 0, "y": self.y, "w": COLUMNS, "h": 1 });
        self.panels.push(json!({
            "id": id, "type": "row", "title": question, "collapsed": false, "gridPos": place, "panels": [],
        }));
        self.y += 1;
        let abreast = |left: usize| if left == 4 || left == 2 { 2 } else { left.min(3) };
        let mut rest = &panels[..];
        while !rest.is_empty() {
            let (line, after) = rest.split_at(abreast(rest.len()));
            let wide = COLUMNS / line.len();
            for (at, panel) in line.iter().enumerate() {
                self.place(panel, at * wide, wide, HIGH);
            }
            self.y += HIGH;
            rest = after;
        }
        self
    }

    fn place(&mut self, panel: &Panel, x: usize, wide: usize, high: usize) {
        let place = json!({ "x": x, "y": self.y, "w": wide, "h": high });
        self.panels.push(panel.render(self.panels.len() + 1, place));
    }

    pub(crate) fn build(self) -> Value {
        let shown = if self.asks == Asks::Instance { 0 } else { 2 };
        let all = json!({ "text": "All", "value": "$__all" });
        let variable = |name: &str, label: &str, query: &str| {
            json!({
                "name": name, "label": label, "type": "query", "hide": shown, "datasource": source(),
                "query": { "query": query, "refId": name, "qryType": 1 }, "multi": true, "includeAll": true, "allValue": ".+", "current": all, "options": [],
                "refresh": 2, "regex": "", "sort": 1, "skipUrlSync": false,
            })
        };
        let build = millstream::telemetry::metrics::BUILD_INFO.name;
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["millstream"],
            "schemaVersion": 41,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "time": { "from": "now-15m", "to": "now" },
            "refresh": "10s",
            "timezone": "browser",
            "fiscalYearStartMonth": 0,
            "templating": { "list": [
                {
                    "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
                    "current": { "text": "Prometheus", "value": "millstream-prometheus" }, "options": [], "multi": false, "includeAll": false, "refresh": 1, "regex": "",
                    "skipUrlSync": false,
                },
                variable("job", "Service", &format!("label_values({build}, job)")),
                variable("instance", "Instance", &format!("label_values({build}{{job=~\"$job\"}}, instance)")),
                {
                    "name": "console", "label": "Console", "type": "textbox", "hide": 2, "query": "http://localhost:8080",
                    "current": { "text": "http://localhost:8080", "value": "http://localhost:8080" }, "options": [],
                    "skipUrlSync": false,
                },
            ] },
            "annotations": { "list": [
                annotation("Restarts", "blue", format!("changes(process_start_time_seconds{{{CHOSEN}}}[{RATE}]) > 0"), "{{job}} restarted"),
                annotation(
                    "Releases", "purple",
                    format!("count by (job, version, revision) ({build}{{{CHOSEN}}}) unless count by (job, version, revision) ({build}{{{CHOSEN}}} offset {RATE})"),
                    "{{job}} {{version}} ({{revision}})",
                ),
                annotation("Alerts", "red", r#"ALERTS{alertstate="firing"}"#.into(), "{{alertname}}"),
            ] },
            "links": [{
                "title": "Millstream", "type": "dashboards", "tags": ["millstream"], "asDropdown": true, "icon": "external link",
                "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
            }],
            "panels": self.panels,
        })
    }
}

fn annotation(name: &str, color: &str, expr: String, title: &str) -> Value {
    json!({
        "name": name, "datasource": source(), "enable": true, "hide": false, "iconColor": color,
        "titleFormat": title, "target": { "refId": "Anno", "expr": expr, "interval": "10s" },
    })
}
