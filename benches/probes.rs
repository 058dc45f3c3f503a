//! What watching costs: CPU of the tool, and operations on each store, with everything watched at 1 Hz.
//!
//! Required: under 1 % of a core, and under 20 operations a second on each store. The stores are real (a mongod and a
//! redis-server as `tests/run.sh` names them); nothing but the probes speaks to them. All probes run on one thread of the
//! tool, whose CPU time the kernel tells to the nanosecond.

mod support;

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::doc;
use support::{Mock, TOOL, keep};

/// How long each round watches.
const SECONDS: u64 = 30;
const ROUNDS: usize = 3;
const MOST_CPU: f64 = 0.01;
const MOST_OPERATIONS: f64 = 20.0;

/// A server that ends with the bench.
struct Server {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn named(variable: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(otherwise), PathBuf::from)
}

fn start(program: PathBuf, flags: impl Fn(u16, &str) -> Vec<String>) -> (Server, u16) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let folder = tempfile::tempdir().expect("a folder");
    let flags = flags(port, folder.path().to_str().expect("UTF-8"));
    let child = Command::new(program).args(flags).stdout(Stdio::null()).spawn().expect("the server starts");
    let server = Server { child, _folder: folder };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the server does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    (server, port)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Operations so far: those that carry data and commands.
fn mongo_operations(uri: &str) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = mongodb::Client::with_uri_str(uri).await.expect("a client");
        let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("an answer");
        let counters = status.get_document("opcounters").expect("counters");
        let number =
            |value: &mongodb::bson::Bson| value.as_i64().or_else(|| value.as_i32().map(i64::from)).unwrap_or(0);
        counters.values().map(number).sum::<i64>() as f64
    })
}

fn redis_operations(url: &str) -> f64 {
    let mut connection = redis::Client::open(url).and_then(|client| client.get_connection()).expect("a connection");
    let info: String = redis::cmd("INFO").arg("stats").query(&mut connection).expect("an answer");
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).expect("a counter");
    line.trim().parse().expect("a number")
}

/// CPU time of the thread that watches, in seconds.
fn cpu(tool: &Child) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", tool.id())).expect("the tool runs");
    let named = |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "probes");
    let thread = threads.map(|entry| entry.expect("a thread").path()).find(named).expect("a thread that watches");
    let times = std::fs::read_to_string(thread.join("schedstat")).expect("its times");
    times.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("a number") / 1e9
}

/// Starts a run of one user who thinks for ever.
fn start_tool(mock: &Mock, watch: &[&str], out: &tempfile::TempDir) -> Child {
    let steady = format!("{}s", SECONDS + 20);
    Command::new(TOOL)
        .args(["--target", &mock.api, "--mock-admin", &mock.admin, "--tiers", "1", "--think", "1h", "--ramp", "1s"])
        .args(["--steady", &steady, "--steady-max", &steady, "--no-progress", "--format", "md", "--out"])
        .arg(out.path())
        .args(watch)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tool runs")
}

fn main() {
    let (_mongod, mongo_port) = start(named("CAPACITY_CHECK_MONGOD", "target/tools/mongod"), |port, folder| {
        words(&format!("--bind_ip 127.0.0.1 --nounixsocket --quiet --port {port} --dbpath {folder}"))
    });
    let (_redis, redis_port) = start(named("CAPACITY_CHECK_REDIS", "redis-server"), |port, folder| {
        let mut flags = words(&format!("--port {port} --bind 127.0.0.1 --appendonly no --dir {folder} --save"));
        flags.push(String::new());
        flags
    });
    let (uri, url) = (format!("mongodb://127.0.0.1:{mongo_port}"), format!("redis://127.0.0.1:{redis_port}"));
    let mock = Mock::start(&["--ttft", "1ms", "--gap", "1ms", "--tokens", "2"]);
    let health = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    std::fs::write(health.path(), "[[probe.health]]\npath = \"/health\"\n").expect("it is written");
    let (scenario, pid) = (health.path().to_str().expect("UTF-8"), std::process::id().to_string());
    let metrics = format!("{}/metrics", mock.admin);
    let everything =
        ["--mongo-uri", &uri, "--redis-url", &url, "--watch-pid", &pid, "--scrape", &metrics, "--scenario", scenario];
    let mut text = format!(
        "One user who thinks for ever, {SECONDS} s of it: a mongod, a Redis (PING ten times a second), a process with its \
         five descendants, a health path (ten times a second), a metrics endpoint.\n\n| round | CPU, s | share of a core \
         | MongoDB operations/s | Redis commands/s |\n|---|---|---|---|---|\n"
    );
    let mut shares = Vec::new();
    let mut most = 0.0_f64;
    for round in 1..=ROUNDS {
        let out = tempfile::tempdir().expect("a folder");
        let mut tool = start_tool(&mock, &everything, &out);
        // Not the beginning: connecting is not watching.
        std::thread::sleep(Duration::from_secs(8));
        let before = (Instant::now(), mongo_operations(&uri), redis_operations(&url), cpu(&tool));
        std::thread::sleep(Duration::from_secs(SECONDS));
        let used = cpu(&tool) - before.3;
        // Our own reading of the counters is two commands or so of some hundred.
        let (mongo, redis) = (mongo_operations(&uri) - before.1, redis_operations(&url) - before.2);
        let took = before.0.elapsed().as_secs_f64();
        tool.kill().and_then(|()| tool.wait()).expect("the tool ends");
        let share = used / took;
        let _ = writeln!(
            text,
            "| {round} | {used:.3} | {:.2} % | {:.1} | {:.1} |",
            share * 100.0,
            mongo / took,
            redis / took
        );
        shares.push(share);
        most = most.max(mongo / took).max(redis / took);
    }
    shares.sort_by(f64::total_cmp);
    let median = shares[shares.len() / 2];
    let held = |held: bool| if held { "held" } else { "**not held**" };
    let _ = writeln!(
        text,
        "\nRequired: under {:.0} % of a core (median {:.2} %): {}; under {MOST_OPERATIONS} operations a second on each \
         store (most {most:.1}): {}.",
        MOST_CPU * 100.0,
        median * 100.0,
        held(median < MOST_CPU),
        held(most < MOST_OPERATIONS)
    );
    keep("probes", &text);
}
