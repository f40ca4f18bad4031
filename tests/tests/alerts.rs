//! Each alert fires, and stays silent, as promtool sees it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use millstream::testing::skip;

/// Series and their values at each step, in promtool's notation: `1+2x60` starts at 1 and adds 2 sixty times.
struct Case {
    alert: &'static str,
    step: &'static str,
    at: &'static str,
    fires: &'static [(&'static str, &'static str)],
    silent: &'static [(&'static str, &'static str)],
}

const UP: (&str, &str) = (r#"up{job="orders",instance="a"}"#, "1x9999");
const ACCEPTED: &str = r#"shop_orders_total{job="orders",outcome="accepted",reason="none"}"#;
const IN_TIME: &str = r#"shop_order_duration_seconds_bucket{job="orders",outcome="confirmed",le="2.5"}"#;
const ASKED: &str = r#"http_server_request_duration_seconds_count{job="orders",http_request_method="POST",http_route="/orders",http_response_status_code="503"}"#;
const ANSWERED: &str = r#"http_server_request_duration_seconds_count{job="orders",http_request_method="POST",http_route="/orders",http_response_status_code="201"}"#;
const FAST: &str = r#"http_server_request_duration_seconds_bucket{job="orders",http_request_method="POST",http_route="/orders",http_response_status_code="201",le="0.25"}"#;
const LOOKED: &str = r#"http_server_request_duration_seconds_count{job="console",http_request_method="GET",http_route="/api/system",http_response_status_code="200"}"#;
const SHOWN: &str = r#"http_server_request_duration_seconds_bucket{job="console",http_request_method="GET",http_route="/api/system",http_response_status_code="200",le="0.25"}"#;
const PROBED: &str = r#"http_server_request_duration_seconds_count{job="orders",http_request_method="GET",http_route="/readyz",http_response_status_code="503"}"#;

const CASES: &[Case] = &[
    // One of two instances is no outage; a job that has vanished is one, as is one that does not answer.
    Case {
        alert: "ServiceDown",
        step: "15s",
        at: "5m",
        fires: &[
            (r#"up{job="orders",instance="a"}"#, "0x99"),
            (r#"up{job="inventory",instance="a"}"#, "1x99"),
            (r#"up{job="payments",instance="a"}"#, "1x99"),
            (r#"up{job="notifications",instance="a"}"#, "1x99"),
            (r#"up{job="analytics",instance="a"}"#, "1x99"),
            (r#"up{job="console",instance="a"}"#, "1x99"),
        ],
        silent: &[
            (r#"up{job="orders",instance="a"}"#, "0x99"),
            (r#"up{job="orders",instance="b"}"#, "1x99"),
            (r#"up{job="inventory",instance="a"}"#, "1x99"),
            (r#"up{job="payments",instance="a"}"#, "1x99"),
            (r#"up{job="notifications",instance="a"}"#, "1x99"),
            (r#"up{job="analytics",instance="a"}"#, "1x99"),
            (r#"up{job="console",instance="a"}"#, "1x99"),
        ],
    },
    // Also when the instance is gone for good meanwhile. A start takes a moment.
    Case {
        alert: "BrokerDown",
        step: "15s",
        at: "4m",
        fires: &[
            (r#"millstream_broker_connected{job="orders",instance="a"}"#, "1 0x4 stale"),
            (r#"millstream_broker_connected{job="orders",instance="b"}"#, "1x99"),
        ],
        silent: &[(r#"millstream_broker_connected{job="orders",instance="a"}"#, "1x8 0 1x99")],
    },
    Case {
        alert: "BrokerDown",
        step: "15s",
        at: "60s",
        fires: &[(r#"millstream_broker_connected{job="orders",instance="a"}"#, "1 0x99")],
        silent: &[],
    },
    Case {
        alert: "StoreDown",
        step: "15s",
        at: "4m",
        fires: &[(r#"millstream_store_up{job="orders",instance="a"}"#, "1 0x4 stale")],
        silent: &[(r#"millstream_store_up{job="orders",instance="a"}"#, "0 1x99")],
    },
    Case {
        alert: "StoreDown",
        step: "15s",
        at: "60s",
        fires: &[(r#"millstream_store_up{job="orders",instance="a"}"#, "1 0x99")],
        silent: &[],
    },
    Case {
        alert: "ReplicaMissing",
        step: "15s",
        at: "60s",
        fires: &[(r#"millstream_replicas_missed{job="payments",instance="a"}"#, "0 0 1x99")],
        silent: &[(r#"millstream_replicas_missed{job="payments",instance="a"}"#, "1 0x99")],
    },
    Case {
        alert: "ReplicaMissing",
        step: "15s",
        at: "4m",
        fires: &[(r#"millstream_replicas_missed{job="payments",instance="a"}"#, "0 1x4 stale")],
        silent: &[],
    },
    // The first load of a new system, and a few orders, page nobody.
    Case {
        alert: "OrdersLateFast",
        step: "1m",
        at: "10m",
        fires: &[],
        silent: &[(ACCEPTED, "0+100x99"), (IN_TIME, "0x99")],
    },
    Case {
        alert: "OrdersLateFast",
        step: "1m",
        at: "70m",
        fires: &[],
        silent: &[(ACCEPTED, "0+5x99"), (IN_TIME, "0x99")],
    },
    Case {
        alert: "OrdersLateSteady",
        step: "5m",
        at: "2h",
        fires: &[],
        silent: &[(ACCEPTED, "0+1000x99"), (IN_TIME, "0x99")],
    },
    Case {
        alert: "OrdersLateSlow",
        step: "30m",
        at: "20h",
        fires: &[],
        silent: &[(ACCEPTED, "0+1000x199"), (IN_TIME, "0x199")],
    },
    Case { alert: "HttpErrorsFast", step: "1m", at: "10m", fires: &[], silent: &[(ASKED, "0+100x99"), (FAST, "0x99")] },
    Case { alert: "HttpErrorsFast", step: "1m", at: "70m", fires: &[], silent: &[(ASKED, "0+5x99"), (FAST, "0x99")] },
    Case {
        alert: "HttpErrorsSteady",
        step: "5m",
        at: "2h",
        fires: &[],
        silent: &[(ASKED, "0+1000x99"), (FAST, "0x99")],
    },
    Case {
        alert: "HttpErrorsSlow",
        step: "30m",
        at: "20h",
        fires: &[],
        silent: &[(ASKED, "0+1000x199"), (FAST, "0x199")],
    },
    // Pages of the console that take their time.
    Case {
        alert: "HttpErrorsFast",
        step: "1m",
        at: "70m",
        fires: &[],
        silent: &[(LOOKED, "0+100x99"), (SHOWN, "0x99")],
    },
    // The outage takes the observer's series with it.
    Case {
        alert: "DeadLetters",
        step: "15s",
        at: "5m",
        fires: &[(
            r#"millstream_dead_letters{service_name="payments",event="orders.cancelled",reason="schema"}"#,
            "1x8 stale",
        )],
        silent: &[],
    },
    // A fifth of all orders does not end in time: also those that do not end at all.
    Case {
        alert: "OrdersLateFast",
        step: "1m",
        at: "70m",
        fires: &[(ACCEPTED, "0+100x99"), (IN_TIME, "0+80x99")],
        silent: &[(ACCEPTED, "0+100x99"), (IN_TIME, "0+80x50 4000+100x49")],
    },
    Case {
        alert: "OrdersLateSteady",
        step: "5m",
        at: "7h",
        fires: &[(ACCEPTED, "0+1000x99"), (IN_TIME, "0+920x99")],
        silent: &[(ACCEPTED, "0+1000x99"), (IN_TIME, "0+950x99")],
    },
    Case {
        alert: "OrdersLateSlow",
        step: "30m",
        at: "80h",
        fires: &[(ACCEPTED, "0+1000x199"), (IN_TIME, "0+980x199")],
        silent: &[(ACCEPTED, "0+1000x199"), (IN_TIME, "0+995x199")],
    },
    // Health checks that are answered 503 are no failed requests.
    Case {
        alert: "HttpErrorsFast",
        step: "1m",
        at: "70m",
        fires: &[(ASKED, "0+20x99"), (ANSWERED, "0+80x99"), (FAST, "0+80x99")],
        silent: &[(PROBED, "0+900x99"), (ANSWERED, "0+100x99"), (FAST, "0+99x99")],
    },
    Case {
        alert: "HttpErrorsSteady",
        step: "5m",
        at: "7h",
        fires: &[(ANSWERED, "0+1000x99"), (FAST, "0+920x99")],
        silent: &[(ANSWERED, "0+1000x99"), (FAST, "0+950x99")],
    },
    Case {
        alert: "HttpErrorsSlow",
        step: "30m",
        at: "80h",
        fires: &[(ANSWERED, "0+1000x199"), (FAST, "0+980x199")],
        silent: &[(ANSWERED, "0+1000x199"), (FAST, "0+995x199")],
    },
    // That nobody orders is no reason to wake anybody.
    Case {
        alert: "NoOrderAccepted",
        step: "15s",
        at: "20m",
        fires: &[UP, (ACCEPTED, "7x99"), (ASKED, "0+3x99")],
        silent: &[UP, (ACCEPTED, "7x99"), (ASKED, "3x99")],
    },
    Case {
        alert: "OrdersOverdue",
        step: "15s",
        at: "5m",
        fires: &[("shop_orders_overdue{job=\"orders\"}", "2x99")],
        silent: &[("shop_orders_overdue{job=\"orders\"}", "0x99")],
    },
    // A counter that begins anew after a restart is no violation.
    Case {
        alert: "SagaViolated",
        step: "15s",
        at: "10m",
        fires: &[(
            r#"shop_invariant_violations_total{job="orders",invariant="declined_after_confirmed"}"#,
            "0x20 1x79",
        )],
        silent: &[(
            r#"shop_invariant_violations_total{job="orders",invariant="declined_after_confirmed"}"#,
            "1x20 0x79",
        )],
    },
    Case {
        alert: "DeadLetters",
        step: "15s",
        at: "5m",
        fires: &[(
            r#"millstream_dead_letters{service_name="payments",event="orders.cancelled",reason="schema"}"#,
            "1x99",
        )],
        silent: &[(
            r#"millstream_dead_letters{service_name="payments",event="orders.cancelled",reason="schema"}"#,
            "0x99",
        )],
    },
    Case {
        alert: "DeadLettersGrow",
        step: "15s",
        at: "12m",
        fires: &[(
            r#"millstream_dead_lettered_total{job="payments",event="orders.cancelled",reason="schema"}"#,
            "0+1x99",
        )],
        silent: &[(
            r#"millstream_dead_lettered_total{job="payments",event="orders.cancelled",reason="schema"}"#,
            "0x20 5x79",
        )],
    },
    Case {
        alert: "ConsumerLags",
        step: "1m",
        at: "20m",
        fires: &[(
            r#"millstream_consumer_oldest_unacked_age_seconds{stream_name="ORDERS",consumer_name="inventory"}"#,
            "3500+60x99",
        )],
        silent: &[(
            r#"millstream_consumer_oldest_unacked_age_seconds{stream_name="ORDERS",consumer_name="inventory"}"#,
            "900x99",
        )],
    },
    // A consumer that is new has not been left alone for a day.
    Case {
        alert: "ConsumerNotPulled",
        step: "10m",
        at: "26h",
        fires: &[(r#"jetstream_consumer_num_waiting{stream_name="ORDERS",consumer_name="inventory"}"#, "0x300")],
        silent: &[
            (r#"jetstream_consumer_num_waiting{stream_name="ORDERS",consumer_name="inventory"}"#, "0x100 1x1 0x198"),
            (r#"jetstream_consumer_num_waiting{stream_name="ORDERS",consumer_name="new"}"#, "_x100 0x200"),
        ],
    },
    Case {
        alert: "StreamFull",
        step: "1m",
        at: "20m",
        fires: &[(r#"millstream_stream_bytes_ratio{stream_name="ORDERS"}"#, "0.85x99")],
        silent: &[(r#"millstream_stream_bytes_ratio{stream_name="ORDERS"}"#, "0.79x99")],
    },
    Case {
        alert: "StreamNotTrimmed",
        step: "1m",
        at: "20m",
        fires: &[(r#"millstream_stream_trim_held{job="orders",stream_name="ORDERS"}"#, "1x99")],
        silent: &[(r#"millstream_stream_trim_held{job="orders",stream_name="ORDERS"}"#, "1x5 0x99")],
    },
    Case {
        alert: "BrokerForgot",
        step: "15s",
        at: "5m",
        fires: &[
            (r#"millstream_messages_republished_total{job="orders",stream_name="ORDERS"}"#, "0x8 30x99"),
            (r#"millstream_stream_losses_unfilled_total{job="orders",stream_name="ORDERS"}"#, "0x99"),
        ],
        silent: &[
            (r#"millstream_messages_republished_total{job="orders",stream_name="ORDERS"}"#, "30x99"),
            (r#"millstream_stream_losses_unfilled_total{job="orders",stream_name="ORDERS"}"#, "0x99"),
        ],
    },
    Case {
        alert: "EventsUnpublished",
        step: "15s",
        at: "5m",
        fires: &[(r#"millstream_journal_unpublished_oldest_age_seconds{job="orders",instance="a"}"#, "0+15x99")],
        silent: &[(r#"millstream_journal_unpublished_oldest_age_seconds{job="orders",instance="a"}"#, "30x99")],
    },
    Case {
        alert: "PublishFails",
        step: "15s",
        at: "15m",
        fires: &[(r#"messaging_client_sent_messages_total{job="orders",error_type="refused"}"#, "0+1x99")],
        silent: &[
            (r#"messaging_client_sent_messages_total{job="orders"}"#, "0+9x99"),
            (r#"messaging_client_sent_messages_total{job="orders",error_type="refused"}"#, "0x10 1x89"),
        ],
    },
    // What a handler asks for again is no fault of the engine's.
    Case {
        alert: "Redelivered",
        step: "15s",
        at: "20m",
        fires: &[(
            r#"millstream_redeliveries_total{job="payments",event="orders.cancelled",cause="unacked"}"#,
            "0+1x99",
        )],
        silent: &[
            (r#"millstream_redeliveries_total{job="payments",event="orders.cancelled",cause="nak"}"#, "0+1x99"),
            (r#"millstream_redeliveries_total{job="payments",event="orders.cancelled",cause="unacked"}"#, "0x20 9x79"),
        ],
    },
    Case {
        alert: "OutsideUnanswered",
        step: "15s",
        at: "60s",
        fires: &[(r#"millstream_effects_unanswered_seconds{job="payments",kind="charge"}"#, "15+15x99")],
        silent: &[(r#"millstream_effects_unanswered_seconds{job="payments",kind="charge"}"#, "15 15 0x99")],
    },
    Case {
        alert: "OutsideUnanswered",
        step: "15s",
        at: "4m",
        fires: &[(r#"millstream_effects_unanswered_seconds{job="payments",kind="charge"}"#, "0 15+15x4 stale")],
        silent: &[],
    },
    Case {
        alert: "WakesOverdue",
        step: "15s",
        at: "5m",
        fires: &[(r#"millstream_wake_oldest_overdue_seconds{job="payments",kind="charge"}"#, "0+15x99")],
        silent: &[(r#"millstream_wake_oldest_overdue_seconds{job="payments",kind="charge"}"#, "20x99")],
    },
];

#[test]
#[ignore = "long"]
fn each_alert_fires_when_it_should_and_stays_silent_when_it_should_not() {
    let named: BTreeSet<&str> = CASES.iter().map(|case| case.alert).collect();
    let all: BTreeSet<&str> = boards::alerts::all().iter().map(|alert| alert.name).collect();
    assert_eq!(named, all, "each alert has its case");
    let promtool = |args: &[&str]| Command::new("promtool").args(args).output();
    if promtool(&["--version"]).is_err() {
        return skip("when alerts fire", "there is no promtool (Debian's package is prometheus)");
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["test".to_owned(), "rules".to_owned()];
    for (number, Case { alert, step, at, fires, silent }) in CASES.iter().enumerate() {
        // Evaluated as often as there are values: three days at every 15 s would take minutes.
        let mut text = format!("rule_files: [{}]\nevaluation_interval: {step}\n", rules.display());
        // Otherwise promtool takes them in any order, and alerts find no ratios to look at.
        text += "group_eval_order: [objectives, alerts]\ntests:\n";
        for (series, count) in [(fires, true), (silent, false)].into_iter().filter(|(series, _)| !series.is_empty()) {
            writeln!(text, "  - name: {alert} {}", if count { "fires" } else { "stays silent" }).unwrap();
            writeln!(text, "    interval: {step}\n    input_series:").unwrap();
            for (name, values) in *series {
                writeln!(text, "      - {{ series: '{name}', values: '{values}' }}").unwrap();
            }
            let expr = format!(r#"count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0 or vector(0)"#);
            writeln!(text, "    promql_expr_test:\n      - expr: '{expr}'\n        eval_time: {at}").unwrap();
            writeln!(text, "        exp_samples: [{{ labels: '{{}}', value: {} }}]", u8::from(count)).unwrap();
        }
        let file = folder.path().join(format!("{alert}-{number}.yml"));
        std::fs::write(&file, text).unwrap();
        args.push(file.to_str().unwrap().to_owned());
    }
    let checked = promtool(&args.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    let checked = promtool(&["check", "rules", rules.to_str().unwrap()]).unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
