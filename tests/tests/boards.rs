//! The boards and rules as files: generated, by the conventions, of types that Grafana knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use boards::alerts::{self, Severity};
use boards::{RATE, dashboards, metrics, rules};
use millstream::operator::verdict::Kind;
use millstream::testing::skip;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The panels that show something.
pub(crate) fn panels(board: &Value) -> Vec<&Value> {
    board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

pub(crate) fn exprs(panel: &Value) -> Vec<&str> {
    panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap()).collect()
}

/// Everything that asks Prometheus: where, and the query.
pub(crate) fn queries() -> Vec<(String, String)> {
    let mut all = vec![];
    for (name, board) in dashboards() {
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap();
            all.extend(exprs(panel).into_iter().map(|expr| (format!("{name}: {title}"), expr.to_owned())));
        }
        for annotation in board["annotations"]["list"].as_array().unwrap() {
            let (title, expr) = (annotation["name"].as_str().unwrap(), annotation["target"]["expr"].as_str().unwrap());
            all.push((format!("{name}: annotation {title}"), expr.to_owned()));
        }
    }
    all
}

#[test]
fn the_committed_boards_and_rules_are_those_that_the_code_makes() {
    let again = "`cargo xtask dashboards` writes it anew";
    for (name, board) in dashboards() {
        let path = format!("grafana/dashboards/{name}.json");
        assert!(read(&path) == boards::text(&board), "{path} is not what the code makes: {again}");
    }
    let path = "deploy/prometheus/rules.yml";
    assert!(read(path) == rules::file(), "{path} is not what the code makes: {again}");
}

#[test]
fn boards_have_fixed_uids_and_no_part_that_provisioning_never_fills() {
    let uids: Vec<Value> = dashboards().into_iter().map(|(_, board)| board["uid"].clone()).collect();
    assert_eq!(uids, ["millstream-shop", "millstream-events", "millstream-service", "millstream-broker"]);
    for (name, board) in dashboards() {
        assert!(board.get("id").is_none() && board.get("__inputs").is_none(), "{name}");
        assert!(!board.to_string().contains("${DS_"), "{name}");
        assert_eq!(board["schemaVersion"], 41);
        let sources = find(&board, "datasource");
        assert!(sources.len() > 20);
        for source in sources {
            assert_eq!(*source, json!({ "type": "prometheus", "uid": "${datasource}" }), "{name}");
        }
        for panel in panels(&board) {
            assert!(panel.get("datasource").is_some(), "{name}: {panel}");
            assert!(panel["targets"].as_array().unwrap().iter().all(|target| target.get("datasource").is_some()));
        }
        let variables: Vec<&Value> = board["templating"]["list"].as_array().unwrap().iter().collect();
        let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "job", "instance", "console"]);
        assert!(variables[1]["multi"] == true && variables[1]["includeAll"] == true);
        assert_eq!((&board["graphTooltip"], &board["refresh"]), (&json!(1), &json!("10s")));
        assert_eq!((&board["time"]["from"], &board["timezone"]), (&json!("now-15m"), &json!("browser")));
        let link = &board["links"][0];
        assert_eq!(
            (&link["asDropdown"], &link["includeVars"], &link["keepTime"]),
            (&json!(true), &json!(true), &json!(true))
        );
        let annotations: Vec<Value> = find(&board["annotations"], "name").into_iter().cloned().collect();
        assert_eq!(annotations, ["Restarts", "Releases", "Alerts"]);
    }
    let source = read("grafana/provisioning/datasources/prometheus.yml");
    let scrape = read("deploy/prometheus/prometheus.yml");
    assert!(source.contains("uid: millstream-prometheus") && source.contains("timeInterval: 5s"));
    assert!(scrape.contains("scrape_interval: 5s"));
}

