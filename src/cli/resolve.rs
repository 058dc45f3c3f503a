//! From what was typed to what is meant: every problem at once, before anything runs.

use std::time::Duration;

use mock_llm::distribution::{Distribution, Unit, Written, parse_duration};
use url::Url;

use super::args::{DEFAULT_KEY_VARIABLE, FailOn, Profile, RunArgs};
use super::folder;
use super::sign_in::Pace;
use crate::account::{Credentials, read_list};
use crate::scenario::{
    AbortOn, Accounts, Budget, BudgetMetric, Guards, Load, Problem, Scenario, Target, Timeouts, default_budgets,
    is_private, ladder, plain_url,
};
use crate::secret::{Secret, redacted};

/// What is sent but never shown.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// The bearer key.
    pub(super) key: Option<Secret>,
    /// Headers by name.
    pub(super) headers: Vec<(String, Secret)>,
    /// The token of the mock's admin listener.
    pub(super) admin_token: Option<Secret>,
    /// Signs the bearer tokens of users whose tokens are minted.
    pub(super) jwt_secret: Option<Secret>,
    /// The users, where a list names them.
    pub(super) accounts: Vec<Credentials>,
}

impl Secrets {
    /// A foreign text without these.
    pub(super) fn redacted(&self, text: &str) -> String {
        let headers = self.headers.iter().map(|(_, value)| value);
        let alone = [&self.key, &self.admin_token, &self.jwt_secret];
        let all: Vec<Secret> = alone.into_iter().flatten().chain(headers).cloned().collect();
        redacted(text, &all)
    }
}

/// The longest duration that makes sense, and far from what a clock's arithmetic can hold.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// The problems found so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, flag: &str, message: impl Into<String>) {
        self.0.push(Problem { key: flag.to_owned(), message: message.into() });
    }

    /// The value, or a problem at a flag.
    fn take<T>(&mut self, flag: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(flag, message)).ok()
    }

    fn duration(&mut self, flag: &str, text: Option<&str>, default: Duration) -> Duration {
        let found = text.and_then(|text| self.take(flag, parse_duration(text))).unwrap_or(default);
        if found > LONGEST {
            self.add(flag, "is above 30 days");
            return default;
        }
        found
    }
}

/// Resolves the flags of a run.
///
/// # Errors
/// Every problem, each with its flag.
pub(super) fn resolve(args: &RunArgs) -> Result<(Scenario, Secrets), Vec<Problem>> {
    let mut problems = Problems::default();
    let mut secrets = secrets(args, &mut problems);
    let target = target(args, &mut problems);
    let embedded = matches!(target, Some(Target::Embedded { .. }));
    let load = load(args, &mut problems);
    if let Some(Target::LibreChat { .. }) = target {
        let peak = load.tiers.last().copied().unwrap_or(0);
        secrets.accounts = accounts(args, peak, &secrets, &mut problems);
    }
    problems.take("--login-rate", Pace::parse(args.login_rate));
    let budgets = budgets(args, &mut problems);
    let abort_on = problems.take("--abort-on", AbortOn::parse(&args.abort_on)).flatten();
    let max_duration =
        args.max_duration.as_deref().map(|text| problems.duration("--max-duration", Some(text), LONGEST));
    if max_duration.is_some_and(|most| most.is_zero()) {
        problems.add("--max-duration", "should be above 0");
    }
    let timeouts = timeouts(args, &mut problems);
    if args.shards == Some(0) {
        problems.add("--shards", "should be 1 or more");
    }
    if let Err(error) = folder::check(&args.out) {
        problems.add("--out", error.to_string());
    }
    let Some(target) = target.filter(|_| problems.0.is_empty()) else { return Err(problems.0) };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = args.shards.unwrap_or_else(|| cores.saturating_sub(usize::from(embedded)).max(1));
    let scenario = Scenario {
        name: target.kind().to_owned(),
        target,
        model: args.model.clone(),
        login_rate: args.login_rate,
        load,
        budgets,
        seed: args.seed,
        quick: args.quick,
        fail_on_warn: args.fail_on == Some(FailOn::Warn),
        timeouts,
        guards: Guards { abort_on, max_duration },
        real_model: args.real_model,
        headers: secrets.headers.iter().map(|(name, _)| name.clone()).collect(),
        ca_file: args.ca_file.clone(),
        insecure: args.insecure,
        shards,
    };
    Ok((scenario, secrets))
}

