//! A MongoDB that is cut off, hangs, elects another primary, or will not do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millstream::commands::{Caller, CommandError};
use millstream::engine::timing::Timing;
use millstream::service::{Options, RunError};
use millstream::store::mongo::{MongoStore, MongoUrl};
use millstream::store::{Batch, CommitError, Store, open};
use millstream::testing::mongo::mongodb::bson::{Document, doc};
use millstream::testing::mongo::mongodb::{Client, ClientSession};
use millstream::testing::mongo::{Mongod, ReplicaSet};
use millstream::testing::{Bench, TestService, TestStore, fresh_meta};
use millstream::{Id, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::bank::*;

/// What becomes of a commit's connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// It is cut when the commit is done, and before anybody learns of it.
    Answer,
    /// It is cut before the server has the command.
    Command,
}

/// Stands between a client and a server, and cuts connections on which a commit was sent.
struct Proxy {
    address: SocketAddr,
    /// How many of the next commits are cut.
    cuts: Arc<AtomicU32>,
}

impl Proxy {
    async fn start(server: String, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicU32::new(0));
        let left = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await;
                if let Ok(server) = server {
                    tokio::spawn(Self::pass(client, server, cut, left.clone()));
                }
            }
        });
        Self { address, cuts }
    }

    fn url(&self, database: &str) -> String {
        format!("mongodb://{}/{database}?directConnection=true", self.address)
    }

    /// Waits until all the cuts that were asked for are made.
    async fn until_cut(&self) {
        until("the commits to be cut", async || self.cuts.load(Ordering::Acquire) == 0).await;
    }

    async fn pass(client: TcpStream, server: TcpStream, cut: Cut, left: Arc<AtomicU32>) {
        let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
        // Raised while the answer to come is one that nobody is to have.
        let (silence, silent) = watch::channel(false);
        let commands = Self::commands(client_in, server_out, cut, left, silence);
        tokio::select! {
            _ = commands => {}
            _ = Self::answers(server_in, client_out, silent) => {}
        }
    }

    async fn commands(
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        cut: Cut,
        left: Arc<AtomicU32>,
        silence: watch::Sender<bool>,
    ) -> std::io::Result<()> {
        loop {
            let message = message(&mut from).await?;
            let commits = message.windows(18).take(64).any(|part| part == b"commitTransaction\0");
            let take = |left: u32| left.checked_sub(1);
            if commits && left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok() {
                if cut == Cut::Command {
                    return Ok(());
                }
                silence.send_replace(true);
            }
            to.write_all(&message).await?;
        }
    }

    async fn answers(
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        silent: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        loop {
            let message = message(&mut from).await?;
            if *silent.borrow() {
                return Ok(());
            }
            to.write_all(&message).await?;
        }
    }
}

/// One message of MongoDB's protocol: its length comes first, and counts itself.
async fn message(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message).await?;
    let length = u32::from_le_bytes(message[..4].try_into().unwrap()) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

async fn run_on(bench: &Bench, world: &World, url: &str) -> TestService {
    let timing = Timing { command_timeout: Duration::from_secs(20), ..Timing::short() };
    let options = Options { timing, store: Some(open(url).unwrap()), ..Options::default() };
    let service = bench.launch_with(ledger(world), options).await;
    service.until_ready().await;
    service
}

