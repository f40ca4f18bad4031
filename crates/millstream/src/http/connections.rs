//! Connections without a request: half a header, silence or a client that keeps its connection for later hold a descriptor each, and
//! a process without descriptors can be neither used nor probed. They end after some time, and before, if too many are open.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a request's head may take from its first byte.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// How long a connection may be silent between requests: longer than clients keep one in store, so that they, not we, give it up.
const IDLE_TIME: Duration = Duration::from_secs(110);
/// How many connections a process holds open at most, however many descriptors it may have.
const MOST: usize = 16_384;
/// The descriptors that are taken for granted where the system does not say.
const DESCRIPTORS: usize = 1024;
/// A log line about closed connections is not repeated sooner.
const REMARK_EVERY: Duration = Duration::from_secs(10);

/// Serves routes on a listener until `shutdown`. Half of the process's descriptors are for connections; the rest is for the store,
/// the broker and whatever else it does.
///
/// # Errors
/// When HTTP cannot be served.
pub async fn serve<L>(
    listener: L,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: Debug,
{
    static OF_PROCESS: LazyLock<Arc<Connections>> =
        LazyLock::new(|| Arc::new(Connections::new(Bounds { open: places(), head: HEAD_TIME, idle: IDLE_TIME })));
    serve_within(OF_PROCESS.clone(), listener, routes, shutdown).await
}

/// How many connections this process holds open at most.
pub(crate) fn places() -> usize {
    (descriptors().unwrap_or(DESCRIPTORS) / 2).min(MOST)
}

async fn serve_within<L>(
    connections: Arc<Connections>,
    listener: L,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: Debug,
{
    let routes = routes.layer(from_fn(note_request)).into_make_service_with_connect_info::<Line>();
    axum::serve(Bounded { listener, connections }, routes).with_graceful_shutdown(shutdown).await
}

/// The process's limit of open descriptors.
fn descriptors() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match files.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        count => count.parse().ok(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    open: usize,
    head: Duration,
    idle: Duration,
}

/// The open connections of all servers that share the bounds.
#[derive(Debug)]
struct Connections {
    bounds: Bounds,
    open: Mutex<HashMap<u64, Line>>,
    next: AtomicU64,
    /// When something about closed connections was last logged.
    remarked: Mutex<Option<Instant>>,
}

impl Connections {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, open: Mutex::default(), next: AtomicU64::new(0), remarked: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Line>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, if need be that of the one that has been without a request for longest; `None` if all have
    /// one.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open();
        if open.len() >= self.bounds.open {
            self.remark("too many connections are open: closing those without a request");
            let idle = open.iter().filter(|(_, line)| !line.is_busy());
            let oldest = *idle.min_by_key(|(_, line)| line.wait().since)?.0;
            if let Some(line) = open.remove(&oldest) {
                line.close();
            }
        }
        let (number, line) = (self.next.fetch_add(1, Ordering::Relaxed), Line::default());
        open.insert(number, line.clone());
        Some(Place { number, line, connections: self.clone() })
    }

    fn remark(&self, what: &str) {
        let mut last = self.remarked.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= REMARK_EVERY) {
            *last = Some(Instant::now());
            tracing::warn!(limit = self.bounds.open, "{what}");
        }
    }
}

/// A connection's place among the open ones.
#[derive(Debug)]
struct Place {
    number: u64,
    line: Line,
    connections: Arc<Connections>,
}

impl Place {
    /// Until when a connection without a request stays.
    fn deadline(&self) -> Instant {
        let Wait { since, begun } = *self.line.wait();
        since + if begun { self.connections.bounds.head } else { self.connections.bounds.idle }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
    }
}

/// What is known of a connection; its requests carry it along.
#[derive(Clone, Debug, Default)]
struct Line(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Requests under way.
    busy: AtomicUsize,
    closed: AtomicBool,
    wait: Mutex<Wait>,
    waker: AtomicWaker,
}