/// All values under a key, at any depth.
fn find<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let mut found = vec![];
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if name == key {
                    found.push(inner);
                } else {
                    found.extend(find(inner, key));
                }
            }
        }
        Value::Array(list) => found.extend(list.iter().flat_map(|inner| find(inner, key))),
        _ => {}
    }
    found
}

#[test]
fn the_first_row_has_at_most_eight_tiles_each_with_thresholds_and_rows_are_questions() {
    for (name, board) in dashboards() {
        let all = board["panels"].as_array().unwrap();
        let first_row = all.iter().position(|panel| panel["type"] == "row").unwrap();
        assert!((1..=8).contains(&first_row), "{name} has {first_row} tiles");
        for tile in &all[..first_row] {
            assert_eq!(tile["type"], "stat", "{name}: {tile}");
            let steps = tile["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
            assert!(steps.len() > 1, "{name}: {} has no thresholds", tile["title"]);
        }
        for row in all.iter().filter(|panel| panel["type"] == "row") {
            assert!(row["title"].as_str().unwrap().ends_with('?'), "{name}: {}", row["title"]);
        }
        let known = ["stat", "timeseries", "heatmap", "table", "bargauge", "state-timeline", "row", "text"];
        assert!(all.iter().all(|panel| known.contains(&panel["type"].as_str().unwrap())), "{name}");
    }
    let shop = &dashboards()[0].1;
    for tile in &panels(shop)[..8] {
        assert!(!tile["fieldConfig"]["defaults"]["links"].as_array().unwrap().is_empty(), "{}", tile["title"]);
    }
    let last = *panels(shop).last().unwrap();
    assert!(last["type"] == "table" && exprs(last)[0].contains("ALERTS"), "the Shop board ends in the alerts");
}

#[test]
fn panels_lie_side_by_side_and_never_on_each_other() {
    for (name, board) in dashboards() {
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24 && ids.insert(panel["id"].as_u64().unwrap()), "{name}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_panel_has_a_unit_and_says_what_it_is_what_is_normal_and_what_to_do() {
    let anchors = anchors();
    for (name, board) in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap();
            assert!(titles.insert((panel["type"].as_str(), title)), "{name}: {title} twice");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!defaults["unit"].as_str().unwrap().is_empty(), "{name}: {title}");
            assert_eq!(defaults["min"], 0, "{name}: {title}");
            let description = panel["description"].as_str().unwrap();
            let parts: Vec<&str> = description.split("\n\n").collect();
            assert_eq!(parts.len(), 3, "{name}: {title}");
            for (part, start) in parts.iter().zip(["**What:** ", "**Normal:** ", "**What to do:** "]) {
                let text = part.strip_prefix(start).unwrap_or_else(|| panic!("{name}: {title}: {part}"));
                assert!(text.split(" Runbook:").next().unwrap().ends_with('.'), "{name}: {title}: {part}");
            }
            let (_, anchor) = description.split_once("docs/runbooks.md#").unwrap();
            assert!(anchors.contains(anchor), "{name}: {title}: docs/runbooks.md has no {anchor}");
        }
    }
}

/// The anchors of the headings in the runbooks.
fn anchors() -> BTreeSet<String> {
    let text = read("docs/runbooks.md");
    text.lines().filter_map(|line| Some(line.strip_prefix("## ")?.to_lowercase())).collect()
}

#[test]
fn one_meaning_has_one_colour_by_override() {
    let mut colors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, board) in dashboards() {
        for panel in panels(&board).iter().filter(|panel| panel["type"] == "timeseries") {
            for rule in panel["fieldConfig"]["overrides"].as_array().unwrap() {
                let color = rule["properties"][0]["value"]["fixedColor"].as_str().unwrap().to_owned();
                for word in rule["matcher"]["options"].as_str().unwrap().split(['^', '(', ')', '|', '/', ' ', '$']) {
                    colors.entry(word.to_owned()).or_default().insert(color.clone());
                }
            }
        }
    }
    for (word, color) in
        [("handled", "green"), ("retried", "orange"), ("dead_lettered", "red"), ("5..", "red"), ("4..", "orange")]
    {
        assert_eq!(colors[word], BTreeSet::from([color.to_owned()]), "{word}");
    }
    colors.remove("");
    assert!(colors.values().all(|colors| colors.len() == 1), "{colors:?}");
}

