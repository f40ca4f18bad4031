//! The containers: what their files say, and, where an engine is there, the whole of it brought up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use millstream::testing::{eventually, skip};
use serde_json::Value;
use shop::whole::Urls;
use shop::{check, load};

use crate::harness::{Caller, line, order_of};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// What the compose file takes from the environment, with the defaults.
pub(crate) fn variables(compose: &str) -> BTreeMap<&str, &str> {
    let found = compose.split("${").skip(1).map(|rest| rest.split_once('}').unwrap().0);
    found.map(|variable| variable.split_once(":-").expect("every variable has a default")).collect()
}

#[test]
fn the_example_names_every_variable_of_the_compose_file_with_its_default() {
    let (compose, example) = (read("compose.yaml") + &read("compose.cluster.yaml"), read(".env.example"));
    let lines = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let named: BTreeMap<_, _> = lines.map(|line| line.split_once('=').unwrap()).collect();
    assert_eq!(named, variables(&compose));
}

#[test]
fn each_port_is_on_this_host_only_and_a_variable_and_each_image_is_pinned() {
    let compose = read("compose.yaml");
    let never = compose.matches("pull_policy: never").count();
    assert_eq!(never, compose.matches("image: millstream-").count(), "nobody asks a registry for what is built here");
    for line in compose.lines().filter(|line| line.contains("_PORT:-")) {
        assert!(line.contains("\"127.0.0.1:${"), "{line}");
    }
    let from = ["Dockerfile", "deploy/nats/Dockerfile", "deploy/mongo/Dockerfile", "deploy/prometheus/Dockerfile"]
        .into_iter()
        .chain(["deploy/grafana/Dockerfile", "deploy/alertmanager/Dockerfile"])
        .flat_map(|file| read(file).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.strip_prefix("FROM ")?.split(' ').next()?.to_owned()));
    let named = compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")).map(str::to_owned);
    for image in from.chain(named) {
        // Ours are built, never pulled, and one stage of ours is called `rust`.
        let ours = image.starts_with("millstream-") || image == "rust";
        assert!(ours || image.split_once(':').is_some_and(|(_, tag)| tag != "latest"), "{image}");
    }
}

/// The image's layer with the dependencies is built from these. A manifest that names an example or a program without code cannot be
/// built.
#[test]
fn the_image_has_a_stub_for_each_library_program_and_example() {
    let dockerfile = read("Dockerfile");
    let (_, after) = dockerfile.split_once("RUN mkdir /stubs").expect("the stubs are made");
    let script = after.split("\n\n").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stubs = folder.path().join("stubs");
    let script = format!("set -e; mkdir /stubs{script}").replace("/stubs", stubs.to_str().unwrap());
    said(Command::new("sh").args(["-c", &script]).current_dir(root()).output().unwrap());
    assert_eq!(targets(&stubs), targets(&root()));
}

/// What cargo finds to build in a workspace, without tests.
fn targets(workspace: &Path) -> BTreeSet<String> {
    let metadata = ["metadata", "--no-deps", "--offline", "--format-version=1"];
    let known = said(Command::new(env!("CARGO")).args(metadata).current_dir(workspace).output().unwrap());
    let known: Value = serde_json::from_str(&known).unwrap();
    let packages = known["packages"].as_array().unwrap().iter();
    let targets =
        packages.flat_map(|package| package["targets"].as_array().unwrap().iter().map(move |of| (package, of)));
    let built = targets.filter(|(_, target)| target["kind"][0] != "test");
    built.map(|(package, target)| format!("{} {} {}", package["name"], target["kind"], target["name"])).collect()
}

/// What must be set for the test that brings the containers up: it builds an image, which takes long.
const VARIABLE: &str = "MILLSTREAM_COMPOSE";
const PROJECT: &str = "millstream-test";
/// Beside those of a shop that runs on this machine already.
const BASE: u16 = 18_000;
const PATIENCE: Duration = Duration::from_secs(240);
/// The password of every user, as nothing else is set.
const DEMO: &str = "demo-password";

