//! A run from flags to exit code: resolve, prepare, preflight, tiers, result, report.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch as channel};
use tokio::task::JoinHandle;

use super::args::RunArgs;
use super::assemble::{Facts, assemble};
use super::console::Console;
use super::folder;
use super::preflight::PreflightError;
use super::progress::Live;
use super::ready::{Made, Ready, get_ready};
use super::render;
use super::resolve::{For, Output as Wanted, Resolved, resolve};
use super::watch;
use crate::account::marked_email;
use crate::analysis::{loaded, steady_needed, watched};
use crate::clock;
use crate::driver::Driver;
use crate::engine::{self, Interrupt, Output, Patience, Progress, Settings};
use crate::exit::Exit;
use crate::lang::Texts;
use crate::metric::{Metric, MetricSet};
use crate::plan::{Plan, Translation};
use crate::record::Journal;
use crate::report::terminal;
use crate::result::{End, RunResult, Verdict};
use crate::scenario::file::Form;
use crate::scenario::{BudgetMetric, Problem, Scenario, Shape, Tier};
use crate::secret::escaped;
use crate::trace::{Tracer, Traces, Tracing};
use crate::verdict::judge;

/// Why a run did not come to its result.
pub(super) enum Failed {
    /// Bad usage: nothing was run.
    Usage(String),
    /// Preflight failed.
    Preflight(String),
    /// Somebody asked for an end before the ramp.
    Interrupted,
    /// Something broke.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<PreflightError> for Failed {
    fn from(error: PreflightError) -> Self {
        Self::Preflight(error.to_string())
    }
}

/// Runs what the flags ask for.
pub(super) async fn run(args: RunArgs) -> Exit {
    let console = Console { json: args.json };
    match Box::pin(whole(&args, console)).await {
        Ok(exit) => exit,
        Err(Failed::Usage(text)) => {
            console.complain(&text);
            Exit::Usage
        }
        Err(Failed::Preflight(text)) => {
            console.complain(&format!("nothing was measured: {text}"));
            Exit::Stopped
        }
        Err(Failed::Interrupted) => Exit::Interrupted,
        Err(Failed::Broken(error)) => {
            console.complain(&format!("{error:#}"));
            Exit::Stopped
        }
    }
}

async fn whole(args: &RunArgs, console: Console) -> Result<Exit, Failed> {
    let Resolved { mut scenario, secrets, output: wanted } = resolve(args, For::Running).map_err(refused)?;
    let peak = scenario.peak();
    let sources = scenario.connecting.source_addresses.len();
    let prepared = engine::prepare(peak, sources).map_err(|missing| {
        let list: String = missing.iter().map(|missing| format!("\n  {missing}")).collect();
        Failed::Preflight(format!("this machine cannot carry the run:{list}"))
    })?;
    let mut interrupts = interrupts()?;
    let mut ready = tokio::select! {
        ready = Box::pin(get_ready(&mut scenario, &secrets, console)) => ready?,
        _ = interrupts.wait_for(Option::is_some) => return Err(Failed::Interrupted),
    };
    say_what_it_means(console, &scenario, &ready);

    let watching = tokio::select! {
        watching = Box::pin(watch::begin(&scenario, &secrets, &ready, console)) => watching?,
        _ = interrupts.wait_for(Option::is_some) => return Err(Failed::Interrupted),
    };
    let folder =
        folder::create(&wanted.dir, &scenario.name, SystemTime::now()).context("cannot make the folder of the run")?;
    let mut journal = Journal::create(&folder.join("journal.ndjson")).context("cannot make the run journal")?;
    // Taken out here, so that it speaks last, after the result.
    let made = ready.made.take();
    if let Some(Made { mark, count, .. }) = &made {
        let made = json!({ "first": marked_email(mark, 0), "mark": mark, "count": count });
        journal.event(0.0, "accounts_made", &made).context("cannot write the run journal")?;
    }
    let live = Live::new(console, !args.no_progress, &scenario.load.tiers);
    let plan = Plan::new(&scenario, &ready.run);
    let journeys = plan.followers();
    let mut insisting = interrupts.clone();
    let (tracing, traces) = begin_tracing(&scenario, &ready).await?;
    let run = ready.run.clone();
    // As late as can be: the engine's seconds count from its own beginning.
    let (started, epoch) = (SystemTime::now(), clock::monotonic());
    watching.run_begins(epoch);
    let output = execute(&scenario, plan, ready.driver, ready.seen.turn, tracing, journal, live, interrupts).await?;
    let traces = match traces {
        Some(reading) => reading.end(console, &mut insisting).await,
        None => None,
    };
    let probes = watching.end().await;
    let facts = Facts {
        scenario: &scenario,
        target: ready.target,
        started,
        epoch,
        ended: clock::monotonic(),
        prepared,
        steps: ready.steps,
        traces,
        probes,
        journeys,
    };
    // They are of no more use; a child that hangs must not hold the report up.
    drop(ready.embedded);
    let balanced = output.record.totals().is_balanced();
    let mut result = assemble(facts, output);
    watched(&mut result);
    let within = match scenario.load.shape {
        Shape::Spike { recover_within, .. } => Some(recover_within.as_secs_f64()),
        Shape::Steps | Shape::Linear { .. } | Shape::Soak { .. } => None,
    };
    loaded(&mut result, within).context("cannot judge the result")?;
    judge(&mut result, &scenario.load.tiers).context("cannot judge the result")?;
    if scenario.probes.pools {
        // Whatever happens to the trials, the run has its result.
        render::write(&folder, Form::Json, &result, &Texts::new(wanted.lang))?;
        watch::try_pools(&scenario, &secrets, &run, &mut result, &insisting, console).await;
    }
    finish(args.json, &wanted, console, &folder, &result)?;
    if made.is_none() && result.target.kind == "librechat" {
        console.say(
            "What the users said stays in the deployment, as conversations of their accounts; `capacity-check accounts \
             remove` deletes those of marked accounts.",
        );
    }
    drop(made);
    if !balanced {
        return Err(anyhow::anyhow!("the counts of the run do not add up, which is a bug: {:?}", result.totals).into());
    }
    Ok(exit(&result, &scenario))
}