/// The selectors' windows, `[5m]`, of a query.
fn windows(query: &str) -> Vec<&str> {
    query.split('[').skip(1).filter_map(|rest| Some(rest.split_once(']')?.0)).collect()
}

#[test]
fn queries_keep_to_what_holds_on_every_prometheus_and_after_a_restart() {
    let mut all = queries();
    let boards = all.len();
    for recording in alerts::recordings() {
        all.push((recording.name.clone(), recording.expr));
    }
    all.extend(alerts::all().iter().map(|alert| (alert.name.to_owned(), alert.expr())));
    for (at, (place, query)) in all.iter().enumerate() {
        assert!(!query.contains("irate("), "{place}");
        for window in windows(query) {
            // Aggregations of labels and ranges of values have no brackets.
            if at < boards {
                assert_eq!(window, RATE, "{place}: {query}");
            } else {
                let known = ["5m", "10m", "15m", "30m", "1h", "6h", "1d", "3d"];
                assert!(known.contains(&window), "{place}: {window} is no window of four scrapes or more");
            }
        }
        // Prometheus 3 stores `le="5"` as `le="5.0"`.
        for bound in query.split("le=\"").skip(1) {
            assert!(bound.split('"').next().unwrap().contains('.'), "{place}: a whole number as a bound: {query}");
        }
        for metric in metrics() {
            let counts = metric.name.ends_with("_total") && metric.kind == millstream::telemetry::Kind::Counter;
            if counts && let Some(start) = query.find(metric.name) {
                let before = &query[..start];
                let rated = ["rate(", "increase("].iter().any(|function| before.ends_with(function));
                assert!(rated, "{place}: a counter is no figure by itself: {query}");
            }
        }
        assert!(!query.contains("avg(") && !query.contains("avg by"), "{place}: no average of quantiles");
        if let Some((_, rest)) = query.split_once("histogram_quantile(") {
            assert!(rest.contains("sum by (le") && rest.contains("rate("), "{place}: {query}");
        }
    }
    for (name, board) in dashboards() {
        for panel in panels(&board).iter().filter(|panel| panel["type"] == "heatmap") {
            let query = exprs(panel)[0];
            assert!(query.starts_with("sum by (le) (increase("), "{name}: {query}");
            assert_eq!(panel["targets"][0]["format"], "heatmap");
        }
    }
}

#[test]
fn what_replicas_report_alike_is_never_added_up() {
    use millstream::telemetry::metrics::{UNPUBLISHED, UNPUBLISHED_AGE, WAKE_OVERDUE, WAKES_DUE};
    let alike = [&WAKES_DUE, &WAKE_OVERDUE, &UNPUBLISHED, &UNPUBLISHED_AGE, &orders::metrics::OVERDUE];
    for (place, query) in queries() {
        for metric in alike.iter().filter(|metric| query.contains(metric.name)) {
            assert!(query.starts_with("max"), "{place}: {metric} in {query}");
        }
    }
}

/// Metrics that are on no panel and in no rule, and why.
const UNSHOWN: [(&str, &str); 0] = [];

