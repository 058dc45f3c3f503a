//! What this machine carries as a generator, and how exact it is then: a run of the tool itself against the mock
//! LLM alone, whose journal has the truth. The answer is kept for later runs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use mock_llm::behaviour::Behaviour;
use mock_llm::journal::Turn;
use serde::{Deserialize, Serialize};

use super::assemble::machine;
use super::child::Mock;
use super::console::Console;
use crate::analysis::generator_causes;
use crate::exit::Exit;
use crate::lang::{Lang, Texts};
use crate::metric::Metric;
use crate::net::{TlsSettings, client_config, shared_client};
use crate::report::sentence;
use crate::result::{Calibration, Machine, Reason, RunResult, TierResult, read};
use crate::trace::MockAdmin;

/// Streams at once, one after the other.
const STREAMS: &str = "100,400,1000,2000";
/// Each reply takes 2 s, at the pace of a fast model.
const MOCK: &str = "[models.calibration]\nttft = \"uniform 50ms 99ms\"\ngap = \"50ms\"\ntokens = 40\n";
/// The times of each: with the drain some 20 s in all.
const TIMES: [&str; 6] = ["--ramp", "800ms", "--steady", "2200ms", "--steady-max", "2200ms"];

/// Flags of `calibrate`.
#[derive(Debug, Clone, Args)]
pub(super) struct CalibrateArgs {
    /// Threads that carry users. [default: the cores less one, which the mock has]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
}

/// What is kept: the finding, and on which machine it was made.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    machine: Option<Machine>,
    calibration: Calibration,
}

/// One number of streams, as it was found.
struct Row {
    streams: u32,
    tokens_per_s: f64,
    /// At p50 and p99: ours less the journal's, in microseconds.
    error_us: [i64; 2],
    causes: Vec<Reason>,
}

/// Calibrates, prints and keeps what was found.
pub(super) async fn run(args: CalibrateArgs) -> Exit {
    let console = Console { json: false };
    match calibrate(&args, console).await {
        Ok(exit) => exit,
        Err(error) => {
            console.complain(&format!("not calibrated: {error:#}"));
            Exit::Stopped
        }
    }
}

