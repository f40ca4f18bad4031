//! A mail server for tests: it takes every mail, or does with it what a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// What a mailbox does with a mail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Does {
    Take,
    /// Takes it, and the connection breaks before the answer.
    TakeUnsaid,
    /// Refuses it with this.
    Refuse(&'static str),
}

/// What a mailbox does with the next mails: the first entry of a recipient, the last of which stays.
type Plan = Vec<(&'static str, Does)>;

#[derive(Clone)]
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    greeting: Option<&'static str>,
    login: Option<&'static str>,
    /// Recipients that were named, and mails that were taken with their recipients.
    asked: Vec<String>,
    taken: Vec<(String, String)>,
}

impl MailServer {
    /// A server that does not listen yet, at an address that is kept for it as long as the socket lives.
    pub(crate) fn down(plan: Plan) -> (Self, TcpSocket) {
        let kept = socket(([127, 0, 0, 1], 0).into());
        let state = Arc::new(Mutex::new(State { plan, ..State::default() }));
        (Self { address: kept.local_addr().unwrap(), state }, kept)
    }

    pub(crate) fn start(plan: Plan) -> Self {
        let (server, _kept) = Self::down(plan);
        server.listen();
        server
    }

    /// Greets everybody with this, or again as usual.
    pub(crate) fn greet(&self, greeting: Option<&'static str>) {
        self.state.lock().unwrap().greeting = greeting;
    }

    /// Answers every login with this.
    pub(crate) fn login(&self, answer: &'static str) {
        self.state.lock().unwrap().login = Some(answer);
    }

    pub(crate) fn listen(&self) {
        let listener = socket(self.address).listen(64).unwrap();
        let state = self.state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away in the middle ends its session.
                tokio::spawn(session(stream, state.clone()));
            }
        });
    }

    /// How often a recipient was named.
    pub(crate) fn asked(&self, to: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| *asked == to).count()
    }

    /// The mails that were taken for a recipient.
    pub(crate) fn mails(&self, to: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.taken.iter().filter(|(taken, _)| taken == to).map(|(_, mail)| mail.clone()).collect()
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn session(stream: TcpStream, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let greeting = state.lock().unwrap().greeting.unwrap_or("220 mail");
    write.write_all(format!("{greeting}\r\n").as_bytes()).await?;
    let (mut to, mut does) = (String::new(), Does::Take);
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => "250-mail\r\n250 AUTH PLAIN",
            "AUTH" => state.lock().unwrap().login.unwrap_or("235 welcome"),
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap().to_owned();
                let mut state = state.lock().unwrap();
                state.asked.push(to.clone());
                let planned = |(whom, _): &(&str, Does)| *whom == to;
                does = match state.plan.iter().position(planned) {
                    Some(at) if state.plan.iter().filter(|entry| planned(entry)).count() > 1 => state.plan.remove(at).1,
                    Some(at) => state.plan[at].1,
                    None => Does::Take,
                };
                if let Does::Refuse(answer) = does { answer } else { "250 fine" }
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    mail += &(line + "\n");
                }
                state.lock().unwrap().taken.push((to.clone(), mail));
                if does == Does::TakeUnsaid {
                    return Ok(());
                }
                "250 taken"
            }
            "QUIT" => return write.write_all(b"221 bye\r\n").await,
            _ => "250 fine",
        };
        write.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}
