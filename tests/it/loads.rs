//! How load arrives: open and closed, in steps and in other shapes, told to wait or not.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use capacity_check::grade::Role;
use capacity_check::metric::Metric;
use capacity_check::result::{End, Reason, RunResult, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Mock, Ran, load, root, run, run_against, start, tool, until};

/// A mock LLM in a process of its own, which can be stopped and let go on.
struct Freezing {
    child: Child,
    api: String,
    admin: String,
}

impl Freezing {
    fn start(flags: &[&str]) -> Self {
        let mut command = tool();
        command.args(["mock-llm", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the mock starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("its addresses");
        let told: Value = serde_json::from_str(&line).expect("JSON");
        let address = |name: &str| told[name].as_str().expect("an address").to_owned();
        Self { api: address("api"), admin: address("admin"), child }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the mock is there");
    }
}

impl Drop for Freezing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the run's journal has a stage.
fn stage(out: &std::path::Path, name: &str) {
    let wanted = format!("\"{name}\"");
    until(name, || {
        let folder = std::fs::read_dir(out).ok().and_then(|mut all| all.next()).and_then(Result::ok);
        let journal = folder.map(|folder| folder.path().join("journal.ndjson"));
        journal.and_then(|path| std::fs::read_to_string(path).ok()).is_some_and(|text| text.contains(&wanted))
    });
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// 50 turns a second for 20 s, and a target that stands still for 5 s in the middle: whoever counts only from the actual
/// send, or sends nothing while nobody answers, does not see it.
#[test]
fn an_open_load_shows_a_stall() {
    let _machine = load();
    let mock = Freezing::start(&["--ttft", "20ms", "--gap", "2ms", "--tokens", "5"]);
    let out = tempfile::tempdir().unwrap();
    let way = ["--target", &mock.api, "--mock-admin", &mock.admin, "--no-progress"];
    let open = ["--rate", "50", "--arrivals", "constant", "--max-users", "400", "--ramp", "1s", "--steady", "20s"];
    let flags = [&way[..], &open, &["--steady-max", "20s", "--budget", "ttft.p95=1s,3s", "--shards", "2"]].concat();
    let child = start(&flags, out.path());
    stage(out.path(), "steady");
    std::thread::sleep(Duration::from_secs(7));
    mock.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    mock.signal(Signal::SIGCONT);
    let ran = Ran::of(child.wait_with_output().unwrap(), out);
    let result = ran.result();
    let tier = &result.tiers[0];
    let ttft = &tier.metrics[&Metric::Ttft];
    // A quarter of all turns was meant to start while nothing moved, evenly: of the p95 four seconds are left to wait.
    assert!((3.0..5.5).contains(&seconds(ttft.p95_us)), "{ran}");
    assert!((4.4..5.5).contains(&seconds(ttft.p99_us)), "{ran}");
    assert!(seconds(ttft.p50_us) < 0.5, "{ran}");
    let counts = &tier.counts;
    assert_eq!((counts.intended, counts.dropped), (1_000, 0), "{ran}");
    assert_eq!(counts.started + counts.dropped, counts.intended);
    assert_eq!(tier.rate, Some(50.0));
    assert!((tier.turns_per_s - 50.0).abs() < 0.1 && result.totals.errors == 0, "{ran}");
}

#[test]
fn a_turn_that_nobody_is_free_for_is_dropped_and_proves_nothing() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"400ms\"\ngap = \"10ms\"\ntokens = 10");
    let open = ["--rate", "20", "--max-users", "3", "--ramp", "0s", "--steady", "4s", "--steady-max", "4s"];
    let budgets = ["--budget", "ttft.p50=5s", "--budget", "error_rate=20%", "--shards", "2"];
    let ran = run_against(&mock, &[&open[..], &budgets].concat());
    assert_eq!(ran.code, 3, "{ran}");
    let result = ran.result();
    let tier = &result.tiers[0];
    // Three users speak two turns a second each.
    assert!((12..=28).contains(&tier.counts.started), "{ran}");
    assert!(tier.counts.dropped > 30 && tier.counts.started + tier.counts.dropped == tier.counts.intended, "{ran}");
    assert_eq!(result.totals.started, mock.turns().len() as u64);
    let verdict = |name: &str| {
        let budget = tier.budgets.iter().find(|budget| budget.metric == name).unwrap();
        (budget.verdict, matches!(budget.reason, Reason::Dropped { .. }))
    };
    assert_eq!(verdict("ttft.p50"), (Verdict::Inconclusive, true), "{ran}");
    assert_eq!(verdict("error_rate"), (Verdict::Pass, false), "{ran}");
    assert!(ran.stdout.contains("max_users"), "{ran}");
    // Nobody starts a turn before its time, and each user has a marker of its own for each turn.
    let markers: std::collections::BTreeSet<_> = mock.turns().into_iter().map(|turn| turn.marker).collect();
    assert_eq!(markers.len(), mock.turns().len());
}

#[test]
fn moments_come_from_a_file() {
    let _machine = load();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trace.txt"), "# three at once, then one\n0.5\n0.5\n0.5\n2.25\n").unwrap();
    let path = folder.path().join("replay.toml");
    std::fs::write(&path, "[load.open]\narrivals = \"trace.txt\"\nmax_users = 5\n[budgets]\n").unwrap();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let ran = run_against(&mock, &["--scenario", path.to_str().unwrap()]);
    let result = ran.result();
    assert_eq!((result.tiers[0].counts.intended, result.tiers[0].counts.started), (4, 4), "{ran}");
    assert!((result.tiers[0].steady_s - 2.25).abs() < 0.01, "{ran}");
    let mut received: Vec<_> = mock.turns().iter().map(|turn| turn.received_us).collect();
    received.sort_unstable();
    let apart = (received[3] - received[0]) as f64 / 1e6;
    assert!((1.7..1.9).contains(&apart) && received[2] - received[0] < 100_000, "{received:?}");
}

/// A scenario of the repository with other numbers, so that it takes seconds.
fn short(name: &str, changes: &[(&str, &str)], flags: &[&str]) -> Ran {
    let mut text = std::fs::read_to_string(root().join(format!("scenarios/{name}.toml"))).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    run(&[&["--scenario", path.to_str().unwrap(), "--no-progress"], flags].concat())
}

/// The users of the seconds in a part of a run.
fn users(result: &RunResult, from: f64, to: f64) -> Vec<u64> {
    let within = |t_s: u64| t_s as f64 > from && t_s as f64 <= to;
    result.timeline.iter().filter(|point| within(point.t_s)).map(|point| point.users).collect()
}

#[test]
fn a_crowd_comes_and_goes() {
    let _machine = load();
    let quick = [
        ("users = 400", "users = 30"),
        ("from = 40 ", "from = 6 "),
        ("ramp = \"20s\"", "ramp = \"2s\""),
        ("hold = \"30s\"", "hold = \"3s\""),
        ("recover_within = \"30s\"", "recover_within = \"2s\""),
        ("steady = \"60s\"", "steady = \"6s\""),
        ("steady_max = \"180s\"", "steady_max = \"6s\""),
        ("lognormal 15s 45s", "200ms"),
    ];
    let ran = short("spike-recovery", &quick, &[]);
    let result = ran.result();
    assert_eq!(result.end, End::Finished, "{ran}");
    let tiers: Vec<_> = result.tiers.iter().map(|tier| (tier.users, tier.role)).collect();
    assert_eq!(tiers, [(6, Role::Usual), (30, Role::Spike), (6, Role::Recovery)]);
    let [usual, spike, after] = &result.tiers[..] else { unreachable!("there are three") };
    let at = |tier: &capacity_check::result::TierResult| {
        users(&result, tier.steady_from_s + 1.0, tier.steady_from_s + tier.steady_s)
    };
    assert!(at(usual).iter().all(|users| *users == 6) && at(spike).contains(&30), "{ran}");
    // Who leaves ends its turn first; long before the recovery is over everybody has gone.
    assert!(at(after).iter().all(|users| *users == 6), "{:?}", at(after));
    let recovery = result.recovery.expect("it is told");
    assert_eq!(recovery.within_s, 2.0);
    assert!(recovery.usual_us > 0.0 && recovery.recovered_s.is_none_or(|took| took < 20.0), "{recovery:?}");
    // The run is about the time after the crowd, and the one before it.
    let expected = usual.verdict.worse(after.verdict);
    assert_eq!(result.verdict, expected, "{ran}");
    assert_eq!(result.totals.outcomes.values().sum::<u64>(), result.totals.started);
}

#[test]
fn a_soak_and_an_open_load_of_the_repository_run() {
    let _machine = load();
    let quick = [("hold = \"8h\"", "hold = \"4s\""), ("users = 100", "users = 6"), ("ramp = \"60s\"", "ramp = \"1s\"")];
    let began = Instant::now();
    let ran = short("soak-8h", &quick, &["--think", "300ms"]);
    assert!(began.elapsed() < Duration::from_secs(40));
    let result = ran.result();
    assert_eq!((result.tiers.len(), result.tiers[0].role, result.end), (1, Role::Soak, End::Finished), "{ran}");
    assert!((result.tiers[0].steady_s - 4.0).abs() < 0.1);
    // What creeps is told from blocks, which are kept though no budget wants them.
    assert!(result.tiers[0].metrics[&Metric::Ttft].block_s.is_some(), "{ran}");

    let quick = [
        ("rates = [5.0, 15.0, 25.0]", "rates = [5.0, 10.0]"),
        ("ramp = \"10s\"", "ramp = \"1s\""),
        ("steady = \"60s\"", "steady = \"4s\"\nsteady_max = \"4s\""),
        ("max_users = 300", "max_users = 60"),
    ];
    let ran = short("arrivals-poisson", &quick, &[]);
    let result = ran.result();
    let rates: Vec<_> = result.tiers.iter().map(|tier| tier.rate).collect();
    assert_eq!(rates, [Some(5.0), Some(10.0)], "{ran}");
    assert_eq!((result.asked_rate, result.totals.dropped), (Some(10.0), 0), "{ran}");
    let intended = result.tiers[1].counts.intended;
    // Five standard deviations of forty turns that come at random.
    assert!((9..=72).contains(&intended), "{ran}");
}

#[test]
fn a_straight_rise_is_measured_all_along() {
    let _machine = load();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rise.toml");
    let text = "[load]\nusers = 20\n[load.linear]\nover = \"5s\"\n[journey]\nthink = \"100ms\"\n\
                [budgets]\nturn.p50 = { pass = \"5s\" }\n";
    std::fs::write(&path, text).unwrap();
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"1ms\"\ntokens = 3");
    let ran = run_against(&mock, &["--scenario", path.to_str().unwrap()]);
    let result = ran.result();
    let tier = &result.tiers[0];
    assert_eq!((tier.role, tier.users, result.tiers.len()), (Role::Rise, 20, 1), "{ran}");
    assert!((tier.steady_s - 5.0).abs() < 0.05, "{ran}");
    // Nearly all turns are measured: only those that were meant to start after the rise are not.
    assert!(tier.counts.started * 10 > result.totals.started * 8, "{ran}");
    let seen = users(&result, tier.steady_from_s, tier.steady_from_s + 5.0);
    assert!(seen.is_sorted() && seen[0] < 8 && *seen.last().unwrap() >= 16, "{seen:?}");
}

#[test]
fn who_is_told_to_wait_waits_or_does_not() {
    let _machine = load();
    let flags = ["--tiers", "4", "--ramp", "500ms", "--steady", "2s", "--steady-max", "2s", "--think", "50ms"];
    let limited = |more: &[&str]| {
        let mock = Mock::start(
            "[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3\nrate_limit = { requests = 20, per = \"60s\" }",
        );
        let ran = run_against(&mock, &[&flags[..], &["--abort-on", "never"], more].concat());
        (ran.result(), ran)
    };
    let (obeying, ran) = limited(&[]);
    assert!(obeying.totals.outcomes["rate_limited"] > 0, "{ran}");
    assert_eq!(obeying.totals.told_to_wait, obeying.totals.outcomes["rate_limited"], "{ran}");
    assert_eq!(obeying.totals.waited, obeying.totals.told_to_wait, "{ran}");
    // Whoever was refused waits for longer than the run lasts.
    assert!(obeying.totals.outcomes["rate_limited"] <= 4, "{ran}");
    let (rushing, ran) = limited(&["--ignore-retry-after"]);
    assert_eq!((rushing.totals.told_to_wait > 4, rushing.totals.waited), (true, 0), "{ran}");
}
