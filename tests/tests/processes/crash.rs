//! The crash matrix: at every arrow of the engine the process dies for every kind of input that goes there, is started again,
//! and has handled the input once.

use std::time::Duration;

use futures_util::StreamExt;
use millstream::testing::eventually;

use super::audit::Place;
use super::child::Child;
use super::ledger::{Errand, How};

/// What goes through the engine when the process dies.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Message,
    Command,
    /// The outcome of an effect.
    Outcome,
    /// A timer that is due.
    Timer,
    /// A message that is parked.
    Parking,
    /// A message that is to be tried again.
    Retry,
    /// A message that was being handled when the process died before.
    Suspect,
    /// A dead letter that is redriven and booked.
    Redrive,
    /// A dead letter that is redriven and given up again.
    InVain,
    /// What another process has left when it died.
    Sweep,
    Start,
    Stop,
}

/// The arrows that each kind goes along, and at which time of being there the process dies: the message that brings an effect or
/// a timer goes through the loop first.
const CELLS: &[(Kind, &[(&str, u64)])] = &[
    (
        Kind::Message,
        &[
            ("drained", 1),
            ("loaded", 1),
            ("handled", 1),
            ("before_commit", 1),
            ("after_commit", 1),
            ("before_ack", 1),
            ("after_ack", 1),
            ("before_publish", 1),
            ("after_publish", 1),
            ("before_watermark", 1),
            ("after_watermark", 1),
        ],
    ),
    (
        Kind::Command,
        &[
            ("drained", 1),
            ("loaded", 1),
            ("handled", 1),
            ("before_commit", 1),
            ("after_commit", 1),
            ("before_answer", 1),
            ("after_answer", 1),
            ("before_publish", 1),
            ("after_publish", 1),
            ("before_watermark", 1),
            ("after_watermark", 1),
        ],
    ),
    (
        Kind::Outcome,
        &[
            ("after_commit", 1),
            ("before_ack", 1),
            ("after_ack", 1),
            ("before_effect", 1),
            ("after_effect", 1),
            ("drained", 2),
            ("loaded", 2),
            ("handled", 2),
            ("before_commit", 2),
            ("after_commit", 2),
            ("before_publish", 1),
            ("after_publish", 1),
            ("before_watermark", 1),
            ("after_watermark", 1),
        ],
    ),
    (
        Kind::Timer,
        &[
            ("due", 1),
            ("drained", 2),
            ("loaded", 2),
            ("handled", 2),
            ("before_commit", 2),
            ("after_commit", 2),
            ("before_publish", 1),
            ("after_publish", 1),
            ("before_watermark", 1),
            ("after_watermark", 1),
        ],
    ),
    (
        Kind::Parking,
        &[
            ("handled", 1),
            ("before_commit", 1),
            ("after_commit", 1),
            ("before_ack", 1),
            ("after_ack", 1),
            ("before_publish", 1),
            ("after_publish", 1),
            ("before_watermark", 1),
            ("after_watermark", 1),
        ],
    ),
    (Kind::Retry, &[("before_commit", 1), ("after_commit", 1), ("before_ack", 1), ("after_ack", 1)]),
    (
        Kind::Suspect,
        &[
            ("loaded", 1),
            ("before_commit", 1),
            ("after_commit", 1),
            ("started", 1),
            ("handled", 1),
            ("before_commit", 2),
        ],
    ),
    (
        Kind::Redrive,
        &[
            ("drained", 1),
            ("loaded", 1),
            ("before_commit", 1),
            ("after_commit", 1),
            ("started", 1),
            ("handled", 1),
            ("before_commit", 2),
            ("after_commit", 2),
            ("before_ack", 1),
            ("after_ack", 1),
            ("before_publish", 1),
            ("before_publish", 2),
            ("after_publish", 1),
            ("after_publish", 2),
            ("before_watermark", 1),
            ("after_watermark", 1),
        ],
    ),
    (
        Kind::InVain,
        &[
            ("started", 1),
            ("before_commit", 2),
            ("after_commit", 2),
            ("before_ack", 1),
            ("after_ack", 1),
            ("before_publish", 1),
            ("after_publish", 1),
        ],
    ),
    (Kind::Sweep, &[("before_publish", 1), ("after_publish", 1), ("before_row_deleted", 1), ("after_row_deleted", 1)]),
    (Kind::Start, &[("enrolled", 1), ("marked", 1)]),
    (Kind::Stop, &[("stopping", 1), ("before_row_deleted", 1), ("after_row_deleted", 1)]),
];

