//! A generator that is kept from its work: paused in pulses, or confined to a core beside a busy loop. Whatever
//! is done to it, it must never be silently wrong.
//!
//! 300 streams of 20 tokens/s. Required of every round: time to first token from actual send within 10 ms of the
//! mock's journal, quantile beside quantile at p50 and p99 and turn by turn at p99, or inconclusive with the
//! generator named as the cause.

mod support;

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capacity_check::metric::Metric;
use capacity_check::result::{Reason, RunResult, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Mock, TOOL, keep, quantile, run_beside, truth};

const MOST_MS: f64 = 10.0;
const FLAGS: [&str; 14] = [
    "--tiers",
    "300",
    "--think",
    "200ms",
    "--turns",
    "1",
    "--ramp",
    "3s",
    "--steady",
    "12s",
    "--steady-max",
    "12s",
    "--budget",
    "ttft.p95=1s",
];

/// What is done to the generator.
#[derive(Clone, Copy)]
enum Harm {
    None,
    /// Stopped for so many milliseconds, once in so many.
    Pulses {
        stopped: u64,
        every: u64,
    },
    /// On one core with so many busy loops.
    Beside {
        loops: usize,
    },
}

fn main() {
    let rounds = [
        Harm::None,
        Harm::Pulses { stopped: 50, every: 10_000 },
        Harm::Pulses { stopped: 50, every: 1_000 },
        Harm::Pulses { stopped: 100, every: 3_000 },
        Harm::Pulses { stopped: 200, every: 1_000 },
        Harm::Pulses { stopped: 500, every: 1_500 },
        Harm::Pulses { stopped: 500, every: 6_000 },
        Harm::Beside { loops: 1 },
        Harm::Beside { loops: 3 },
    ];
    let mut text =
        String::from("300 streams of 20 tokens/s, 60 tokens a reply, mock TTFT uniform 50 to 99 ms, 12 s each.\n\n");
    let _ = writeln!(
        text,
        "| the generator was | p50 error, ms | p99 error, ms | error of a turn, p99, ms | verdict | why | |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|");
    let mut wrong = Vec::new();
    for harm in rounds {
        let (row, held) = round(harm);
        let _ = writeln!(text, "{row} {} |", if held { "held" } else { "**silently wrong**" });
        wrong.extend((!held).then_some(row));
    }
    let _ = writeln!(
        text,
        "\nRequired: within {MOST_MS} ms in all three, or inconclusive with the generator named: {}.",
        if wrong.is_empty() { "held" } else { "not held" }
    );
    keep("starved", &text);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// One run; a row of the table, and whether it was right or said that it could not be.
fn round(harm: Harm) -> (String, bool) {
    let mock = Mock::start_on_first_core(&["--ttft", "uniform 50ms 99ms", "--gap", "50ms", "--tokens", "60"]);
    let target = ["--target", mock.api.as_str(), "--mock-admin", mock.admin.as_str(), "--shards", "1"];
    let flags: Vec<&str> = target.into_iter().chain(FLAGS).collect();
    let result = match harm {
        Harm::None => run_beside(second_core(), &flags, |_| {}),
        Harm::Pulses { stopped, every } => run_beside(second_core(), &flags, |pid| pulse(pid, stopped, every)),
        Harm::Beside { loops } => {
            let _busy: Vec<Busy> = (0..loops).map(|_| Busy::start()).collect();
            run_beside(second_core(), &flags, |_| {})
        }
    };
    judge(harm, &mock, &result)
}

/// The tool on the second core: on the mock's it would delay the mock, whose reading of a request is no part of the
/// generator's error.
fn second_core() -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "1", TOOL]);
    command
}

fn judge(harm: Harm, mock: &Mock, result: &RunResult) -> (String, bool) {
    let tier = &result.tiers[0];
    let mut truth = truth(mock, result, tier);
    let ours = &tier.metrics[&Metric::TtftFromSend];
    let errors = [(0.5, ours.p50_us), (0.99, ours.p99_us)]
        .map(|(share, ours)| (ours as f64 - quantile(&mut truth, share) as f64) / 1e3);
    let named = tier.reasons.iter().any(|reason| {
        matches!(reason, Reason::StartedLate { .. } | Reason::ReadLate { .. } | Reason::GeneratorBusy { .. })
    });
    // Nothing stands between the tool and the mock: what the tool says was added is its own error.
    let of_a_turn = tier.metrics.get(&Metric::TtftOverhead).map_or(f64::INFINITY, |added| added.p99_us as f64 / 1e3);
    let right = errors.iter().all(|error| error.abs() <= MOST_MS) && of_a_turn <= MOST_MS;
    let said = tier.verdict == Verdict::Inconclusive && named;
    let why: Vec<String> = tier.reasons.iter().map(|reason| format!("{reason:?}")).collect();
    let what = match harm {
        Harm::None => "left alone".to_owned(),
        Harm::Pulses { stopped, every } => format!("stopped for {stopped} ms every {:.1} s", every as f64 / 1e3),
        Harm::Beside { loops } => format!("on one core with {loops} busy loop(s)"),
    };
    let row = format!(
        "| {what} | {:+.2} | {:+.2} | {of_a_turn:.2} | {} | {} |",
        errors[0],
        errors[1],
        tier.verdict.name(),
        why.join("; ")
    );
    // Left alone it must be right.
    (row, right || said && !matches!(harm, Harm::None))
}

/// Stops and continues a process until it is gone.
fn pulse(pid: u32, stopped: u64, every: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process number"));
    // Bounded: no round takes a minute.
    for _ in 0..60_000 / every {
        std::thread::sleep(Duration::from_millis(every - stopped));
        if kill(pid, Signal::SIGSTOP).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(stopped));
        if kill(pid, Signal::SIGCONT).is_err() {
            return;
        }
        // A process that has ended and was not waited for can still be signalled.
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if status.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z')) {
            return;
        }
    }
}

/// A loop that does nothing, on the second core.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let child = Command::new("taskset")
            .args(["-c", "1", "sh", "-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn()
            .expect("a busy loop");
        Self(child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