async fn calibrate(args: &CalibrateArgs, console: Console) -> anyhow::Result<Exit> {
    if args.shards == Some(0) {
        console.complain("--shards: should be 1 or more");
        return Ok(Exit::Usage);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = args.shards.map_or(cores.saturating_sub(1).max(1), |shards| shards as usize);
    console
        .say(&format!("Calibrating with {shards} of {cores} cores against the mock LLM on this machine: some 20 s."));
    let behaviour = Behaviour::from_toml(MOCK).expect("it is written here");
    let mock = Mock::start(&behaviour).context("cannot start")?;
    let result = measured(&mock, shards)?;
    let rows = compared(&result, &mock).await?;
    console.say(&table(&rows));
    let Some(best) = rows.iter().take_while(|row| row.causes.is_empty()).last() else {
        let why = rows.first().map_or_else(String::new, |row| words(&row.causes));
        console.complain(&format!(
            "this machine carries not even {} streams just now: {why}",
            rows.first().map_or(0, |row| row.streams)
        ));
        return Ok(Exit::Inconclusive);
    };
    let calibration = Calibration {
        at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        shards,
        streams: best.streams,
        tokens_per_s: best.tokens_per_s,
        error_p50_us: best.error_us[0],
        error_p99_us: best.error_us[1],
    };
    let at = keep(calibration).context("cannot keep what was found")?;
    console.say(&format!(
        "This machine carries {} streams and {:.0} tokens/s; TTFT is then right to within {:.1} ms at p50 and {:.1} ms at p99.\nKept in {}; runs on this machine print it.",
        best.streams,
        best.tokens_per_s,
        best.error_us[0].abs() as f64 / 1e3,
        best.error_us[1].abs() as f64 / 1e3,
        at.display(),
    ));
    Ok(Exit::Pass)
}

/// A run of this very tool: what it finds is what any run would.
fn measured(mock: &Mock, shards: usize) -> anyhow::Result<RunResult> {
    let out = tempfile::tempdir().context("cannot make a folder")?;
    let output = Command::new(std::env::current_exe().context("cannot find this program")?)
        .args(["--target", mock.api.as_str(), "--mock-admin", mock.admin.as_str(), "--tiers", STREAMS, "--think", "0s"])
        .args(["--turns", "1", "--json", "--no-progress", "--format", "json", "--shards", &shards.to_string(), "--out"])
        .arg(out.path())
        .args(TIMES)
        .stdin(Stdio::null())
        .output()
        .context("cannot start the run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match read(&text) {
        Ok(result) => Ok(result),
        Err(_) => bail!("the run gave no result: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// Each tier against the journal.
async fn compared(result: &RunResult, mock: &Mock) -> anyhow::Result<Vec<Row>> {
    let client = shared_client(client_config(&TlsSettings::default())?.as_ref())?;
    let turns = MockAdmin::new(client, mock.admin.clone(), None).turns(0).await?;
    let started = humantime::parse_rfc3339(&result.started_at).context("a time")?;
    let steps = result.generator.clock_steps;
    Ok(result.tiers.iter().filter_map(|tier| row(tier, &turns, started, steps)).collect())
}

/// A tier; `None` where it measured nothing.
fn row(tier: &TierResult, turns: &[Turn], started: SystemTime, clock_steps: u64) -> Option<Row> {
    let window = tier.steady_window(started);
    let mut truth: Vec<u64> = turns
        .iter()
        .filter(|turn| window.contains(&turn.received_us))
        .filter_map(|turn| Some(turn.first_token_us? - turn.received_us))
        .collect();
    truth.sort_unstable();
    let ours = tier.metrics.get(&Metric::TtftFromSend)?;
    let last = truth.len().checked_sub(1)?;
    let quantile = |share: f64| truth[((truth.len() as f64 * share) as usize).min(last)];
    let error = |ours: u64, share: f64| ours as i64 - quantile(share) as i64;
    Some(Row {
        streams: tier.users,
        tokens_per_s: tier.counts.tokens as f64 / tier.steady_s,
        error_us: [error(ours.p50_us, 0.5), error(ours.p99_us, 0.99)],
        causes: generator_causes(tier, clock_steps),
    })
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_NO_BORDERS);
    table.set_header(["Streams", "Tokens/s", "TTFT error p50", "TTFT error p99", "Was the generator in the way?"]);
    for row in rows {
        let error = |micros: i64| format!("{:+.2} ms", micros as f64 / 1e3);
        let causes = if row.causes.is_empty() { "no".to_owned() } else { words(&row.causes) };
        let tokens = format!("{:.0}", row.tokens_per_s);
        table.add_row([row.streams.to_string(), tokens, error(row.error_us[0]), error(row.error_us[1]), causes]);
    }
    for column in table.column_iter_mut().take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn words(causes: &[Reason]) -> String {
    let texts = Texts::new(Lang::En);
    causes.iter().map(|cause| sentence(&texts, cause)).collect::<Vec<_>>().join("; ")
}

/// Where it is kept: in the user's state folder, `$XDG_STATE_HOME` or `~/.local/state`.
fn place() -> Option<PathBuf> {
    Some(dirs::state_dir()?.join("capacity-check").join("calibration.json"))
}

fn keep(calibration: Calibration) -> io::Result<PathBuf> {
    let place = place().ok_or_else(|| io::Error::other("there is no state folder: set HOME or XDG_STATE_HOME"))?;
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let kept = Kept { machine: machine(), calibration };
    let text = serde_json::to_string_pretty(&kept).map_err(io::Error::other)?;
    fs::write(&place, text + "\n")?;
    Ok(place)
}

/// What was found on this machine, if it ever was.
pub(super) fn calibration() -> Option<Calibration> {
    let text = fs::read_to_string(place()?).ok()?;
    let kept: Kept = serde_json::from_str(&text).ok()?;
    (kept.machine == machine()).then_some(kept.calibration)
}