/// The project; it is taken down when dropped.
struct Project;

impl Project {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", PROJECT]).args(args).current_dir(root()).stdin(Stdio::null());
        for (name, default) in variables(&read("compose.yaml")) {
            command.env(name, default);
            if name.ends_with("_PORT") {
                command.env(name, (default.parse::<u16>().unwrap() % 10_000 + BASE).to_string());
            }
        }
        command
    }

    fn run(&self, args: &[&str]) -> String {
        said(self.command(args).output().unwrap())
    }

    fn url(&self, port: u16) -> String {
        format!("http://127.0.0.1:{}", port % 10_000 + BASE)
    }

    /// The containers of a service.
    fn containers(&self, service: &str) -> Vec<String> {
        self.run(&["ps", "--all", "--quiet", service]).lines().map(str::to_owned).collect()
    }

    /// The services that stay up.
    fn services(&self) -> Vec<String> {
        self.run(&["config", "--services"]).lines().filter(|name| *name != "declare").map(str::to_owned).collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--volumes", "--timeout", "1"]).output();
    }
}

fn said(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn docker(args: &[&str]) -> String {
    said(Command::new("docker").args(args).output().unwrap())
}

/// Kills what runs in a container, as a fault would: the engine was not asked, and its restart policy applies. Where the process is
/// out of reach, as in an engine's virtual machine, the engine kills and starts it.
fn kill(container: &str) {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", container]);
    let killed = Command::new("sh").args(["-c", "kill -9 \"$0\"", &pid]).stderr(Stdio::null()).status().unwrap();
    if !killed.success() {
        docker(&["kill", container]);
        docker(&["start", container]);
    }
}

fn is_well(container: &str) -> bool {
    let format = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}";
    let state = docker(&["inspect", "--format", format, container]);
    matches!(state.trim(), "running" | "running healthy")
}