/// Gives a command until it is done: who gets no answer asks again under the same key, as a client of HTTP would.
async fn insist(service: &TestService, world: &World, ask: Moved) {
    let caller = Caller {
        correlation: "test".into(),
        idempotency_key: Some(ask.note.clone()),
        method: "POST".into(),
        route: "/".into(),
        ..Caller::default()
    };
    let deadline = Instant::now() + LONG;
    loop {
        match service.context().submit_to(&caller, world, ask.clone()).await {
            Ok(_) => return,
            Err(CommandError::Unavailable(_) | CommandError::OutcomeUnknown) if Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A commit that is cut once is repeated by the driver, one that is cut for seconds by the engine's store, and then the journal is
/// asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_commit_whose_connection_is_cut_is_done_once_whether_or_not_it_arrived() {
    let Some(set) = ReplicaSet::start("MongoDB behind a proxy that cuts", 1).await else { return };
    for cut in [Cut::Answer, Cut::Command] {
        let proxy = Proxy::start(set.members[0].address(), cut).await;
        let bench = bench().await;
        let world = World::default();
        let service = run_on(&bench, &world, &proxy.url(&format!("{cut:?}"))).await;
        let mut expected = 0;
        for cuts in [1, 2, 12] {
            proxy.cuts.store(cuts, Ordering::Release);
            insist(&service, &world, moved("a", &format!("c{cuts}"), Act::Add(1))).await;
            proxy.until_cut().await;
            proxy.cuts.store(cuts, Ordering::Release);
            let messages: Vec<_> = (0..5).map(|at| moved("a", &format!("m{cuts}-{at}"), Act::Add(1))).collect();
            bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
            proxy.until_cut().await;
            bench.until_handled(&BANK, SERVICE).await;
            expected += 6;
        }
        let account = service.get::<Account>("a").await.unwrap();
        let mut log = account.log.clone();
        log.sort();
        log.dedup();
        assert_eq!((account.balance, log.len()), (expected, account.log.len()), "{cut:?}");
        let noted = bench.expect::<Noted>(log.len()).await;
        assert_eq!(noted.len(), log.len(), "{cut:?}: an event for each");
        assert!(bench.dead_letters(SERVICE).await.is_empty());
        service.stop().await;
    }
}

/// The server has a commit in its hands for longer than anybody waits. The journal does not have it then, and has it a moment later:
/// who would believe it too early would take the batch's own entries for another's, and never publish their events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_not_asked_about_a_commit_before_that_commit_is_over() {
    let what = "a MongoDB that is slow to commit";
    let Some(set) = ReplicaSet::start_with(what, 1, &["--setParameter", "enableTestCommands=1"]).await else { return };
    let bench = bench().await;
    let world = World::default();
    let service = run_on(&bench, &world, &set.url("slow")).await;
    publish(&bench, "a", "before", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    bench.expect::<Noted>(1).await;

    let server = &set.members[0];
    let hang = |mode: &str| doc! { "configureFailPoint": "hangBeforeCommitingTxn", "mode": mode };
    server.admin(hang("alwaysOn")).await.unwrap();
    publish(&bench, "a", "meanwhile", Act::Add(1)).await;
    service.until_waits_for("the store").await;
    let behind_it = async || {
        let running = server.admin(doc! { "currentOp": 1, "$all": true }).await.unwrap();
        let running = running.get_array("inprog").unwrap().iter().filter_map(|op| op.as_document());
        let in_transactions = running.filter_map(|op| op.get_document("command").ok());
        in_transactions.filter(|command| command.contains_key("txnNumber")).count() >= 2
    };
    until("the service to come with another command of its session", behind_it).await;
    server.admin(hang("off")).await.unwrap();

    service.until_ready().await;
    publish(&bench, "a", "after", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["before", "meanwhile", "after"]);
    let noted: Vec<String> = bench.expect::<Noted>(3).await.into_iter().map(|noted| noted.body.note).collect();
    assert_eq!(noted, ["before", "meanwhile", "after"]);
    service.stop().await;
}

/// What comes in while the primary is killed again and again, each time with the next one elected by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn while_primaries_are_killed_under_load_nothing_is_lost_or_doubled_and_it_goes_on_by_itself() {
    const KILLS: usize = 3;
    let Some(mut set) = ReplicaSet::start("MongoDB with three members", 3).await else { return };
    let bench = bench().await;
    let world = World::default();
    let service = run_on(&bench, &world, &set.url("elections")).await;
    let other = run_on(&bench, &world, &set.url("elections")).await;
    let (mut messages, mut commands) = (0, 0);
    for round in 0..KILLS {
        let killed = set.primary().await;
        let load = async {
            let mut ids = vec![];
            for at in 0..40 {
                let id = format!("r{round}-{at}");
                publish(&bench, &format!("hot{}", at % 3), &format!("m-{id}"), Act::Add(1)).await;
                ids.push(id);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            ids.len()
        };
        let asked = |at: usize| {
            let service = if at.is_multiple_of(2) { &service } else { &other };
            let ask = moved("cold", &format!("c-r{round}-{at}"), Act::Add(1));
            let world = &world;
            async move {
                tokio::time::sleep(Duration::from_millis(30 * at as u64)).await;
                insist(service, world, ask).await;
            }
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            set.members[killed].kill();
        };
        let (published, _, ()) = tokio::join!(load, join_all((0..20).map(asked)), kill);
        (messages, commands) = (messages + published, commands + 20);
        bench.until_handled(&BANK, SERVICE).await;
        set.members[killed].restart();
    }
    for service in [&service, &other] {
        service.until_ready().await;
    }
    let mut total = 0;
    let mut logged = vec![];
    for account in ["hot0", "hot1", "hot2", "cold"] {
        let account = service.get::<Account>(account).await.unwrap();
        total += account.balance;
        logged.extend(account.log);
    }
    let all = messages + commands;
    let count = logged.len();
    logged.sort();
    logged.dedup();
    assert_eq!((total, count, logged.len()), (all as i64, all, all));
    let mut noted: Vec<String> = bench.expect::<Noted>(all).await.into_iter().map(|noted| noted.body.note).collect();
    noted.sort();
    assert_eq!(noted, logged, "an event for each, and no other");
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_server_that_hangs_is_away_and_when_it_answers_again_the_work_goes_on() {
    let Some(set) = ReplicaSet::start("a MongoDB that hangs", 1).await else { return };
    let bench = bench().await;
    let world = World::default();
    let service = run_on(&bench, &world, &set.url("hangs")).await;
    publish(&bench, "a", "before", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    set.members[0].pause();
    publish(&bench, "a", "meanwhile", Act::Add(1)).await;
    service.until_waits_for("the store").await;
    set.members[0].resume();
    service.until_ready().await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["before", "meanwhile"]);
    assert_eq!(bench.expect::<Noted>(2).await.len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn a_standalone_server_is_refused_in_one_sentence_that_names_the_remedy() {
    let Some(server) = Mongod::start("a standalone MongoDB", &[]) else { return };
    let bench = bench().await;
    let url = MongoUrl::read(&format!("mongodb://{}", server.address())).unwrap();
    let store: Arc<dyn Store> = Arc::new(MongoStore::open(&url, Some("orders")).unwrap());
    let service = bench.launch_with(ledger(&World::default()), Options { store: Some(store), ..options() }).await;
    let Err(error @ RunError::Store { .. }) = service.ended().await else { panic!("it runs on a standalone server") };
    let expected = format!(
        "the store of `ledger` cannot be opened: the MongoDB at {} is a standalone server, and transactions need a replica \
         set, of which one member is enough: start mongod with --replSet rs0 and run rs.initiate() in mongosh once",
        server.address()
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_its_set_later_is_waited_for() {
    let Some(server) = Mongod::start("a MongoDB that is not initiated yet", &["--replSet", "late"]) else { return };
    let bench = bench().await;
    let url = format!("mongodb://{}/late?replicaSet=late", server.address());
    let options = Options { store: Some(open(&url).unwrap()), ..options() };
    let service = bench.launch_with(ledger(&World::default()), options).await;
    service.until_waits_for("the store").await;
    let member = doc! { "_id": 0, "host": server.address() };
    server.admin(doc! { "replSetInitiate": { "_id": "late", "members": [member] } }).await.unwrap();
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_server_is_reached_by_tls_with_a_ca_of_its_own_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificates) = certificates(folder.path()) else { return };
    let key = format!("{}/server.pem", certificates.display());
    let ca = format!("{}/ca.crt", certificates.display());
    let options = [
        "--replSet",
        "tls",
        "--tlsMode",
        "requireTLS",
        "--tlsCertificateKeyFile",
        &key,
        "--tlsCAFile",
        &ca,
        "--tlsAllowConnectionsWithoutCertificates",
    ];
    let Some(server) = Mongod::start("a MongoDB with TLS", &options) else { return };
    let url = |more: &str| format!("mongodb://{}/orders?directConnection=true{more}", server.address());
    let with_ca = url(&format!("&tls=true&tlsCAFile={ca}"));
    let client = Client::with_uri_str(&with_ca).await.unwrap();
    let member = doc! { "_id": 0, "host": server.address() };
    let initiate = doc! { "replSetInitiate": { "_id": "tls", "members": [member] } };
    client.database("admin").run_command(initiate).await.unwrap();
    let store = open(&with_ca).unwrap();
    until("the store to be prepared by TLS", async || store.prepare(&[]).await.is_ok()).await;
    store.ping().await.unwrap();
    for refused in [url(""), url("&tls=true")] {
        assert!(open(&refused).unwrap().ping().await.is_err(), "{refused}");
    }
}

/// A CA and a certificate of a server at 127.0.0.1, made by the `openssl` program.
fn certificates(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let script = r#"set -e; cd "$0"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=Test CA" -keyout ca.key -out ca.crt
        openssl req -newkey rsa:2048 -nodes -subj "/CN=127.0.0.1" -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1' > san
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt
        cat server.crt server.key > server.pem"#;
    let made = std::process::Command::new("sh").args(["-c", script]).arg(folder).output().unwrap();
    if !made.status.success() {
        millstream::testing::skip("MongoDB by TLS", "no openssl to make certificates with");
        return None;
    }
    Some(folder.into())
}

fn options() -> Options {
    Options { timing: short(), ..Options::default() }
}

/// The store of one instance, and an empty batch of it.
async fn one_instance(url: &str) -> (Arc<dyn Store>, Batch) {
    let store = open(url).unwrap();
    until("the store to be prepared", async || store.prepare(&[]).await.is_ok()).await;
    let (instance, now) = (Id::random(Timestamp::system()), Timestamp::system());
    store.insert_instance(instance).await.unwrap();
    let batch = Batch { instance, batch: 1, published_through: 0, docs: vec![], journal: vec![], keys: vec![], now };
    (store, batch)
}

/// Begins a transaction that holds every instance row, and leaves it open.
async fn in_the_way(url: &str) -> ClientSession {
    let client = Client::with_uri_str(url).await.unwrap();
    let rows = client.default_database().unwrap().collection::<Document>("millstream.instances");
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    rows.update_many(doc! {}, doc! { "$set": { "touched": true } }).session(&mut session).await.unwrap();
    session
}

/// A conflict is no outage: whoever meets another transaction is told so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_in_the_way_is_a_conflict_and_not_an_outage() {
    let Some(stores) = TestStore::on_mongo() else { return };
    let url = stores.url("conflicts");
    let (store, batch) = one_instance(&url).await;
    let mut other = in_the_way(&url).await;
    assert_eq!(store.commit(batch.clone()).await, Err(CommitError::Busy));
    store.ping().await.unwrap();
    other.abort_transaction().await.unwrap();
    store.commit(batch).await.unwrap();
}

/// What a killed process leaves open would be in the way for a minute. A user that may only read and write the service's own
/// database can clear it away, and what another service has open is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_abandoned_is_in_nobodys_way_for_long_under_a_user_of_few_rights() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "only for tests").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let options = ["--replSet", "auth", "--auth", "--keyFile", key.to_str().unwrap()];
    let Some(server) = Mongod::start("a MongoDB with users", &options) else { return };
    let member = doc! { "_id": 0, "host": server.address() };
    server.admin(doc! { "replSetInitiate": { "_id": "auth", "members": [member] } }).await.unwrap();
    let root = doc! { "createUser": "root", "pwd": "r@ot", "roles": ["root"] };
    until("the first user to be made", async || server.admin(root.clone()).await.is_ok()).await;
    let root = Client::with_uri_str(format!("mongodb://root:r%40ot@{}/?directConnection=true", server.address()));
    let root = root.await.unwrap();
    let url = |service: &str| format!("mongodb://{service}:s%40f%23e@{}/{service}?replicaSet=auth", server.address());
    for service in ["orders", "payments"] {
        let create = doc! { "createUser": service, "pwd": "s@f#e", "roles": ["readWrite"] };
        root.database(service).run_command(create).await.unwrap();
    }
    let (store, batch) = one_instance(&url("orders")).await;
    let (_, _) = one_instance(&url("payments")).await;
    let mut payments = in_the_way(&format!("{}&appName=orders", url("payments"))).await;
    let mut abandoned = in_the_way(&format!("{}&appName=orders", url("orders"))).await;
    let started = Instant::now();
    until("a commit to get through", async || store.commit(batch.clone()).await.is_ok()).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(abandoned.commit_transaction().await.is_err(), "what was abandoned is aborted");
    payments.commit_transaction().await.unwrap();

    let foreign = open(&url("orders").replace("/orders?", "/payments?authSource=orders&")).unwrap();
    let refused = foreign.prepare(&[]).await.unwrap_err().to_string();
    assert!(refused.contains("not authorized") && !refused.contains("s@f#e"), "{refused}");
}
