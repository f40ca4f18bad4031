//! Looking at a system from the command line, and dealing with what waits in it.

use std::time::Duration;

use millstream::engine::timing::Timing;
use millstream::testing::{Bench, TestService, eventually, fresh_meta};
use millstream::{
    Document, Event, Fault, Handler, Id, Keys, Kind, Received, Service, Start, Stream, Timer, Timestamp, Unit,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const ORDERS: Stream = Stream::new("ORDERS", "orders");
const PARCELS: Stream = Stream::new("PARCELS", "parcels");
const LONG: Duration = Duration::from_secs(40);

#[derive(Serialize, Deserialize)]
struct Placed {
    order: String,
    email: String,
}

impl Event for Placed {
    const TYPE: &'static str = "orders.placed";
    const STREAM: Stream = ORDERS;
    const PERSONAL: &'static [&'static str] = &["email"];
    fn key(&self) -> &str {
        &self.order
    }
}

#[derive(Serialize, Deserialize)]
struct Packed {
    order: String,
}

impl Event for Packed {
    const TYPE: &'static str = "parcels.packed";
    const STREAM: Stream = PARCELS;
    fn key(&self) -> &str {
        &self.order
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Parcel {
    order: String,
}

impl Document for Parcel {
    const COLLECTION: &'static str = "parcels";
    fn id(&self) -> &str {
        &self.order
    }
}

struct Pack;

impl Handler<Placed> for Pack {
    fn touches(&self, event: &Received<Placed>) -> Keys {
        Keys::one::<Parcel>(&event.order)
    }
    fn handle(&self, event: &Received<Placed>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let order = event.order.clone();
        unit.emit(&Packed { order: order.clone() });
        unit.put_with_wake(Parcel { order }, Late::KIND, unit.now() + Duration::from_secs(3600));
        Ok(())
    }
}

struct Late;

impl Timer for Late {
    type Document = Parcel;
    const KIND: Kind<Parcel> = Kind::new("late");
    fn fire(&self, _: &mut Parcel, _: &mut Unit<'_>) {}
    fn cancellable(&self) -> bool {
        true
    }
}

/// A system of one service, in which one order was packed.
struct Place {
    bench: Bench,
    shipping: TestService,
    order: String,
}

impl Place {
    async fn new() -> Self {
        let bench = Bench::start().await;
        bench.declare(&ORDERS).await;
        let shipping = Service::new("shipping").release("1.4.0").publishes(PARCELS);
        let shipping = shipping.reads(ORDERS, Start::Beginning).on(Pack).timer(Late);
        let shipping = bench.run(shipping, Timing::short()).await;
        let order = Id::random(Timestamp::system()).to_string();
        bench.publish(&fresh_meta(), &Placed { order: order.clone(), email: "ada@example.org".into() }).await;
        bench.expect::<Packed>(1).await;
        bench.until_handled(&ORDERS, "shipping").await;
        let place = Self { bench, shipping, order };
        eventually("the instance to be found", LONG, async || place.call(&["status"]).0 == 0).await;
        place
    }

    /// The command's exit code and what it has printed.
    fn call(&self, args: &[&str]) -> (i32, String) {
        // It waits for broker and service, which do not run in this thread.
        tokio::task::block_in_place(|| crate::call(&self.bench.broker.url(), args, &[]))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, said) = self.call(&[args, &["--json"]].concat());
        assert!(code < 2, "{said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn status_is_one_screen_and_says_what_is_wrong() {
    let place = Place::new().await;
    let (code, screen) = place.call(&["status"]);
    assert_eq!(code, 0, "{screen}");
    for word in
        ["ORDERS", "PARCELS", "DLQ_SHIPPING", "shipping", "1.4.0", "UP", "All is well: 1 instance of 1 service answer"]
    {
        assert!(screen.contains(word), "{word}: {screen}");
    }
    let status = place.json(&["status"]);
    let handled = &status["instances"][0]["totals"]["handled"];
    assert_eq!((&status["verdict"]["state"], handled), (&"well".into(), &1.into()), "{status}");
    let Place { bench, shipping, order } = place;
    shipping.stop().await;
    // Another one in its place that is not there: only what is looked at matters.
    let shipping = bench.launch(Service::new("other"), Timing::short()).await;
    let place = Place { bench, shipping, order };
    let (code, screen) = place.call(&["status"]);
    assert_eq!(code, 1, "{screen}");
    let last = screen.trim_end().lines().last().unwrap();
    let said = "! shipping: no instance answers; no event waits for it yet. See the runbook \"ServiceDown\".";
    assert_eq!(last, said, "{screen}");
    place.shipping.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_are_shown_a_line_each_and_what_is_personal_to_those_who_say_why() {
    let place = Place::new().await;
    let tail = ["tail", "--since", "1h", "--no-follow"];
    let (code, said) = place.call(&tail);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((code, lines.len()), (0, 2), "{said}");
    assert!(lines[0].contains("orders.placed.v1") && lines[1].contains("parcels.packed.v1"), "{said}");
    assert!(lines.iter().all(|line| line.contains(&place.order)) && !said.contains("ada@example.org"), "{said}");
    let (_, said) = place.call(&[&tail[..], &["--event", "orders.placed", "--key", &place.order, "--json"]].concat());
    let line: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&line["type"], &line["payload"]["order"]), (&"orders.placed.v1".into(), &place.order.as_str().into()));
    assert_eq!(place.call(&[&tail[..], &["--reveal"]].concat()).0, 2, "revealing wants a reason");
    let (code, said) = place.call(&[&tail[..], &["--reveal", "--why", "a complaint"]].concat());
    assert!(code == 0 && said.contains("ada@example.org"), "{said}");
    let audit = place.json(&["audit", "--action", "reveal"]);
    assert_eq!((&audit[0]["why"], &audit[0]["details"]["command"]), (&"a complaint".into(), &"tail".into()), "{audit}");
    let (code, said) = place.call(&["tail", "--stream", "NOTHING"]);
    assert!(code == 3 && said.contains("there is no stream NOTHING"), "{said}");
    place.shipping.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_trace_is_indented_by_causes_and_fails_when_something_is_missing() {
    let place = Place::new().await;
    let (code, said) = place.call(&["trace", &place.order]);
    let at = |text: &str| said.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {said}"));
    assert_eq!(code, 0, "{said}");
    assert_eq!(at("└ parcels.packed.v1"), at("orders.placed.v1") + 1, "{said}");
    assert!(said.lines().nth(at("orders.placed.v1")).unwrap().contains("shipping"), "{said}");
    assert!(said.contains("~ the `late` of "), "{said}");
    assert!(!place.json(&["trace", &place.order]).to_string().contains("ada@example.org"));
    let revealed = place.json(&["trace", &place.order, "--reveal", "--why", "a complaint"]);
    assert_eq!(revealed["events"][0]["payload"]["email"], "ada@example.org");
    let (code, said) = place.call(&["trace", "nothing"]);
    assert!(code == 3 && said.contains("nothing in ORDERS, PARCELS has `nothing`"), "{said}");
    let Place { bench, shipping, order } = place;
    shipping.stop().await;
    let shipping = bench.launch(Service::new("other"), Timing::short()).await;
    let place = Place { bench, shipping, order };
    let (code, said) = place.call(&["trace", &place.order]);
    assert!(code == 1 && said.contains("! `shipping` does not answer"), "{said}");
    assert!(said.contains("└ parcels.packed.v1"), "{said}");
    place.shipping.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_waits_is_listed_moved_and_cancelled_with_a_reason() {
    let place = Place::new().await;
    let listed = place.json(&["wakes", "list", "--kind", "late"]);
    let [wake] = &listed["wakes"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&wake["document"], &wake["cancellable"]), (&place.order.as_str().into(), &true.into()));
    let (code, table) = place.call(&["wakes", "list"]);
    assert!(code == 0 && table.contains(&place.order) && table.contains("waiting"), "{table}");
    let which = ["--service", "shipping", "--document", &place.order];
    let with = |verb: &str, more: &[&str]| place.call(&[&["wakes", verb], &which[..], more].concat());
    assert_eq!(with("fire", &[]).0, 2, "a reason is wanted");
    let (code, said) = with("move", &["--to", "+10m", "--why", "a holiday"]);
    assert!(code == 0 && said.contains("is now due at") && said.contains("it was due at"), "{said}");
    let moved: Timestamp = place.json(&["wakes", "list"])["wakes"][0]["at"].as_str().unwrap().parse().unwrap();
    assert!(moved < wake["at"].as_str().unwrap().parse().unwrap());
    let (code, said) = with("cancel", &["--why", "it was lost"]);
    assert!(code == 0 && said.contains("was cancelled"), "{said}");
    let (code, said) = with("cancel", &["--why", "it was lost"]);
    assert!(code == 3 && said.contains("has no pending wake"), "{said}");
    assert_eq!(place.call(&["wakes", "list"]), (0, "no pending wakes\n".into()));
    let audit = place.json(&["audit"]);
    assert_eq!((&audit[0]["action"], &audit[1]["why"]), (&"cancel".into(), &"a holiday".into()), "{audit}");
    let (code, said) = place.call(&["wakes", "list", "--service", "nowhere"]);
    assert!(code == 1 && said.contains("! `nowhere` does not answer"), "{said}");
    place.shipping.stop().await;
}
