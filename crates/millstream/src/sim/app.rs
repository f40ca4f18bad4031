//! A service in the simulation: what it declares, its database, its replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_core::planner::{Decoder, Kinds, Planner};
use millstream_core::timing::Timing;

use crate::dead_letter::REDRIVE;
use crate::event::Stream;
use crate::service::{Service, Start};
use crate::sim::replica::Replica;
use crate::store::memory::Memory;
use crate::work::AnyHandler;
use millstream_core::hash::{HashMap, HashSet};

/// What a broker with its default settings takes, less the room for a dead letter.
const MAX_MESSAGE: usize = (1 << 20) - millstream_core::dead_letter::ROOM;

/// A service.
pub(super) struct App {
    pub(super) name: &'static str,
    pub(super) planner: Planner,
    pub(super) publishes: Vec<Stream>,
    pub(super) feeds: Vec<Feed>,
    pub(super) store: Memory,
    pub(super) replicas: Vec<Option<Replica>>,
    pub(super) counts: BTreeMap<(&'static str, &'static [&'static str]), f64>,
    /// In what its turns are taken.
    pub(super) within: fn(&mut dyn FnMut()),
}

/// A durable of a service.
pub(super) struct Feed {
    pub(super) decoder: Decoder,
    /// Where it begins; `None` for the work queue of redrives.
    pub(super) start: Option<Start>,
    pub(super) filters: Vec<String>,
}

impl App {
    pub(super) fn new(service: &Service, timing: Timing, replicas: usize) -> Self {
        let kinds = Kinds {
            effects: service.effects.iter().map(|effect| (effect.kind(), effect.clone())).collect(),
            timers: service.timers.iter().map(|timer| (timer.kind(), timer.clone())).collect(),
        };
        let mut store = Memory::default();
        store.prepare(&service.collections);
        let name = service.name;
        let decoder = |stream, handlers: HashMap<_, _>, ignored: HashSet<_>, redrives| Decoder {
            stream,
            consumer: name,
            handlers,
            ignored,
            redrives,
        };
        let mut feeds = Vec::new();
        let mut all: HashMap<&'static str, Arc<dyn AnyHandler>> = HashMap::default();
        let mut ignored = HashSet::default();
        for reading in &service.reads {
            let handlers: HashMap<_, _> =
                reading.handlers.iter().map(|handler| (handler.event_type(), handler.clone())).collect();
            all.extend(handlers.iter().map(|(event, handler)| (*event, handler.clone())));
            ignored.extend(reading.ignored.iter().copied());
            feeds.push(Feed {
                filters: reading.events().map(|event| format!("{event}.*")).collect(),
                decoder: decoder(reading.stream.name, handlers, reading.ignored.iter().copied().collect(), false),
                start: Some(reading.start),
            });
        }
        let filters = vec![format!("redrive.{name}.>")];
        feeds.push(Feed { decoder: decoder(REDRIVE, all, ignored, true), start: None, filters });
        Self {
            name,
            planner: Planner { rules: service.rules(MAX_MESSAGE), kinds, timing },
            publishes: service.publishes.clone(),
            feeds,
            store,
            replicas: (0..replicas).map(|_| None).collect(),
            counts: BTreeMap::new(),
            within: |turn| turn(),
        }
    }
}
