//! Panels: what is shown, how, and what an operator is to make of it.

use serde_json::{Value, json};

/// Red, amber and green mean the same on every board.
pub(crate) const GREEN: &str = "green";
pub(crate) const AMBER: &str = "orange";
pub(crate) const RED: &str = "red";
pub(crate) const BLUE: &str = "blue";

/// Series by what their names match, and the colour that this meaning has everywhere.
const MEANINGS: &[(&str, &str)] = &[
    ("/^(handled|confirmed|settled|captured|sent|acknowledged|reserved|sold|2..|up|connected)( |$)/", GREEN),
    ("/^accepted( |$)/", BLUE),
    (
        "/^(retried|redelivered|nak|unacked|duplicate|cancelled|declined|rejected|released|4..|refund_pending)( |$)/",
        AMBER,
    ),
    ("/^(dead_lettered|dead letters|outage|timeout|refused|disconnected|5..|lease_lost|overdue)( |$)/", RED),
];

/// How a value is written.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Count,
    PerSecond,
    Seconds,
    Share,
    Bytes,
    Cents,
    /// A share of a second's time.
    Busy,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Share | Self::Busy => "percentunit",
            Self::Bytes => "bytes",
            Self::Cents => "short",
        }
    }
}

/// What is drawn.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Stat,
    Lines,
    Stacked,
    Heatmap,
    Bars,
    Table,
    Timeline,
}

/// A query and how its series are called.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) expr: String,
    pub(crate) legend: &'static str,
}

/// A panel before it has a place.
#[derive(Clone)]
pub(crate) struct Panel {
    pub(crate) kind: Kind,
    title: &'static str,
    unit: Unit,
    queries: Vec<Query>,
    what: &'static str,
    normal: &'static str,
    todo: &'static str,
    runbook: &'static str,
    /// From which value on a colour holds.
    steps: Vec<(f64, &'static str)>,
    links: Vec<Value>,
    max: Option<f64>,
    columns: Vec<(&'static str, &'static str)>,
}

impl Panel {
    pub(crate) fn new(
        kind: Kind,
        title: &'static str,
        unit: Unit,
        expr: impl Into<String>,
        legend: &'static str,
    ) -> Self {
        Self {
            kind,
            title,
            unit,
            queries: vec![Query { expr: expr.into(), legend }],
            what: "",
            normal: "",
            todo: "",
            runbook: "",
            steps: vec![],
            links: vec![],
            max: None,
            columns: vec![],
        }
    }

