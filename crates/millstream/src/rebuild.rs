//! Rebuilding: a service that only reads forgets what it has, and reads its streams from their beginning.
//!
//! The store is cleared first, then the durables go; what follows is an ordinary first start. Between the two a start finds durables
//! that the database does not know, and refuses; after them it is a first start, whoever does it. So nothing has to be noted
//! for a process that dies in the midst of it.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::ConsumerErrorKind;

use crate::broker::Broker;
use crate::engine::timing::Timing;
use crate::ids::Timestamp;
use crate::service::{Rebuild, Service, Start};
use crate::store::Store;

/// Why a service cannot be rebuilt; `None` if it can.
pub(crate) fn obstacle(service: &Service) -> Option<String> {
    if let Some(stream) = service.publishes.first() {
        return Some(format!("it publishes {}, and what others have received cannot be taken back", stream.name));
    }
    let kinds =
        service.effects.iter().map(|effect| effect.kind()).chain(service.timers.iter().map(|timer| timer.kind()));
    if let Some(kind) = kinds.into_iter().next() {
        return Some(format!("it has an effect or timer `{kind}`, and what that has done cannot be taken back"));
    }
    if let Some(reading) = service.reads.iter().find(|reading| reading.start == Start::Now) {
        return Some(format!(
            "it does not read {} from its beginning, but from where it ended at the first start",
            reading.stream.name
        ));
    }
    service.reads.is_empty().then(|| "it reads no stream".into())
}

/// Clears the store and deletes the durables. Repeated after a failure it begins anew, and ends in the same.
pub(crate) async fn forget(
    store: &dyn Store,
    broker: &Broker,
    service: &str,
    streams: &[&str],
    how: Rebuild,
    timing: &Timing,
) -> Result<(), String> {
    let away = |error: crate::store::StoreError| format!("the store: {error}");
    let before = store.instances().await.map_err(away)?;
    if !before.is_empty() {
        tokio::time::sleep(timing.dead_after).await;
        let now = store.instances().await.map_err(away)?;
        if now.iter().any(|row| !before.contains(row)) {
            return Err(format!("another instance of `{service}` runs and must be stopped before the rebuild"));
        }
    }
    if how == Rebuild::Whole {
        for stream in streams {
            whole(broker, stream).await?;
        }
    }
    store.clear().await.map_err(away)?;
    fail::fail_point!("cleared");
    for stream in streams {
        let deleted = broker.jetstream.delete_consumer_from_stream(service, *stream).await;
        match deleted.map_err(|error| error.kind()) {
            Ok(_) => {}
            Err(ConsumerErrorKind::JetStream(error))
                if matches!(error.error_code(), ErrorCode::CONSUMER_NOT_FOUND | ErrorCode::STREAM_NOT_FOUND) => {}
            Err(error) => return Err(format!("consumer {service} on {stream} cannot be deleted: {error}")),
        }
    }
    fail::fail_point!("forgotten");
    tracing::info!("cleared; reading all streams from the beginning");
    Ok(())
}

/// An error if a stream has lost its beginning.
async fn whole(broker: &Broker, stream: &str) -> Result<(), String> {
    let found = match broker.jetstream.get_stream(stream).await {
        Ok(found) => found,
        // Then there is nothing of it that could be lost.
        Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
        {
            return Ok(());
        }
        Err(error) => return Err(format!("stream {stream}: {error}")),
    };
    let state = &found.cached_info().state;
    let gone = state.first_sequence.saturating_sub(1);
    if gone == 0 {
        return Ok(());
    }
    let millis = u64::try_from(state.first_timestamp.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let left = match state.messages {
        0 => "holds none now".into(),
        messages => format!("holds {messages} since {}", Timestamp::from_millis(millis)),
    };
    Err(format!(
        "the first {gone} messages of stream {stream} are gone, and it {left}: what was made of those that are gone would not \
         come back. Start without --rebuild to keep what there is, or with --rebuild=partial to rebuild it from what is left"
    ))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::event::Stream;
    use crate::handler::{Document, Kind, Timer};
    use crate::unit::Unit;

    const STREAM: Stream = Stream::new("S", "s");

    #[derive(Clone, Serialize, Deserialize)]
    struct Thing {}

    impl Document for Thing {
        const COLLECTION: &'static str = "things";
        fn id(&self) -> &str {
            ""
        }
    }

    struct Bell;

    impl Timer for Bell {
        type Document = Thing;
        const KIND: Kind<Thing> = Kind::new("bell");
        fn fire(&self, _: &mut Thing, _: &mut Unit<'_>) {}
    }

    #[test]
    fn only_a_service_of_which_nobody_has_heard_and_that_can_read_all_again_is_rebuilt() {
        let reader = || Service::new("reader").reads(STREAM, Start::Beginning);
        assert_eq!(obstacle(&reader()), None);
        for (service, part) in [
            (reader().publishes(STREAM), "publishes S"),
            (reader().timer(Bell), "`bell`"),
            (reader().reads(Stream::new("T", "t"), Start::Now), "it does not read T from its beginning"),
            (Service::new("reader"), "no stream"),
        ] {
            let why = obstacle(&service).unwrap();
            assert!(why.contains(part), "{why}");
        }
    }
}