/// How long the journal may take once the last user has gone, and once somebody insists on the end.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(30);
const JOURNAL_HURRY: Duration = Duration::from_secs(3);

/// Waits until somebody has insisted on the end for as long as the journal may take then.
async fn hurried(interrupts: &mut channel::Receiver<Option<Interrupt>>) {
    engine::asked(interrupts, Interrupt::Now).await;
    tokio::time::sleep(JOURNAL_HURRY).await;
}

/// The reading of the mock's journal, which goes on until nobody holds `over`.
struct JournalReading {
    over: oneshot::Sender<()>,
    task: JoinHandle<Traces>,
}

impl JournalReading {
    /// Reads what is still missing. Without it there is a result all the same; what wants it is inconclusive then.
    async fn end(self, console: Console, interrupts: &mut channel::Receiver<Option<Interrupt>>) -> Option<Traces> {
        drop(self.over);
        let read = tokio::select! {
            read = tokio::time::timeout(JOURNAL_PATIENCE, self.task) => read.ok().and_then(Result::ok),
            () = hurried(interrupts) => None,
        };
        if read.is_none() {
            console.complain("the mock LLM's journal could not be read to its end");
        }
        read
    }
}

/// Begins to read the mock's journal, where the mock was seen.
async fn begin_tracing(
    scenario: &Scenario,
    ready: &Ready,
) -> Result<(Option<Tracing>, Option<JournalReading>), Failed> {
    let Some(admin) = ready.admin.clone() else { return Ok((None, None)) };
    let traced = Tracer::new(admin, &ready.run, scenario.white_space, budgeted(scenario)).await;
    let (tracer, tracing) = traced.map_err(PreflightError::from)?;
    let (over, ended) = oneshot::channel();
    let task = tokio::task::spawn_local(tracer.run(ended));
    Ok((Some(tracing), Some(JournalReading { over, task })))
}

/// The metrics that some budget limits, or whose drift is watched.
fn budgeted(scenario: &Scenario) -> MetricSet {
    let budgets = scenario.load.tiers.iter().flat_map(|tier| &tier.budgets);
    let metrics = budgets.filter_map(|budget| match budget.metric {
        BudgetMetric::Latency(metric, _) => Some(metric),
        BudgetMetric::ErrorRate | BudgetMetric::Replies(_) => None,
    });
    // What is watched for drift is kept by block too.
    let watched = matches!(scenario.load.shape, Shape::Soak { .. }).then_some([Metric::Ttft, Metric::Turn]);
    metrics.chain(watched.into_iter().flatten()).collect()
}

/// Why nothing was run.
pub(super) fn refused(problems: Vec<Problem>) -> Failed {
    let list: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    Failed::Usage(format!("nothing was run, since {} problem(s) stand in the way:{list}", problems.len()))
}