    /// A tile: green below the first step, or in the colours that `steps` name.
    pub(crate) fn stat(
        title: &'static str,
        unit: Unit,
        expr: impl Into<String>,
        steps: &[(f64, &'static str)],
    ) -> Self {
        let mut panel = Self::new(Kind::Stat, title, unit, expr, title);
        panel.steps = steps.to_vec();
        panel
    }

    pub(crate) fn lines(title: &'static str, unit: Unit, expr: impl Into<String>, legend: &'static str) -> Self {
        Self::new(Kind::Lines, title, unit, expr, legend)
    }

    pub(crate) fn stacked(title: &'static str, unit: Unit, expr: impl Into<String>, legend: &'static str) -> Self {
        Self::new(Kind::Stacked, title, unit, expr, legend)
    }

    pub(crate) fn heatmap(title: &'static str, unit: Unit, expr: impl Into<String>) -> Self {
        Self::new(Kind::Heatmap, title, unit, expr, "{{le}}")
    }

    pub(crate) fn and(mut self, expr: impl Into<String>, legend: &'static str) -> Self {
        self.queries.push(Query { expr: expr.into(), legend });
        self
    }

    /// What it shows, what is normal, what to do, and the runbook section.
    pub(crate) fn says(
        mut self,
        what: &'static str,
        normal: &'static str,
        todo: &'static str,
        runbook: &'static str,
    ) -> Self {
        (self.what, self.normal, self.todo, self.runbook) = (what, normal, todo, runbook);
        self
    }

    pub(crate) fn steps(mut self, steps: &[(f64, &'static str)]) -> Self {
        self.steps = steps.to_vec();
        self
    }

    /// The column of a label and how it is called.
    pub(crate) fn columns(mut self, columns: &[(&'static str, &'static str)]) -> Self {
        self.columns = columns.to_vec();
        self
    }

    /// A value never gets higher.
    pub(crate) fn max(mut self, max: f64) -> Self {
        self.max = Some(max);
        self
    }

    /// Leads to another board, with `variables` from the series' labels.
    pub(crate) fn leads_to(mut self, board: &str, title: &str, variables: &str) -> Self {
        let url = format!("/d/millstream-{board}?${{__url_time_range}}&${{datasource:queryparam}}{variables}");
        self.links.push(json!({ "title": title, "url": url, "targetBlank": false }));
        self
    }

    /// Leads to the dead letters that a series counts.
    pub(crate) fn leads_to_letters(mut self, filter: &str) -> Self {
        let url = format!("${{console}}/dead-letters?{filter}");
        self.links.push(json!({ "title": "These dead letters", "url": url, "targetBlank": true }));
        self
    }

    /// The panel with its number and place.
    pub(crate) fn render(&self, id: usize, place: Value) -> Value {
        let targets: Vec<Value> =
            (0_u8..).zip(&self.queries).map(|(number, query)| self.target(number, query)).collect();
        let description = format!(
            "**What:** {}\n\n**Normal:** {}\n\n**What to do:** {} Runbook: docs/runbooks.md#{}",
            self.what, self.normal, self.todo, self.runbook
        );
        json!({
            "id": id,
            "type": self.type_name(),
            "title": self.title,
            "description": description,
            "datasource": super::board::source(),
            "gridPos": place,
            "targets": targets,
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
            "options": self.options(),
            "transformations": self.transformations(),
            "links": [],
        })
    }

    fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Stat => "stat",
            Kind::Lines | Kind::Stacked => "timeseries",
            Kind::Heatmap => "heatmap",
            Kind::Bars => "bargauge",
            Kind::Table => "table",
            Kind::Timeline => "state-timeline",
        }
    }

    fn target(&self, number: u8, query: &Query) -> Value {
        let format = match self.kind {
            Kind::Heatmap => "heatmap",
            Kind::Table => "table",
            _ => "time_series",
        };
        let instant = matches!(self.kind, Kind::Table | Kind::Bars);
        json!({
            "refId": char::from(b'A' + number).to_string(),
            "datasource": super::board::source(),
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": format,
            "instant": instant,
            "range": !instant,
        })
    }

    fn defaults(&self) -> Value {
        let mut steps = vec![json!({ "color": self.steps.first().map_or(GREEN, |_| self.base()), "value": null })];
        steps.extend(
            self.steps
                .iter()
                .filter(|(value, _)| value.is_finite())
                .map(|(value, color)| json!({ "color": color, "value": value })),
        );
        let mut defaults = json!({
            "unit": self.unit.name(),
            "min": 0,
            "color": { "mode": if self.shows_thresholds() { "thresholds" } else { "palette-classic" } },
            "thresholds": { "mode": "absolute", "steps": steps },
            "mappings": [],
            "links": self.links,
        });
        if let Some(max) = self.max {
            defaults["max"] = json!(max);
        }
        match self.kind {
            Kind::Lines | Kind::Stacked => defaults["custom"] = self.drawing(),
            Kind::Stat => defaults["noValue"] = json!("no data"),
            Kind::Table => {
                defaults["custom"] = json!({
                    "align": "auto", "filterable": true, "inspect": false, "cellOptions": { "type": "auto" },
                })
            }
            _ => {}
        }
        defaults
    }

    /// The colour below the first step.
    fn base(&self) -> &'static str {
        self.steps.iter().find(|(value, _)| *value == f64::NEG_INFINITY).map_or(GREEN, |(_, color)| color)
    }

    fn shows_thresholds(&self) -> bool {
        matches!(self.kind, Kind::Stat | Kind::Bars | Kind::Timeline)
    }

    fn drawing(&self) -> Value {
        let stacked = self.kind == Kind::Stacked;
        let mut custom = json!({
            "drawStyle": "line",
            "lineWidth": if stacked { 1 } else { 2 },
            "fillOpacity": if stacked { 60 } else { 8 },
            "showPoints": "never",
            "spanNulls": false,
            "stacking": { "mode": if stacked { "normal" } else { "none" }, "group": "A" },
        });
        if !self.steps.is_empty() {
            custom["thresholdsStyle"] = json!({ "mode": "dashed" });
        }
        custom
    }

    fn overrides(&self) -> Vec<Value> {
        let fixed = |matcher: &str, color: &str| {
            json!({
                "matcher": { "id": "byRegexp", "options": matcher },
                "properties": [{ "id": "color", "value": { "mode": "fixed", "fixedColor": color } }],
            })
        };
        match self.kind {
            Kind::Lines | Kind::Stacked => MEANINGS.iter().map(|(matcher, color)| fixed(matcher, color)).collect(),
            _ => vec![],
        }
    }

    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.kind {
            Kind::Stat => json!({
                "colorMode": "background",
                "graphMode": "area",
                "justifyMode": "center",
                "orientation": "auto",
                "textMode": "value",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
                "reduceOptions": last,
            }),
            Kind::Lines | Kind::Stacked => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": false },
                "yAxis": { "unit": self.unit.name(), "axisPlacement": "left" },
                "rowsFrame": { "layout": "auto" },
                "legend": { "show": true },
                "tooltip": { "mode": "single", "yHistogram": true, "showColorScale": false },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                "filterValues": { "le": 1e-9 },
                "showValue": "never",
            }),
            Kind::Bars => json!({
                "displayMode": "gradient",
                "orientation": "horizontal",
                "showUnfilled": true,
                "reduceOptions": last,
                "valueMode": "color",
                "namePlacement": "auto",
                "sizing": "auto",
                "minVizWidth": 8,
                "minVizHeight": 16,
                "maxVizHeight": 300,
                "legend": { "displayMode": "hidden", "placement": "bottom", "showLegend": false, "calcs": [] },
            }),
            Kind::Table => json!({ "showHeader": true, "cellHeight": "sm", "frameIndex": 0 }),
            Kind::Timeline => json!({
                "mergeValues": true,
                "showValue": "never",
                "alignValue": "left",
                "rowHeight": 0.9,
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "single", "sort": "none" },
            }),
        }
    }

    fn transformations(&self) -> Vec<Value> {
        if self.kind != Kind::Table {
            return vec![];
        }
        let (shown, names): (Vec<_>, serde_json::Map<String, Value>) =
            self.columns.iter().map(|(label, name)| (*label, ((*label).to_owned(), json!(name)))).unzip();
        let order: serde_json::Map<String, Value> =
            shown.iter().enumerate().map(|(at, label)| ((*label).to_owned(), json!(at))).collect();
        vec![
            json!({ "id": "filterFieldsByName", "options": { "include": { "names": shown } } }),
            json!({ "id": "organize", "options": { "excludeByName": {}, "indexByName": order, "renameByName": names } }),
        ]
    }
}