#[test]
fn every_metric_is_on_a_panel_or_in_a_rule() {
    let shown: Vec<String> = queries()
        .into_iter()
        .map(|(_, query)| query)
        .chain(alerts::recordings().into_iter().map(|recording| recording.expr))
        .chain(alerts::all().iter().map(alerts::Alert::expr))
        .collect();
    let names = |query: &String, name: &str| {
        query.match_indices(name).any(|(at, _)| {
            let rest = &query[at + name.len()..];
            let rest = ["_bucket", "_sum", "_count"].iter().find_map(|part| rest.strip_prefix(part)).unwrap_or(rest);
            !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    };
    for metric in metrics() {
        let excused = UNSHOWN.iter().any(|(name, _)| *name == metric.name);
        assert!(excused || shown.iter().any(|query| names(query, metric.name)), "{metric} is shown nowhere");
    }
}

#[test]
fn every_alert_has_a_runbook_that_ends_in_a_command_and_a_board() {
    let runbooks = read("docs/runbooks.md");
    let boards: Vec<&str> = dashboards().into_iter().map(|(name, _)| name).collect();
    let mut names = BTreeSet::new();
    for alert in alerts::all() {
        let section = runbooks.split("\n## ").find(|section| section.lines().next() == Some(alert.name));
        let section = section.unwrap_or_else(|| panic!("docs/runbooks.md says nothing of {}", alert.name));
        let command = section.trim_end().strip_suffix("\n```").and_then(|rest| rest.rsplit_once("```sh\n"));
        let (_, command) = command.unwrap_or_else(|| panic!("{} does not end in a command", alert.name));
        let program = command.split_whitespace().next().unwrap();
        assert!(["curl", "docker", "for"].contains(&program), "{}: {command}", alert.name);
        assert!(boards.contains(&alert.board), "{}", alert.name);
        assert!(alert.description.contains("$value"), "{} does not tell the value", alert.name);
        let seconds = alert.lasts.strip_suffix('s').and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
        assert!(seconds >= 15, "{}: evaluations are 15 s apart, and it is to be seen at two", alert.name);
        names.insert(alert.name);
    }
    let page = |name: &str| alerts::all().iter().any(|alert| alert.name == name && alert.severity == Severity::Page);
    assert!(page("SagaViolated") && page("OrdersLateFast") && !page("OrdersLateSlow") && !page("DeadLetters"));
    // One is for a customer who asks, before any alert does, and one for who restores a backup; the others are for verdicts.
    let own = ["The verdict", "Alerts", "An order hangs", "Restore"].into_iter().chain(Kind::ALL.map(Kind::runbook));
    let own: BTreeSet<&str> = own.filter(|name| !names.contains(name)).collect();
    let described = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).filter(|name| !own.contains(name));
    assert_eq!(described.collect::<BTreeSet<_>>(), names, "runbooks without an alert");
}

/// Grafana's types, put together to those that a board must be of.
const TYPES: &str = include_str!("boards/types.ts");

#[test]
#[ignore = "long"]
fn boards_are_of_the_types_that_grafana_has() {
    let what = "the boards against Grafana's own types";
    let has =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has("node") || !has("npm") {
        return skip(what, "there is no node or no npm");
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str]| Command::new(program).args(args).current_dir(&folder).output().unwrap();
    std::fs::write(folder.path().join("package.json"), r#"{"private":true,"type":"module"}"#).unwrap();
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"];
    let installed = run("npm", &[&install[..], &["@grafana/schema@13.2", "typescript@5.9"]].concat());
    if !installed.status.success() {
        return skip(what, "npm cannot install them");
    }
    std::fs::write(folder.path().join("types.ts"), TYPES).unwrap();
    let mut names = vec![];
    for (name, mut board) in dashboards() {
        let panels = board.as_object_mut().unwrap().remove("panels").unwrap();
        let mut text =
            format!("import type {{ Board, Shown }} from './types';\nexport const board: Board = {board};\n");
        for panel in panels.as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            text += &format!("export const panel{}: Shown = {panel};\n", panel["id"]);
        }
        std::fs::write(folder.path().join(format!("{name}.ts")), text).unwrap();
        names.push(format!("{name}.ts"));
    }
    let mut args = vec![
        "tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "--target",
        "esnext",
    ];
    args.extend(names.iter().map(String::as_str));
    let checked = run("npx", &args);
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
}