fn timeouts(args: &RunArgs, problems: &mut Problems) -> Timeouts {
    let mut timeout = |flag: &str, text: &str| {
        let found = problems.duration(flag, Some(text), Duration::from_secs(1));
        if found.is_zero() {
            problems.add(flag, "should be above 0");
        }
        found
    };
    Timeouts {
        connect: timeout("--connect-timeout", &args.connect_timeout),
        stall: timeout("--stall-timeout", &args.stall_timeout),
        turn: timeout("--turn-timeout", &args.turn_timeout),
    }
}

fn secrets(args: &RunArgs, problems: &mut Problems) -> Secrets {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new);
    let mut headers = Vec::new();
    for text in &args.header {
        // The value may be a secret: a problem repeats only the name.
        match text.split_once(':') {
            Some((name, value))
                if http::HeaderName::from_bytes(name.trim().as_bytes()).is_ok()
                    && http::HeaderValue::from_str(value.trim()).is_ok() =>
            {
                headers.push((name.trim().to_owned(), Secret::new(value.trim())));
            }
            Some((name, _)) => {
                problems.add("--header", format!("`{}` has a name or value that HTTP does not allow", name.trim()))
            }
            None => problems.add("--header", "write it like 'Name: value'"),
        }
    }
    let key = variable(&args.api_key_env);
    if key.is_none() && args.api_key_env != DEFAULT_KEY_VARIABLE {
        problems.add("--api-key-env", format!("the environment has no {}", args.api_key_env));
    }
    Secrets {
        key,
        headers,
        admin_token: variable("MOCK_LLM_ADMIN_TOKEN"),
        jwt_secret: variable(reference_chat::cli::SECRET_VARIABLE),
        accounts: Vec::new(),
    }
}

/// The users of a LibreChat deployment: one account each, for it keeps people to two turns at once.
fn accounts(args: &RunArgs, peak: u32, secrets: &Secrets, problems: &mut Problems) -> Vec<Credentials> {
    let Some(path) = &args.accounts else {
        if !args.register {
            problems.add(
                "--accounts",
                "LibreChat wants a login for every user: name a list with --accounts FILE (`capacity-check accounts \
                 create` makes one), or make the accounts by --register",
            );
        }
        return Vec::new();
    };
    let list = read_list(path, secrets.jwt_secret.is_some()).map_err(|error| error.to_string());
    let Some(list) = problems.take("--accounts", list) else { return Vec::new() };
    if list.len() < peak as usize {
        let has = list.len();
        problems.add("--accounts", format!("{} has {has} accounts, but {peak} users want one each", path.display()));
    }
    if secrets.jwt_secret.is_none() && list.iter().any(|one| matches!(one, Credentials::Minted { .. })) {
        problems.add("--accounts", "id,email,username want the deployment's JWT_SECRET in the environment");
    }
    list
}

fn target(args: &RunArgs, problems: &mut Problems) -> Option<Target> {
    let Some(text) = &args.target else {
        if let Some(path) = &args.mock_config
            && let Err(error) = std::fs::metadata(path)
        {
            problems.add("--mock-config", format!("cannot read {}: {error}", path.display()));
        }
        let reference_workers = args.reference_workers.unwrap_or(1);
        if !(1..=256).contains(&reference_workers) {
            problems.add("--reference-workers", "should be from 1 to 256");
        }
        return Some(Target::Embedded { mock_config: args.mock_config.clone(), reference_workers });
    };
    let base = match args.profile {
        Profile::Openai => Target::openai_base(text),
        Profile::Librechat => plain_url(text),
    };
    let base = problems.take("--target", base);
    let mock_admin = args.mock_admin.as_deref().and_then(|text| problems.take("--mock-admin", plain_url(text)));
    if let Some(path) = &args.ca_file
        && let Err(error) = std::fs::metadata(path)
    {
        problems.add("--ca-file", format!("cannot read {}: {error}", path.display()));
    }
    let base = base?;
    for (flag, url) in [("--target", Some(&base)), ("--mock-admin", mock_admin.as_ref())] {
        if let Some(url) = url {
            check_consent(flag, url, args, problems);
        }
    }
    let only_librechat = [
        ("--endpoint", args.endpoint.is_some()),
        ("--accounts", args.accounts.is_some()),
        ("--register", args.register),
    ];
    if args.profile != Profile::Librechat {
        for (flag, _) in only_librechat.into_iter().filter(|(_, given)| *given) {
            problems.add(flag, "is for --profile librechat");
        }
    }
    Some(match (args.profile, &args.accounts) {
        (Profile::Openai, _) => Target::OpenAi { base, mock_admin },
        (Profile::Librechat, accounts) => Target::LibreChat {
            base,
            mock_admin,
            endpoint: args.endpoint.clone(),
            accounts: accounts.clone().map_or(Accounts::Registration, |file| Accounts::List { file }),
        },
    })
}

