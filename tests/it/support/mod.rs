//! What the tests share: a mock LLM, runs of the tool, small servers that misbehave.

pub(crate) mod chat;
pub(crate) mod described;
pub(crate) mod golden;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod results;
pub(crate) mod stores;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use capacity_check::clock;
use capacity_check::driver::openai::OpenAi;
use capacity_check::driver::{Driver, Limits, Live, Prompt, Session};
use capacity_check::net::{self, Endpoint, TlsSettings, client_config};
use capacity_check::record::Turn;
use capacity_check::result::RunResult;
use mock_llm::behaviour::Behaviour;
use mock_llm::journal;
use serde_json::Value;
use tokio::sync::oneshot;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A mock LLM on free ports, in a thread of its own.
pub(crate) struct Mock {
    pub(crate) api: String,
    pub(crate) admin: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    /// Starts a mock with this behaviour, as TOML.
    pub(crate) fn start(toml: &str) -> Self {
        Self::with_options(toml, mock_llm::Options::default())
    }

    /// The same, told more.
    pub(crate) fn with_options(toml: &str, options: mock_llm::Options) -> Self {
        let behaviour = Behaviour::from_toml(toml).expect("the behaviour of a test is right");
        let (api, admin) = (listen(), listen());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
        let (api_url, admin_url) = (address(&api), address(&admin));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let shutdown = async {
                let _ = stopped.await;
            };
            let served = mock_llm::serve(api, admin, behaviour, options, shutdown);
            runtime().block_on(served).expect("the mock serves");
        });
        Self { api: api_url, admin: admin_url, stop: Some(stop), thread: Some(thread) }
    }

    /// The journal, without the preflight's turn.
    pub(crate) fn turns(&self) -> Vec<journal::Turn> {
        let (mut turns, mut after) = (Vec::new(), 0);
        loop {
            let page: journal::Page =
                serde_json::from_str(&get(&self.admin, &format!("/admin/turns?after={after}"))).expect("a page");
            assert_eq!(page.lost, 0);
            turns.extend(page.turns);
            after = page.next;
            if !page.more {
                turns.retain(|turn| turn.marker.as_ref().is_none_or(|marker| !marker.contains(":preflight:")));
                return turns;
            }
        }
    }

    /// Replaces the behaviour.
    pub(crate) fn behave(&self, toml: &str) {
        let (status, body) = exchange(&self.admin, "PUT", "/admin/behaviour", "application/toml", toml);
        assert_eq!(status, 200, "{body}");
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tests that load this machine share it.
static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that loads this machine.
pub(crate) fn load() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test whose verdict an overloaded generator would make inconclusive: it has the
/// machine for itself.
pub(crate) fn quiet() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// A runtime like a shard's.
pub(crate) fn runtime() -> tokio::runtime::LocalRuntime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(net::loop_turned)
        .build_local(Default::default())
        .expect("a runtime")
}

/// The body of a GET.
pub(crate) fn get(base: &str, path: &str) -> String {
    let (status, body) = exchange(base, "GET", path, "text/plain", "");
    assert_eq!(status, 200, "{body}");
    body
}

/// One exchange over HTTP/1.1, with the bytes as they are: chunks of a chunked body are joined.
pub(crate) fn exchange(base: &str, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
    let (head, body) = raw_exchange(base, method, path, kind, body);
    let status = head.split_whitespace().nth(1).expect("a status").parse().expect("a number");
    (status, body)
}

/// The same with the whole head.
pub(crate) fn raw_exchange(base: &str, method: &str, path: &str, kind: &str, body: &str) -> (String, String) {
    let address = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer is read");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// The tool, with its environment cleaned of what it reads.
pub(crate) fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capacity-check"));
    command
        .env_remove("CAPACITY_CHECK_API_KEY")
        .env_remove("MOCK_LLM_ADMIN_TOKEN")
        .env_remove("JWT_SECRET")
        .env_remove("MONGO_URI")
        .env_remove("REDIS_URI")
        .env_remove("METRICS_SECRET")
        .env_remove("CAPACITY_CHECK_PROXY_AUTH")
        .env("LC_ALL", "C.UTF-8")
        // Nobody's calibration but that of a test.
        .env("XDG_STATE_HOME", "/nonexistent")
        .stdin(Stdio::null());
    command
}

