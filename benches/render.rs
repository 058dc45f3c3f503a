//! What rendering costs: a result of 500 users over 30 minutes, all forms, in a process of its own.
//! Required: under 2 s and 200 MiB. Beside it, reading the same file alone.

mod support;

#[path = "../tests/it/support/results.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod results;

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use capacity_check::result::read;
use nix::sys::resource::{UsageWho, getrusage};
use support::{TOOL, keep};

const ROUNDS: usize = 7;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("result.json");
    let text = serde_json::to_string_pretty(&results::half_an_hour()).expect("a result is plain data") + "\n";
    std::fs::write(&path, &text).expect("the result is written");
    let mut rendering: Vec<Duration> = (0..ROUNDS).map(|_| render(&path)).collect();
    rendering.sort();
    // Of all children that were waited for, the largest; there are no others.
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the usage of children").max_rss();
    let mut reading: Vec<Duration> = (0..ROUNDS).map(|_| timed(|| drop(read(&text).expect("a result")))).collect();
    reading.sort();
    let (median, worst, alone) = (rendering[ROUNDS / 2], rendering[ROUNDS - 1], reading[ROUNDS / 2]);
    let mut out =
        String::from("`capacity-check report` of 500 users over 30 minutes (45,000 turns): md, html, json, junit.\n\n");
    let _ = writeln!(out, "| | measured | required |\n|---|---|---|");
    let _ = writeln!(out, "| size of the result | {:.0} KiB | |", text.len() as f64 / 1024.0);
    let _ = writeln!(out, "| rendering, median of {ROUNDS} | {:.0} ms | 2000 ms |", ms(median));
    let _ = writeln!(out, "| rendering, worst | {:.0} ms | 2000 ms |", ms(worst));
    let _ = writeln!(out, "| reading the file alone, in this process | {:.1} ms | |", ms(alone));
    let _ = writeln!(out, "| rendering over reading | {:.1} | |", ms(median) / ms(alone));
    let _ = writeln!(out, "| peak memory of the process | {:.1} MiB | 200 MiB |", peak as f64 / 1024.0);
    keep("render", &out);
    assert!(worst < Duration::from_secs(2) && peak < 200 * 1024, "{worst:?}, {peak} KiB");
}

fn render(path: &std::path::Path) -> Duration {
    let out = tempfile::tempdir().expect("a folder");
    timed(|| {
        let status = Command::new(TOOL)
            .arg("report")
            .arg(path)
            .args(["--format", "md,html,json,junit", "--lang", "en", "--out"])
            .arg(out.path())
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("the tool runs").success());
    })
}

fn timed(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
