//! A reference deployment before a mock, the librechat driver, and a proxy that harms streams.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use capacity_check::account::Credentials;
use capacity_check::clock;
use capacity_check::driver::librechat::{LibreChat, Offer};
use capacity_check::driver::{Driver, Limits, Live, Prompt, Session};
use capacity_check::net::{Endpoint, TlsSettings, client_config};
use capacity_check::record::Turn;
use capacity_check::secret::Secret;
use reference_chat::{Costs, Settings};
use tokio::sync::oneshot;

use super::{Mock, Ran, limits, listen, run_with, tool};

/// Signs the tokens of every reference deployment of the tests.
pub(crate) const SECRET: &str = "a secret of the tests";

/// A reference deployment, in a thread of its own.
pub(crate) struct Reference {
    pub(crate) base: String,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reference {
    /// Starts one before a mock, without costs and with no patience for a failing model; `change`
    /// makes it another.
    pub(crate) fn start(mock: &Mock, change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(listen(), mock, change)
    }

    /// The same on a listener.
    pub(crate) fn on(listener: TcpListener, mock: &Mock, change: impl FnOnce(&mut Settings)) -> Self {
        let upstream = format!("{}/v1", mock.api).parse().expect("a URL");
        let mut settings = Settings::new(upstream, SECRET);
        settings.costs = Costs::FREE;
        settings.upstream_patience = Duration::ZERO;
        change(&mut settings);
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.block_on(reference_chat::serve(listener, settings, shutdown)).expect("the deployment serves");
        });
        Self { base: format!("http://{address}"), address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A list of accounts whose tokens are minted.
pub(crate) fn list(count: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let lines: String = (0..count).map(|number| format!("{number:024x},u{number}@x.test,u{number}\n")).collect();
    std::fs::write(file.path(), format!("id,email,username\n{lines}")).expect("the list is written");
    file
}

/// Runs the tool with the deployments' secret in its environment.
pub(crate) fn run_signed(flags: &[&str]) -> Ran {
    run_with(tool().env("JWT_SECRET", SECRET), flags)
}

/// An account whose token is minted.
pub(crate) fn minted(number: u32) -> Credentials {
    Credentials::Minted {
        id: format!("{number:024x}"),
        email: format!("user{number}@x.test"),
        username: format!("user{number}"),
    }
}

/// The librechat driver for these accounts; further headers replace its own.
pub(crate) fn librechat(base: &str, accounts: Vec<Credentials>, extra: &[(&str, &str)], limits: Limits) -> LibreChat {
    let base: url::Url = base.parse().expect("a URL");
    let config = client_config(&TlsSettings::default()).expect("TLS settings");
    let endpoint = Endpoint::new(&base, &config, limits.connect).expect("an endpoint");
    let extra: Vec<(String, Secret)> =
        extra.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
    let secret = Some(Secret::new(SECRET));
    let mut chat = LibreChat::new(endpoint, &base, accounts, secret, &extra, limits).expect("headers");
    chat.choose(Offer { endpoint: "Mock".to_owned(), model: "m".to_owned() });
    chat
}

/// The driver with one minted user.
pub(crate) fn chat(base: &str) -> Driver {
    Driver::LibreChat(librechat(base, vec![minted(1)], &[], limits()))
}

/// A turn that says something.
pub(crate) async fn say(driver: &Driver, session: &mut Session, prompt: Prompt) -> Turn {
    let now = clock::monotonic();
    let mut turn = Turn::new(now, now);
    driver.turn(session, &prompt, &mut turn, Live::nobody()).await;
    turn
}

/// What opens a conversation of one turn.
pub(crate) fn hello() -> Prompt {
    Prompt { text: "hello".to_owned(), opens: true, continues: false, disturb: None, trace: None }
}

/// A proxy that cuts streams, or holds their requests back.
pub(crate) struct Proxy {
    pub(crate) base: String,
    connections: Arc<AtomicUsize>,
}

/// What a proxy does.
#[derive(Clone, Copy, Default)]
pub(crate) struct Harm {
    /// Cut the connection after so many deltas, this often in all.
    pub(crate) cut: Option<(usize, usize)>,
    /// Hold a request for a stream back so long.
    pub(crate) hold: Duration,
}

impl Proxy {
    /// Starts one before an address. It ends with the test's process.
    pub(crate) fn start(target: SocketAddr, harm: Harm) -> Self {
        let listener = listen();
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let cuts = Arc::new(AtomicUsize::new(harm.cut.map_or(0, |(_, often)| often)));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (from_client, to_client) = (client.try_clone().expect("a clone"), client);
                let (from_server, to_server) = (server.try_clone().expect("a clone"), server);
                std::thread::spawn(move || ask(from_client, to_server, harm.hold));
                let cuts = Arc::clone(&cuts);
                std::thread::spawn(move || answer(from_server, to_client, harm.cut.map(|(after, _)| after), &cuts));
            }
        });
        Self { base, connections }
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn ask(mut from: TcpStream, mut to: TcpStream, hold: Duration) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if bytes[..count].starts_with(b"GET /api/agents/chat/stream/") {
            std::thread::sleep(hold);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn answer(mut from: TcpStream, mut to: TcpStream, after: Option<usize>, cuts: &AtomicUsize) {
    let (mut bytes, mut deltas) = ([0; 65_536], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..count]);
        deltas += text.matches("on_message_delta").count();
        let _ = to.write_all(&bytes[..count]);
        let enough = after.is_some_and(|after| deltas >= after);
        if enough && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