/// A finished run of the tool.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) out: tempfile::TempDir,
}

impl Ran {
    pub(crate) fn of(output: Output, out: tempfile::TempDir) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
            out,
        }
    }

    /// The folder of the run.
    pub(crate) fn folder(&self) -> PathBuf {
        self.out.path().join("latest")
    }

    /// The result as a tree, from the file.
    pub(crate) fn value(&self) -> Value {
        let path = self.folder().join("result.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {self}"));
        serde_json::from_str(&text).expect("JSON")
    }

    /// The result.
    pub(crate) fn result(&self) -> RunResult {
        serde_json::from_value(self.value()).expect("a result")
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs the tool with these flags and a fresh folder.
pub(crate) fn run(flags: &[&str]) -> Ran {
    run_with(&mut tool(), flags)
}

/// The same with an environment of one's own.
pub(crate) fn run_with(command: &mut Command, flags: &[&str]) -> Ran {
    let out = tempfile::tempdir().expect("a folder");
    let output = command.args(flags).arg("--out").arg(out.path()).output().expect("the tool runs");
    Ran::of(output, out)
}

/// Runs the tool against a mock.
pub(crate) fn run_against(mock: &Mock, flags: &[&str]) -> Ran {
    run(&[&["--target", &mock.api, "--mock-admin", &mock.admin, "--no-progress"], flags].concat())
}

/// Starts the tool and gives it back while it runs.
pub(crate) fn start(flags: &[&str], out: &Path) -> Child {
    start_with(&mut tool(), flags, out)
}

/// The same with an environment of one's own.
pub(crate) fn start_with(command: &mut Command, flags: &[&str], out: &Path) -> Child {
    command
        .args(flags)
        .arg("--out")
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts")
}

/// Waits until something holds, at most a minute.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One turn by the openai driver against a base URL.
pub(crate) async fn one_turn(base: &str, model: &str, limits: Limits, tls: &TlsSettings) -> Turn {
    let driver = driver(base, model, limits, tls);
    let mut session = driver.session(0);
    turn_in(&driver, &mut session).await
}

/// The openai driver for a base URL.
pub(crate) fn driver(base: &str, model: &str, limits: Limits, tls: &TlsSettings) -> Driver {
    let base: url::Url = format!("{base}/v1").parse().expect("a URL");
    let config = client_config(tls).expect("TLS settings");
    let endpoint = Endpoint::new(&base, &Arc::clone(&config), limits.connect).expect("an endpoint");
    Driver::OpenAi(OpenAi::new(endpoint, &base, model, None, &[], limits).expect("headers"))
}

/// One turn in a session.
pub(crate) async fn turn_in(driver: &Driver, session: &mut Session) -> Turn {
    let prompt = Prompt { text: "hello".to_owned(), opens: true, continues: false, disturb: None, trace: None };
    let now = clock::monotonic();
    let mut turn = Turn::new(now, now);
    driver.turn(session, &prompt, &mut turn, Live::nobody()).await;
    turn
}

/// Short limits for tests.
pub(crate) fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        stall: Duration::from_secs(2),
        turn: Duration::from_secs(4),
        ..Limits::default()
    }
}

/// A server that answers each connection by a script, in a thread of its own, until dropped.
pub(crate) struct Server {
    pub(crate) base: String,
    address: SocketAddr,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` is called with each connection, and its number.
    pub(crate) fn start(answer: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = listen();
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let answer = Arc::new(answer);
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let answer = Arc::clone(&answer);
                if let Ok(stream) = stream {
                    std::thread::spawn(move || answer(stream, number));
                }
            }
        });
        Self { base: format!("http://{address}"), address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // One more connection, so that the accept returns.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads one request, head and body; false at the end of the connection.
pub(crate) fn read_request(stream: &TcpStream) -> bool {
    request(stream).is_some()
}

/// The same, with the request's first line.
pub(crate) fn request(stream: &TcpStream) -> Option<String> {
    whole_request(stream).map(|(first, _)| first)
}

/// The same, with the request's first line and its body.
pub(crate) fn whole_request(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        first.get_or_insert_with(|| line.clone());
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first?, String::from_utf8(body).ok()?))
}

/// The head of a streamed answer without chunking: the body ends with the connection.
pub(crate) const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// One token as an event.
pub(crate) fn token(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}