/// A point that is renamed, or an arrow that is left out, is noticed here.
const COUNT: usize = 97;

/// More at once only make each other slow.
const AT_ONCE: usize = 4;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_arrow_where_the_process_dies_each_input_is_handled_once() {
    matrix(async || Place::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn whatever_the_arrow_where_the_process_dies_each_input_is_handled_once_on_mongo() {
    if Place::on_mongo().await.is_some() {
        matrix(async || Place::on_mongo().await.unwrap()).await;
    }
}

async fn matrix(place: impl AsyncFn() -> Place) {
    let cells = CELLS.iter().flat_map(|(kind, arrows)| arrows.iter().map(move |(point, nth)| (*kind, *point, *nth)));
    let run = futures_util::stream::iter(cells)
        .map(async |(kind, point, nth)| {
            println!("{kind:?} at {point}, time {nth}");
            cell(place().await, kind, point, nth).await;
        })
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    assert_eq!(run, COUNT, "cells that were run");
}

async fn cell(mut place: Place, kind: Kind, point: &str, nth: u64) {
    let plain = place.errand();
    // The process that is to die writes its watermark only after it has published.
    let deadly = Errand { crash: Some((point.into(), nth)), silent: true, ..plain.clone() };
    match kind {
        Kind::Message => dies_of(&mut place, &deadly, How::AtOnce).await,
        Kind::Outcome => dies_of(&mut place, &deadly, How::Outside).await,
        Kind::Timer => dies_of(&mut place, &deadly, How::Later).await,
        Kind::Parking => dies_of(&mut place, &deadly, How::Refused).await,
        Kind::Retry => dies_of(&mut place, &deadly, How::Again).await,
        Kind::Command => {
            let mut child = Child::start(&deadly);
            child.ready().await;
            let n = place.number(How::AtOnce);
            if !asks(&child, n).await {
                place.unanswered(n);
            }
            child.dies_at(point).await;
        }
        Kind::Suspect => {
            let first = Errand { crash: Some(("handled".into(), 1)), ..deadly.clone() };
            dies_of(&mut place, &first, How::AtOnce).await;
            Child::start(&deadly).dies_at(point).await;
        }
        Kind::Redrive => dies_of_redrive(&mut place, &deadly, How::Mended).await,
        Kind::InVain => dies_of_redrive(&mut place, &deadly, How::Refused).await,
        Kind::Sweep => {
            let first = Errand { crash: Some(("after_commit".into(), 1)), ..deadly.clone() };
            dies_of(&mut place, &first, How::AtOnce).await;
            Child::start(&deadly).dies_at(point).await;
        }
        Kind::Start => Child::start(&deadly).dies_at(point).await,
        Kind::Stop => {
            let mut child = Child::start(&deadly);
            child.ready().await;
            place.publish(How::AtOnce).await;
            eventually("an event", SOON, async || !place.events().await.is_empty()).await;
            child.signal("TERM");
            child.dies_at(point).await;
        }
    }
    let child = Child::start(&plain);
    child.ready().await;
    // What comes after it is handled, too.
    place.publish(How::AtOnce).await;
    place.balances(1, SOON).await;
}

/// A process dies at its crash point of a message.
async fn dies_of(place: &mut Place, deadly: &Errand, how: How) {
    let Some((point, _)) = &deadly.crash else { panic!("a deadly errand has a crash point") };
    let mut child = Child::start(deadly);
    child.ready().await;
    place.publish(how).await;
    child.dies_at(point).await;
}

/// A process dies at its crash point of what another has given up before, and an operator hands back.
async fn dies_of_redrive(place: &mut Place, deadly: &Errand, how: How) {
    let Some((point, _)) = &deadly.crash else { panic!("a deadly errand has a crash point") };
    let mut first = Child::start(&place.errand());
    first.ready().await;
    place.publish(how).await;
    eventually("a dead letter", SOON, async || !place.dead_letters().await.is_empty()).await;
    first.signal("TERM");
    first.end("a process that was told to stop").await;
    let mut child = Child::start(deadly);
    child.ready().await;
    place.redrive().await;
    child.dies_at(point).await;
}

/// Asks for an entry by a command; says whether it was answered that it is booked.
async fn asks(child: &Child, n: u64) -> bool {
    let answer = reqwest::Client::new().post(child.url("/entries")).json(&serde_json::json!({ "n": n })).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