/// The wait for the next request.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    /// Whether a part of the request is there.
    begun: bool,
}

impl Default for Wait {
    fn default() -> Self {
        Self { since: Instant::now(), begun: false }
    }
}

impl Line {
    fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::Acquire) > 0
    }

    fn wait(&self) -> MutexGuard<'_, Wait> {
        self.0.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    fn heard(&self) {
        let mut wait = self.wait();
        if !wait.begun && !self.is_busy() {
            *wait = Wait { begun: true, ..Wait::default() };
        }
    }

    fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// A request under way, until its answer is sent or dropped.
struct UnderWay(Line);

impl UnderWay {
    fn new(line: Line) -> Self {
        line.0.busy.fetch_add(1, Ordering::AcqRel);
        Self(line)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.wait() = Wait::default();
        self.0.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn note_request(request: Request, next: Next) -> Response {
    let Some(ConnectInfo(line)) = request.extensions().get::<ConnectInfo<Line>>().cloned() else {
        return next.run(request).await;
    };
    let under_way = UnderWay::new(line);
    let read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let request = request.map(|body| Body::new(Asked { body, read: read.clone() }));
    let mut response = next.run(request).await;
    // What is left of it stands between this answer and the next request, so the connection ends here. A client that is not told
    // would send its next request over it, and get no answer.
    if !read.load(Ordering::Acquire) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Body::new(Answer { body, _under_way: under_way }))
}

/// A request's body that notes when all of it was read.
struct Asked {
    body: Body,
    read: Arc<AtomicBool>,
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.read.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that ends its request when it is dropped.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A listener that bounds the connections it gives away.
struct Bounded<L> {
    listener: L,
    connections: Arc<Connections>,
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Watched<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (io, address) = self.listener.accept().await;
            if let Some(place) = self.connections.admit() {
                return (Watched::new(io, place), address);
            }
            // A closed connection is an answer that its client understands at once.
            drop(io);
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<L: Listener> Connected<IncomingStream<'_, Bounded<L>>> for Line {
    fn connect_info(stream: IncomingStream<'_, Bounded<L>>) -> Self {
        stream.io().place.line.clone()
    }
}

/// A connection that ends when it has been without a request for too long, or when its place is wanted.
struct Watched<I> {
    io: I,
    place: Place,
    timer: Pin<Box<Sleep>>,
}

impl<I> Watched<I> {
    fn new(io: I, place: Place) -> Self {
        let timer = Box::pin(sleep_until(place.deadline()));
        Self { io, place, timer }
    }

    /// Ready if the connection is to end.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { place, timer, .. } = self;
        place.line.0.waker.register(cx.waker());
        if place.line.0.closed.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if place.line.is_busy() {
            return Poll::Pending;
        }
        let deadline = place.deadline();
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        if place.line.wait().begun {
            place.connections.remark("connections whose request does not arrive are being closed");
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, buffer) {
            if buffer.filled().len() > before {
                self.place.line.heard();
            }
            return Poll::Ready(read);
        }
        ready!(self.poll_over(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server whose route `/slow` says that it was entered, and waits for a permit.
    async fn served(bounds: Bounds) -> (SocketAddr, Arc<Semaphore>, Arc<Semaphore>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, go) = (listener.local_addr().unwrap(), Arc::new(Semaphore::new(0)));
        let entered = Arc::new(Semaphore::new(0));
        let (inside, wait) = (entered.clone(), go.clone());
        let slow = get(async move || {
            inside.add_permits(1);
            wait.acquire().await.map(|_| "slow").unwrap()
        });
        let whole = post(async |body: Bytes| body.len().to_string());
        let routes = Router::new().route("/", get(async || "quick")).route("/slow", slow).route("/whole", whole);
        let connections = Arc::new(Connections::new(bounds));
        tokio::spawn(serve_within(connections, listener, routes, std::future::pending()));
        (address, entered, go)
    }

    async fn sends(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be closed already.
        drop(stream.write_all(text.as_bytes()).await);
        stream
    }

    /// What comes until the connection ends.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = vec![];
        // A reset is an end as well.
        drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection ends"));
        String::from_utf8(answer).unwrap()
    }

