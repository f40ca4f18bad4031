//! Alerts on their way to people: a real Alertmanager with the configuration that its image has.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use millstream::testing::{eventually, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::containers::{read, root, variables};
use crate::harness::{SOON, TestApp};
use crate::mail_server::MailServer;
use crate::secured::parsed;

const ON_CALL: &str = "on-call@example.com";
const TICKETS: &str = "tickets@example.com";

/// Killed when dropped.
struct Alertmanager {
    process: Child,
    url: String,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Alertmanager {
    /// One that sends its mails to this server, and waits less before it does.
    fn start(mail: &MailServer) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut configuration = read("deploy/alertmanager/alertmanager.yml");
        for (from, to) in [
            ("mailpit:1025", mail.address.to_string().as_str()),
            ("group_wait: 10s", "group_wait: 100ms"),
            ("group_interval: 5m", "group_interval: 200ms"),
        ] {
            assert!(configuration.contains(from), "{from}");
            configuration = configuration.replace(from, to);
        }
        let file = folder.path().join("alertmanager.yml");
        fs::write(&file, configuration).unwrap();
        let start = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--config.file").arg(&file).arg("--storage.path").arg(folder.path());
            command.args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="]);
            command.arg("--web.external-url=http://alerts.example").stdin(Stdio::null()).stderr(Stdio::piped()).spawn()
        };
        let process = ["alertmanager", "prometheus-alertmanager"].into_iter().find_map(|name| start(name).ok())?;
        let mut this = Self { process, url: String::new(), http: reqwest::Client::new(), _folder: folder };
        let lines = BufReader::new(this.process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (says, said) = std::sync::mpsc::channel();
        // Whoever does not read would be stopped in time by a full pipe.
        std::thread::spawn(move || {
            for line in lines.filter(|line| line.contains("Listening on")) {
                says.send(line).ok();
            }
        });
        let listens = said.recv_timeout(SOON).expect("it listens");
        let address = listens.split_once(" address=").unwrap().1.split(' ').next().unwrap();
        this.url = format!("http://{address}/api/v2");
        Some(this)
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.http.post(format!("{}/{path}", self.url)).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Fires an alert of the rules, as Prometheus would.
    async fn fire(&self, name: &str) {
        let rules = parsed(&read("deploy/prometheus/rules.yml"));
        let mut groups = rules["groups"].as_sequence().unwrap().iter().flat_map(|group| group["rules"].as_sequence());
        let rule = groups.find_map(|rules| rules.iter().find(|rule| rule["alert"] == name)).unwrap();
        let texts = |of: &str| -> Value {
            let all = rule[of].as_mapping().unwrap().iter();
            let filled = |text: &str| {
                let text = text.replace("{{ $externalLabels.runbooks }}", "https://docs.example/runbooks.md");
                text.replace("{{ $externalLabels.boards }}", "https://boards.example")
            };
            all.map(|(name, text)| (name.as_str().unwrap().to_owned(), filled(text.as_str().unwrap()))).collect()
        };
        let mut labels = texts("labels");
        labels["alertname"] = name.into();
        self.post("alerts", &json!([{ "labels": labels, "annotations": texts("annotations") }])).await;
    }

    async fn silence(&self, name: &str) -> String {
        let matcher = json!({ "name": "alertname", "value": name, "isRegex": false, "isEqual": true });
        let silence = json!({ "matchers": [matcher], "startsAt": "2025-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
            "createdBy": "ada", "comment": "it is being repaired" });
        self.post("silences", &silence).await["silenceID"].as_str().unwrap().into()
    }

    async fn end_silence(&self, id: &str) {
        let done = self.http.delete(format!("{}/silence/{id}", self.url)).send().await.unwrap();
        assert!(done.status().is_success(), "{done:?}");
    }

    /// Whether this alert is there, and kept back.
    async fn is_silenced(&self, name: &str) -> bool {
        let url = format!("{}/alerts?silenced=true&active=false", self.url);
        let alerts: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        alerts.as_array().unwrap().iter().any(|alert| alert["labels"]["alertname"] == name)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

/// The first mail to somebody, without the line breaks and escapes of its encoding.
async fn mail(server: &MailServer, to: &str) -> String {
    let first = async || server.mails(to).into_iter().next();
    let mail = eventually(&format!("a mail to {to}"), SOON, first).await;
    mail.replace("=\n", "").replace("=3D", "=")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_a_ticket_are_mailed_with_their_links_and_what_is_silenced_is_not_until_that_ends() {
    let server = MailServer::start(vec![]);
    let Some(alertmanager) = Alertmanager::start(&server) else {
        return skip("mails about alerts", "there is no alertmanager (Debian's package is prometheus-alertmanager)");
    };
    let silence = alertmanager.silence("OrdersOverdue").await;
    alertmanager.fire("OrdersOverdue").await;
    eventually("the alert to be silenced", SOON, async || alertmanager.is_silenced("OrdersOverdue").await).await;
    alertmanager.fire("StoreDown").await;
    let paged = mail(&server, ON_CALL).await;
    for part in [
        "Subject: [page, firing] The store of",
        "StoreDown is firing",
        "https://docs.example/runbooks.md#storedown",
        "https://boards.example/d/millstream-service",
        "http://alerts.example/#/silences/new?filter=%7Balertname%3D%22StoreDown%22%7D",
    ] {
        assert!(paged.contains(part), "`{part}` is missing in:\n{paged}");
    }
    alertmanager.fire("DeadLetters").await;
    let ticket = mail(&server, TICKETS).await;
    for part in [
        "Subject: [ticket] ",
        "https://docs.example/runbooks.md#deadletters",
        "https://boards.example/d/millstream-events",
    ] {
        assert!(ticket.contains(part), "`{part}` is missing in:\n{ticket}");
    }
    let all = [server.mails(ON_CALL), server.mails(TICKETS)].concat();
    assert_eq!(all.len(), 2, "one each, and none about what is silenced: {all:#?}");

    alertmanager.end_silence(&silence).await;
    let told = async || server.mails(ON_CALL).into_iter().any(|mail| mail.contains("OrdersOverdue"));
    eventually("a mail about what is silenced no longer", SOON, told).await;
}

#[test]
fn every_alert_goes_to_somebody_and_its_links_begin_with_what_compose_is_told() {
    let (rules, routes) = (read("deploy/prometheus/rules.yml"), parsed(&read("deploy/alertmanager/alertmanager.yml")));
    let prometheus = parsed(&read("deploy/prometheus/prometheus.yml"));
    let compose = read("compose.yaml");
    for (label, variable) in [("runbooks", "RUNBOOKS_URL"), ("boards", "GRAFANA_URL")] {
        assert_eq!(prometheus["global"]["external_labels"][label], format!("${{{variable}}}"));
        let default = variables(&compose)[variable];
        assert!(
            default.starts_with("http"),
            "{variable}: a mail is read elsewhere, and needs whole addresses: {default}"
        );
        assert_eq!(
            parsed(&compose)["services"]["prometheus"]["environment"][variable],
            format!("${{{variable}:-{default}}}")
        );
    }
    let links = rules.lines().map(str::trim).filter(|line| line.contains("_url: "));
    let relative = links.filter(|line| !line.contains("\"{{ $externalLabels."));
    assert_eq!(relative.collect::<Vec<_>>(), Vec::<&str>::new(), "links that lead nowhere from a mail");

    assert_eq!(prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0], "alertmanager:9093");
    assert_eq!(routes["route"]["receiver"], "ticket");
    assert_eq!(routes["route"]["routes"][0]["matchers"][0], "severity=\"page\"");
    assert_eq!(routes["route"]["routes"][0]["receiver"], "page");
    for (receiver, to) in [(0, ON_CALL), (1, TICKETS)] {
        assert_eq!(routes["receivers"][receiver]["email_configs"][0]["to"], to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_serves_the_runbook_that_alerts_link_to_with_a_section_for_each() {
    let app = TestApp::start().await;
    let page = app.get(format!("{}/runbook", app.urls.console)).await;
    let rules = read("deploy/prometheus/rules.yml");
    let anchors = rules.lines().filter_map(|line| line.split_once("runbooks }}#"));
    let anchors: BTreeSet<&str> = anchors.map(|(_, anchor)| anchor.trim_end_matches('"')).collect();
    assert!(anchors.len() > 20, "{anchors:?}");
    for anchor in anchors {
        assert!(
            page.text.contains(&format!("id=\"{anchor}\"")),
            "{anchor} is no section of {}/runbook",
            app.urls.console
        );
    }
    app.stop().await;
}

#[test]
fn prometheus_fills_in_the_links_of_an_alert() {
    let rules = root().join("deploy/prometheus/rules.yml");
    let text = json!({
        "rule_files": [rules],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "external_labels": { "runbooks": "https://docs.example/runbooks.md", "boards": "https://boards.example" },
            "input_series": [{ "series": "millstream_store_up{job='orders'}", "values": "0x40" }],
            "alert_rule_test": [{ "eval_time": "4m", "alertname": "StoreDown", "exp_alerts": [{
                "exp_labels": { "severity": "page", "job": "orders" },
                "exp_annotations": {
                    "summary": "The store of orders does not answer",
                    "description": "An instance has been without its store for half a minute (down: 1): commands get 503, and events wait.",
                    "runbook_url": "https://docs.example/runbooks.md#storedown",
                    "dashboard_url": "https://boards.example/d/millstream-service",
                },
            }] }],
        }],
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("links.yml");
    fs::write(&file, text.to_string()).unwrap();
    let Ok(checked) = Command::new("promtool").args(["test", "rules"]).arg(&file).output() else {
        return skip("the links in alerts", "there is no promtool (Debian's package is prometheus)");
    };
    let said = [checked.stdout, checked.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(checked.status.success(), "{said}");
}
