//! What the benches share: a mock LLM of their own, runs of the tool, and dated results.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use capacity_check::result::{RunResult, TierResult};
use mock_llm::cli::Listening;
use mock_llm::journal::{Page, Turn};

/// The tool, as built beside this bench.
pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_capacity-check");

/// A mock LLM as a process of its own, which ends with this one.
pub(crate) struct Mock {
    child: Child,
    pub(crate) api: String,
    pub(crate) admin: String,
}

impl Mock {
    /// Starts a mock with these flags on free ports.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::spawn(Command::new(TOOL), flags)
    }

    /// Starts a mock that has the first core alone, with `taskset`.
    pub(crate) fn start_on_first_core(flags: &[&str]) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", TOOL]);
        Self::spawn(command, flags)
    }

    fn spawn(mut command: Command, flags: &[&str]) -> Self {
        let mut child = command
            .args(["mock-llm", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--exit-with-stdin"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the mock starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the mock speaks");
        let Listening { api, admin } = serde_json::from_str(&line).expect("the mock says where it listens");
        Self { child, api, admin }
    }

    /// The journal after turn number `after`.
    pub(crate) fn turns(&self, mut after: u64) -> Vec<Turn> {
        let mut turns = Vec::new();
        loop {
            let page: Page =
                serde_json::from_str(&get(&self.admin, &format!("/admin/turns?after={after}"))).expect("a page");
            assert_eq!(page.lost, 0, "the journal was too small");
            turns.extend(page.turns);
            after = page.next;
            if !page.more {
                return turns;
            }
        }
    }

    /// CPU time of the mock's process so far, from `/proc/PID/stat` (100 ticks a second).
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the mock runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / 100.0
    }

    /// The lateness of tokens so far: counts by upper bound in seconds, cumulated.
    pub(crate) fn lateness(&self) -> Vec<(f64, u64)> {
        let text = get(&self.admin, "/metrics");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix("mock_llm_lateness_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.trim().parse().ok()?))
        };
        text.lines().filter_map(bucket).collect()
    }
}

/// The least bound, in milliseconds, under which 99 % of the tokens between two readings lie.
pub(crate) fn late_p99_ms(before: &[(f64, u64)], after: &[(f64, u64)]) -> f64 {
    let grown: Vec<(f64, u64)> =
        before.iter().zip(after).map(|((bound, before), (_, after))| (*bound, after - before)).collect();
    let all = grown.last().expect("the last bucket has all").1;
    let found = grown.iter().find(|(_, count)| *count as f64 >= 0.99 * all as f64);
    found.expect("the last bucket has all").0 * 1e3
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A GET with the system's own means: HTTP/1.0, so that the body ends with the connection.
pub(crate) fn get(base: &str, path: &str) -> String {
    use std::io::Read;
    let address = base.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("the admin listener is there");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer is read");
    text.split_once("\r\n\r\n").expect("the answer has a head").1.to_owned()
}

/// Runs the tool against a mock and gives its result.
pub(crate) fn run(mock: &Mock, flags: &[&str]) -> RunResult {
    run_tool(&[&["--target", &mock.api, "--mock-admin", &mock.admin], flags].concat())
}

/// Runs the tool and gives its result.
pub(crate) fn run_tool(flags: &[&str]) -> RunResult {
    run_beside(Command::new(TOOL), flags, |_| {})
}

/// Runs the tool as `command` starts it, does something meanwhile to the process of this number, and gives the
/// result. What is done must end when the process does.
pub(crate) fn run_beside(mut command: Command, flags: &[&str], meanwhile: impl FnOnce(u32) + Send) -> RunResult {
    let out = tempfile::tempdir().expect("a folder");
    let child = command
        .args(["--no-progress", "--json", "--out"])
        .arg(out.path())
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let pid = child.id();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || meanwhile(pid));
        child.wait_with_output().expect("the tool ends")
    });
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Of each turn that the mock received in a tier's steady phase, its own time to first token, in microseconds.
pub(crate) fn truth(mock: &Mock, result: &RunResult, tier: &TierResult) -> Vec<u64> {
    let started = humantime::parse_rfc3339(&result.started_at).expect("a time");
    let window = tier.steady_window(started);
    let turns = mock.turns(0);
    let within = turns.iter().filter(|turn| window.contains(&turn.received_us));
    within.filter_map(|turn| Some(turn.first_token_us? - turn.received_us)).collect()
}

/// A quantile of values in any order.
pub(crate) fn quantile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
    values[rank - 1]
}

/// Prints a report and keeps it, dated, in `benches/results/`.
pub(crate) fn keep(name: &str, text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes());
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    let path = folder.join(format!("{}-{name}.md", &date[..10]));
    let text = format!("# {name}, {date}\n\n{cores} shared cores, everything on this machine.\n\n{text}");
    std::fs::write(&path, text).expect("the results can be written");
    let _ = writeln!(out, "kept in {}", path.display());
}