    async fn answer(address: SocketAddr) -> String {
        rest(&mut sends(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await
    }

    const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    const HALF: &str = "GET / HTTP/1.1\r\nx-a: ";

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_without_a_request_make_room_and_those_with_one_stay() {
        let long = Duration::from_secs(600);
        let (address, entered, go) = served(Bounds { open: 8, head: long, idle: long }).await;
        let mut slow = sends(address, SLOW).await;
        timeout(SOON, entered.acquire()).await.expect("its request is under way").unwrap().forget();
        let mut half = vec![];
        for _ in 0..100 {
            half.push(sends(address, HALF).await);
            assert!(answer(address).await.ends_with("quick"));
        }
        // The oldest are gone, and what is under way is not.
        for stream in &mut half[..90] {
            assert_eq!(rest(stream).await, "");
        }
        go.add_permits(1);
        assert!(rest(&mut slow).await.ends_with("slow"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_connection_is_closed_if_all_others_have_a_request() {
        let long = Duration::from_secs(600);
        let (address, entered, go) = served(Bounds { open: 2, head: long, idle: long }).await;
        let mut slow = [sends(address, SLOW).await, sends(address, SLOW).await];
        timeout(SOON, entered.acquire_many(2)).await.expect("both requests are under way").unwrap().forget();
        assert_eq!(answer(address).await, "");
        go.add_permits(2);
        for stream in &mut slow {
            assert!(rest(stream).await.ends_with("slow"));
        }
        assert!(answer(address).await.ends_with("quick"), "there is room again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn half_a_request_silence_and_a_connection_kept_for_later_end_by_themselves() {
        let bounds = Bounds { open: 100, head: Duration::from_millis(200), idle: Duration::from_millis(400) };
        let (address, _, go) = served(bounds).await;
        let mut slow = sends(address, SLOW).await;
        let mut kept = sends(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(rest(&mut sends(address, HALF).await).await, "");
        assert_eq!(rest(&mut sends(address, "").await).await, "");
        assert!(rest(&mut kept).await.ends_with("quick"));
        go.add_permits(1);
        assert!(rest(&mut slow).await.ends_with("slow"), "an answer may take its time");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_before_the_end_of_the_body_says_that_the_connection_ends_and_others_keep_it() {
        let long = Duration::from_secs(600);
        let (address, ..) = served(Bounds { open: 8, head: long, idle: long }).await;
        // The rest of the body never comes.
        for half in ["POST / HTTP/1.1", "GET /none HTTP/1.1", "POST /none HTTP/1.1"] {
            let half = format!("{half}\r\nhost: x\r\ncontent-length: 9\r\n\r\n123");
            let said = rest(&mut sends(address, &half).await).await;
            assert!(said.starts_with("HTTP/1.1 40") && said.contains("\r\nconnection: close\r\n"), "{said}");
        }
        let whole = "POST /whole HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123456789";
        let chunked = "POST /whole HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\n123\r\n0\r\n\r\n";
        let none = "GET /none HTTP/1.1\r\nhost: x\r\n\r\n";
        let last = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let said = rest(&mut sends(address, &[whole, chunked, none, whole, last].concat()).await).await;
        let statuses: Vec<_> = said.match_indices("HTTP/1.1 ").map(|(at, _)| &said[at + 9..at + 12]).collect();
        assert_eq!(statuses, ["200", "200", "404", "200", "200"], "{said}");
        assert_eq!(said.matches("connection: close").count(), 1, "{said}");
    }

    #[test]
    fn the_limit_of_descriptors_is_known_where_the_system_says_it() {
        assert!(descriptors().is_none_or(|count| count >= 64));
    }
}
