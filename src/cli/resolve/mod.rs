//! From what was written to what is meant: every problem at once, before anything runs.

mod connecting;
mod journey;
mod load;
mod probe;
mod protocol;
mod secrets;
mod shape;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use mock_llm::distribution::parse_duration;

use super::args::RunArgs;
use super::folder;
use super::overlay::Wish;
use super::sign_in::Pace;
use crate::lang::Lang;
use crate::scenario::file::{FailOn, Form};
use crate::scenario::{AbortOn, Guards, Problem, Scenario, Target, Timeouts};
pub(super) use secrets::Secrets;
pub(super) use target::consent;

/// The longest duration that makes sense, and far from what a clock's arithmetic can hold.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// A run that can begin.
pub(super) struct Resolved {
    pub(super) scenario: Scenario,
    pub(super) secrets: Secrets,
    pub(super) output: Output,
}

/// What is written where.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) dir: PathBuf,
    /// The forms besides the result itself.
    pub(super) forms: Vec<Form>,
    pub(super) lang: Lang,
}

/// The problems found so far.
struct Problems<'a> {
    wish: &'a Wish,
    found: Vec<Problem>,
}

impl Problems<'_> {
    /// A problem at a path of the scenario, such as `load.users`.
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.found.push(Problem { key: self.wish.name(path), message: message.into() });
    }

    /// The value, or a problem at a path.
    fn take<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(path, message)).ok()
    }

    fn duration(&mut self, path: &str, text: Option<&str>, default: Duration) -> Duration {
        let found = text.and_then(|text| self.take(path, parse_duration(text))).unwrap_or(default);
        if found > LONGEST {
            self.add(path, "is above 30 days");
            return default;
        }
        found
    }
}

/// Whether a run is resolved to be run, or only to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// It is run next: environment, files and folders are looked at.
    Running,
    /// It is planned or validated: accounts, keys and folders need not be there yet.
    Looking,
}

/// Resolves file and flags of a run.
///
/// # Errors
/// Every problem, each with its flag or its place in the file.
pub(super) fn resolve(args: &RunArgs, what_for: For) -> Result<Resolved, Vec<Problem>> {
    let wish = Wish::new(args)?;
    let file = &wish.file;
    let mut problems = Problems { wish: &wish, found: Vec::new() };
    let mut secrets = match what_for {
        For::Running => secrets::secrets(&wish, &mut problems),
        For::Looking => Secrets::default(),
    };
    let target = target::target(&wish, what_for, &mut problems);
    let connecting = connecting::connecting(&wish, what_for, target.as_ref(), &mut problems);
    let embedded = matches!(target, Some(Target::Embedded { .. }));
    let real_model = file.target.real_model.unwrap_or(false);
    let traced = !real_model && target.as_ref().is_some_and(Target::has_mock);
    let load = load::load(&wish, traced, &mut problems);
    if let (Some(Target::LibreChat { .. }), For::Running) = (&target, what_for) {
        let peak = load.peak();
        let mints = secrets.jwt_secret.is_some();
        secrets.accounts = secrets::accounts(file, peak, mints, &mut problems);
        if !mints {
            secrets::unminted(&secrets.accounts, &mut problems);
        }
    }
    if let (Some(Target::Described { protocol, site, .. }), For::Running) = (&target, what_for) {
        // Nobody knows how the deployment would want a token that is minted.
        secrets.accounts = secrets::accounts(file, load.peak(), false, &mut problems);
        if let Some(message) = protocol::lacking(protocol, site, &secrets.accounts) {
            problems.add("accounts.file", message);
        }
    }
    let login_rate = file.accounts.login_rate.unwrap_or(5.0);
    problems.take("accounts.login_rate", Pace::parse(login_rate));
    let guards = guards(&wish, &mut problems);
    let probes = probe::probes(&wish, what_for, &mut problems);
    probe::consent_to_pools(&wish, &secrets.stores, &mut problems);
    let timeouts = timeouts(&wish, &mut problems);
    if file.load.shards == Some(0) {
        problems.add("load.shards", "should be 1 or more");
    }
    let name = name(&wish, target.as_ref(), &mut problems);
    let output = output(&wish, what_for, &mut problems);
    let Some(target) = target.filter(|_| problems.found.is_empty()) else { return Err(problems.found) };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = file.load.shards.map(|shards| shards as usize);
    let shards = shards.unwrap_or_else(|| cores.saturating_sub(usize::from(embedded)).max(1));
    let scenario = Scenario {
        name,
        description: file.description.clone(),
        target,
        model: file.target.model.clone(),
        login_rate,
        load,
        seed: file.seed.unwrap_or(1),
        quick: file.quick.unwrap_or(false),
        fail_on_warn: file.verdict.fail_on == Some(FailOn::Warn),
        timeouts,
        guards,
        probes,
        white_space: file.target.white_space.unwrap_or_default(),
        real_model,
        headers: secrets::header_names(&wish),
        ca_file: file.target.ca_file.clone(),
        insecure: file.target.insecure.unwrap_or(false),
        http1: file.target.http1.unwrap_or(false),
        connecting,
        shards,
    };
    Ok(Resolved { scenario, secrets, output })
}