async fn get(url: &str) -> Option<Value> {
    reqwest::get(url).await.ok()?.error_for_status().ok()?.json().await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_containers_come_up_sell_survive_kill_9_of_any_of_them_under_load_and_leave_nothing() {
    let engine = Command::new("docker").args(["compose", "version"]).stdin(Stdio::null()).output();
    let engine = engine.is_ok_and(|done| done.status.success())
        && Command::new("docker").arg("info").output().is_ok_and(|done| done.status.success());
    if !engine {
        return skip("the containers", "no container engine with Compose answers");
    }
    if std::env::var_os(VARIABLE).is_none() {
        return skip("the containers", &format!("it takes a quarter of an hour: set {VARIABLE}=1"));
    }
    let project = Project;
    project.run(&["config", "--quiet"]);
    project.run(&["up", "--build", "--detach", "--wait", "--wait-timeout", "600"]);
    let urls = Urls {
        orders: project.url(8081),
        inventory: project.url(8082),
        payments: project.url(8083),
        notifications: project.url(8084),
        analytics: project.url(8085),
        console: project.url(8080),
        gateway: project.url(8090),
        nats: format!("nats://operator:{DEMO}@127.0.0.1:{}", 4222 + BASE),
    };
    let app = Caller::new(urls.clone());
    app.stock("mug", 1_000_000).await;

    let order = app.place(order_of("ada", &[line("mug", 2, 1200)])).await;
    assert_eq!(app.ended(&order).await["status"], "CONFIRMED");
    let mails = format!("{}/api/v1/messages", project.url(8025));
    let mailed = async || get(&mails).await.is_some_and(|mails| mails.to_string().contains(&order));
    eventually("a mail about the order", PATIENCE, mailed).await;

    let prometheus = format!("{}/api/v1/query", project.url(9090));
    let scraped = async || {
        let found = get(&format!("{prometheus}?query=up==1")).await?;
        let jobs = found["data"]["result"].as_array()?.iter().filter_map(|one| one["metric"]["job"].as_str());
        let jobs: BTreeSet<&str> = jobs.collect();
        let wanted = ["orders", "inventory", "payments", "notifications", "analytics", "console"];
        wanted.iter().all(|job| jobs.contains(job)).then_some(())
    };
    eventually("every service scraped", PATIENCE, scraped).await;
    let boards = get(&format!("{}/api/search", project.url(3000))).await.unwrap().to_string();
    for board in ["millstream-shop", "millstream-events", "millstream-service", "millstream-broker"] {
        assert!(boards.contains(board), "{board} is missing in {boards}");
    }

    let as_payments = |ask: &str| {
        let url = format!("mongodb://payments:{DEMO}@mongo:27017/payments");
        let shell = ["exec", "--no-TTY", "mongo", "mongosh", "--quiet", "--norc", &url, "--eval", ask];
        let answer = project.command(&shell).output().unwrap();
        String::from_utf8([answer.stdout, answer.stderr].concat()).unwrap()
    };
    let own = as_payments("db.payments.countDocuments() > 0");
    assert!(own.contains("true"), "{own}");
    let others = as_payments("db.getSiblingDB('orders').orders.findOne()");
    assert!(others.contains("not authorized on orders"), "{others}");

    project.run(&["up", "--detach", "--wait", "--no-recreate", "--scale", "payments=3", "--scale", "inventory=2"]);
    assert_eq!((project.containers("payments").len(), project.containers("inventory").len()), (3, 2));
    let options = load::Options {
        url: urls.orders.clone(),
        inventory_url: urls.inventory.clone(),
        orders: 6_000,
        rate: Some(25.0),
        give_up_after: PATIENCE,
        wait: PATIENCE,
        ..load::Options::default()
    };
    // A thread of its own: the engine's commands below block.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let loading = std::thread::spawn(move || runtime.block_on(load::run(options)));
    for service in project.services() {
        let victim = project.containers(&service).remove(0);
        let started = docker(&["inspect", "--format", "{{.State.StartedAt}}", &victim]);
        let killed = Instant::now();
        kill(&victim);
        let again =
            async || docker(&["inspect", "--format", "{{.State.StartedAt}}", &victim]) != started && is_well(&victim);
        eventually(&format!("{service} after its end"), PATIENCE, again).await;
        eprintln!("{service} is back after {:.1?}", killed.elapsed());
    }
    let report = loading.join().unwrap().unwrap();
    assert!(report.complete(), "{report}");

    let shared = r#"sum by (instance) (increase(millstream_messages_total{job="payments",outcome="handled"}[5m])) > 0"#;
    let shared = reqwest::Url::parse_with_params(&prometheus, [("query", shared)]).unwrap();
    let share =
        async || get(shared.as_str()).await.is_some_and(|found| found["data"]["result"].as_array().unwrap().len() == 3);
    eventually("three payments at work", PATIENCE, share).await;
    for container in project.containers("inventory") {
        // Killed by the engine it stays down: whichever was the active one, the other goes on.
        docker(&["kill", &container]);
        let killed = Instant::now();
        let order = app.place(order_of("bob", &[line("mug", 1, 1200)])).await;
        assert_eq!(app.ended(&order).await["status"], "CONFIRMED");
        eprintln!("with one inventory of two an order is confirmed after {:.1?}", killed.elapsed());
        docker(&["start", &container]);
        eventually("the other inventory", PATIENCE, async || is_well(&container)).await;
    }
    let outcome = check::run(check::Options {
        orders_url: Some(urls.orders),
        inventory_url: Some(urls.inventory),
        payments_url: Some(urls.payments),
        notifications_url: Some(urls.notifications),
        analytics_url: Some(urls.analytics),
        gateway_url: Some(urls.gateway),
        nats_url: urls.nats,
        looks: 60,
        ..check::Options::default()
    });
    let outcome = outcome.await.unwrap();
    assert_eq!(outcome.exit_code(), 0, "{outcome}");

    project.run(&["down", "--volumes"]);
    let label = format!("label=com.docker.compose.project={PROJECT}");
    for left in [["ps", "--all"], ["volume", "ls"], ["network", "ls"]] {
        assert_eq!(docker(&[left[0], left[1], "--quiet", "--filter", &label]), "", "{left:?}");
    }
}