fn say_what_it_means(console: Console, scenario: &Scenario, ready: &Ready) {
    let think = Duration::from_nanos((scenario.load.think.distribution.mean() * 1_000.0) as u64);
    for Tier { users, rate, .. } in &scenario.load.tiers {
        let wish = Translation { users: *users, think, turn: ready.seen.turn, rate: *rate };
        console.say(&wish.to_string());
    }
    let mock = if ready.seen.mock { "our mock LLM" } else { "not our mock LLM (--real-model)" };
    let target = &ready.target;
    let endpoint = target.endpoint.as_ref().map(|name| format!("endpoint {name}, ")).unwrap_or_default();
    let kind = if ready.embedded.is_some() { "the embedded reference deployment, " } else { "" };
    let model = escaped(&format!("{endpoint}model {}", target.model), 200);
    console.say(&format!("Target {}: {kind}{model}: {mock}.", target.url));
}

/// Interrupt and terminate signals as requests: the first drains, the second stops at once.
fn interrupts() -> Result<channel::Receiver<Option<Interrupt>>, Failed> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let (sender, receiver) = channel::channel(None);
    tokio::task::spawn_local(async move {
        for request in [Interrupt::Drain, Interrupt::Now] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            sender.send_replace(Some(request));
        }
        // The sender lives on, so that nobody takes its end for a request.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

#[expect(clippy::too_many_arguments, reason = "the parts of a run come together here, once")]
async fn execute(
    scenario: &Scenario,
    plan: Plan,
    driver: Driver,
    expected_turn: Duration,
    tracing: Option<Tracing>,
    mut journal: Journal,
    mut live: Live,
    interrupts: channel::Receiver<Option<Interrupt>>,
) -> anyhow::Result<Output> {
    let tiers = scenario.load.tiers.clone();
    let settings = Settings {
        plan,
        driver,
        shards: scenario.shards,
        budgeted: budgeted(scenario),
        tracing,
        expected_turn,
        turn_limit: scenario.timeouts.turn,
        patience: if scenario.quick { Patience::QUICK } else { Patience::whole(scenario.timeouts.turn) },
        abort_error_rate: scenario.guards.abort_on.map(|guard| guard.error_rate),
        max_duration: scenario.guards.max_duration,
    };
    let epoch = clock::monotonic();
    let mut unwritten = None;
    let output = engine::run(
        settings,
        |tier, rate| steady_needed(&tiers[tier].budgets, rate),
        |progress| {
            live.take(&progress);
            // A full disk must not end the measurement; it is told afterwards.
            if let Err(error) = note(&mut journal, epoch, &progress) {
                unwritten.get_or_insert(error);
            }
        },
        interrupts,
    )
    .await;
    live.finish();
    if let Some(error) = unwritten {
        Console { json: true }.complain(&format!("the run journal is incomplete: {error}"));
    }
    output.context("the run broke off")
}

/// One line of the run journal.
fn note(journal: &mut Journal, epoch: clock::Nanos, progress: &Progress<'_>) -> io::Result<()> {
    let t_s = (clock::monotonic() - epoch) as f64 / clock::SECOND as f64;
    match progress {
        Progress::Second { t_s, delta } => journal.second(*t_s, delta),
        Progress::Stage { users, stage, length, .. } => journal.event(
            t_s,
            stage.name(),
            &json!({ "users": users, "length_s": *length as f64 / clock::SECOND as f64 }),
        ),
        Progress::Stopping(stop) => journal.event(t_s, "stopping", &json!(format!("{stop:?}"))),
    }
}

/// Writes the result and its reports, and tells what they say.
fn finish(json: bool, wanted: &Wanted, console: Console, folder: &Path, result: &RunResult) -> anyhow::Result<()> {
    let texts = Texts::new(wanted.lang);
    // The result first: whatever happens to the reports, they can be made from it again.
    let written = render::write(folder, Form::Json, result, &texts);
    console.say("");
    console.say(&terminal(result, &texts, !json && io::stdout().is_terminal()));
    if json {
        console.result(&render::form(Form::Json, result, &texts));
    }
    let result_at = written?;
    folder::point_latest(folder).with_context(|| format!("cannot point {}/latest at the run", wanted.dir.display()))?;
    console.say("");
    console.say(&format!("Result: {}", result_at.display()));
    for form in wanted.forms.iter().filter(|form| **form != Form::Json) {
        console.say(&format!("Report: {}", render::write(folder, *form, result, &texts)?.display()));
    }
    Ok(())
}

fn exit(result: &RunResult, scenario: &Scenario) -> Exit {
    match (&result.end, result.verdict) {
        (End::Interrupted, _) => Exit::Interrupted,
        (End::Guard(_), _) => Exit::Stopped,
        // A first look never gates.
        _ if !result.comparable => Exit::Pass,
        (_, Verdict::Pass) => Exit::Pass,
        (_, Verdict::Warn) if !scenario.fail_on_warn => Exit::Pass,
        (_, Verdict::Warn | Verdict::Fail) => Exit::Fail,
        (_, Verdict::Inconclusive) => Exit::Inconclusive,
    }
}