/// The name of the run's folder: what the file says, the file's own name, or the kind of target.
fn name(wish: &Wish, target: Option<&Target>, problems: &mut Problems<'_>) -> String {
    let of_file = wish.path.as_ref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(name) = &wish.file.name {
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(allowed) {
            problems.add("name", "should be up to 100 letters, digits, -, _ and ., not beginning with .");
        }
        return name.clone();
    }
    let cleaned = |stem: String| stem.chars().map(|c| if allowed(c) { c } else { '-' }).take(60).collect::<String>();
    let of_file = of_file.map(cleaned).map(|stem| stem.trim_start_matches('.').to_owned());
    of_file.unwrap_or_else(|| target.map_or_else(String::new, |target| target.kind().to_owned()))
}

fn guards(wish: &Wish, problems: &mut Problems<'_>) -> Guards {
    let section = &wish.file.guards;
    let abort_on = section.abort_on.as_deref().unwrap_or("error_rate>50%");
    let abort_on = problems.take("guards.abort_on", AbortOn::parse(abort_on)).flatten();
    let most = section.max_duration.as_deref();
    let max_duration = most.map(|text| problems.duration("guards.max_duration", Some(text), LONGEST));
    if max_duration.is_some_and(|most| most.is_zero()) {
        problems.add("guards.max_duration", "should be above 0");
    }
    Guards { abort_on, max_duration }
}

fn timeouts(wish: &Wish, problems: &mut Problems<'_>) -> Timeouts {
    let section = &wish.file.target;
    let mut timeout = |path: &str, text: &Option<String>, default: u64| {
        let found = problems.duration(path, text.as_deref(), Duration::from_secs(default));
        if found.is_zero() {
            problems.add(path, "should be above 0");
        }
        found
    };
    Timeouts {
        connect: timeout("target.connect_timeout", &section.connect_timeout, 10),
        stall: timeout("target.stall_timeout", &section.stall_timeout, 30),
        turn: timeout("target.turn_timeout", &section.turn_timeout, 120),
    }
}

fn output(wish: &Wish, what_for: For, problems: &mut Problems<'_>) -> Output {
    let section = &wish.file.output;
    let dir = section.dir.clone().unwrap_or_else(|| PathBuf::from("reports"));
    if what_for == For::Running
        && let Err(error) = folder::check(&dir)
    {
        problems.add("output.dir", error.to_string());
    }
    let forms = section.formats.clone().unwrap_or_else(|| vec![Form::Md, Form::Html, Form::Junit]);
    Output { dir, forms, lang: section.lang.unwrap_or_else(Lang::of_locale) }
}