/// A public host is tested only where somebody says that it may be.
fn check_consent(flag: &str, url: &Url, args: &RunArgs, problems: &mut Problems) {
    problems.take(flag, consent(url, &args.i_am_authorized_to_test));
}

/// Whether a host may be tested: it is private, or somebody has named it.
///
/// # Errors
/// A sentence that says how to name it.
pub(super) fn consent(url: &Url, named: &[String]) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    if is_private(url) || named.iter().any(|named| named.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(format!(
        "{host} is a public host, and a load test of a host that is not yours is an attack; \
         if you may test it, say so with --i-am-authorized-to-test {host}"
    ))
}

fn load(args: &RunArgs, problems: &mut Problems) -> Load {
    let (ramp, steady, steady_max, think) = if args.quick {
        (Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(8), "lognormal 2s 6s")
    } else {
        (Duration::from_secs(20), Duration::from_mins(1), Duration::from_mins(3), "lognormal 15s 45s")
    };
    let ramp = problems.duration("--ramp", args.ramp.as_deref(), ramp);
    let steady = problems.duration("--steady", args.steady.as_deref(), steady);
    // A steady phase longer than the default maximum was asked for in so many words.
    let steady_max = problems.duration("--steady-max", args.steady_max.as_deref(), steady_max.max(steady));
    if steady.is_zero() {
        problems.add("--steady", "should be above 0");
    }
    if steady_max < steady {
        problems.add("--steady-max", "is below --steady");
    }
    let think = args.think.as_deref().unwrap_or(think);
    let think = problems.take("--think", Distribution::parse(think, Unit::Duration));
    if think.as_ref().is_some_and(|think| think.mean() > LONGEST.as_micros() as f64) {
        problems.add("--think", "is above 30 days");
    }
    let share = args.cancel_share.as_deref().map(crate::scenario::parse_share);
    let cancel_share = share.and_then(|share| problems.take("--cancel-share", share)).unwrap_or(0.0);
    if args.turns == 0 {
        problems.add("--turns", "should be 1 or more");
    }
    Load {
        tiers: tiers(args, problems),
        ramp,
        steady,
        steady_max,
        think: Written::duration(think.unwrap_or(Distribution::Constant(0.0))),
        turns: args.turns,
        cancel_share,
    }
}

fn tiers(args: &RunArgs, problems: &mut Problems) -> Vec<u32> {
    if !args.tiers.is_empty() {
        if args.tiers.contains(&0) {
            problems.add("--tiers", "a tier should have 1 user or more");
        }
        if !args.tiers.is_sorted_by(|before, after| before < after) {
            problems.add("--tiers", "the tiers should rise, since users carry over from one to the next");
        }
        return args.tiers.clone();
    }
    let users = match (args.users, args.headcount) {
        (Some(users), _) => users,
        (None, Some(headcount)) => {
            let share = args.active_share.as_deref().unwrap_or("100%");
            let share = problems.take("--active-share", crate::scenario::parse_share(share)).unwrap_or(1.0);
            (f64::from(headcount) * share).round() as u32
        }
        (None, None) => {
            problems.add("--users", "is missing: how many users? (or --tiers, or --headcount with --active-share)");
            return Vec::new();
        }
    };
    if users == 0 {
        problems.add(
            if args.users.is_some() { "--users" } else { "--headcount" },
            "0 users make no load; ask for 1 or more",
        );
    }
    ladder(users)
}

/// The budgets that were typed, or the default ones; the last of a metric and statistic counts.
/// That of the error rate always stands: latencies of turns that completed say nothing about a
/// target that breaks most of them off.
fn budgets(args: &RunArgs, problems: &mut Problems) -> Vec<Budget> {
    let mut budgets = default_budgets();
    if !args.budget.is_empty() {
        budgets.retain(|budget| budget.metric == BudgetMetric::ErrorRate);
    }
    for budget in args.budget.iter().filter_map(|text| problems.take("--budget", Budget::parse(text))) {
        budgets.retain(|kept| kept.metric != budget.metric);
        budgets.push(budget);
    }
    budgets
}
