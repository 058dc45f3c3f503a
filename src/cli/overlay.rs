//! Flags over the scenario file: one wish, and where each part of it was written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::args::RunArgs;
use crate::scenario::file::{ProcessSection, PrometheusSection, ScenarioFile, TargetSection};
use crate::scenario::{Places, Problem, Prompts, WrittenScenario, read};
use crate::secret::Secret;
use serde_json::json;

/// What was asked for, by file and flags together.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// All of it but what follows.
    pub(super) file: ScenarioFile,
    /// Headers that were typed, `Name: value`.
    pub(super) headers: Vec<String>,
    /// Budgets that were typed; they override those of the file.
    pub(super) budgets: Vec<String>,
    /// Connection strings that were typed; an empty one names the variable of the environment.
    pub(super) stores: Stores,
    /// How many of the last Prometheus endpoints were typed.
    pub(super) scraped: usize,
    /// The file, if there was one.
    pub(super) path: Option<PathBuf>,
    places: Places,
    /// Of each path that has a flag: the flag, and whether it was typed.
    flags: BTreeMap<&'static str, (&'static str, bool)>,
}

/// Connection strings of stores, as they were typed.
#[derive(Debug, Clone, Default)]
pub(super) struct Stores {
    pub(super) mongo: Option<Secret>,
    pub(super) redis: Option<Secret>,
    pub(super) reference_mongo: Option<Secret>,
    pub(super) reference_redis: Option<Secret>,
}

impl Stores {
    fn new(args: &RunArgs) -> Self {
        let secret = |text: &Option<String>| text.clone().map(Secret::new);
        Self {
            mongo: secret(&args.mongo_uri),
            redis: secret(&args.redis_url),
            reference_mongo: secret(&args.reference_mongo),
            reference_redis: secret(&args.reference_redis),
        }
    }
}

impl Wish {
    /// Reads the file, if there is one, and lays the flags over it.
    ///
    /// # Errors
    /// Every problem of the file, each with its place.
    pub(super) fn new(args: &RunArgs) -> Result<Self, Vec<Problem>> {
        let (headers, budgets) = (args.header.clone(), args.budget.clone());
        let mut wish =
            Self { headers, budgets, stores: Stores::new(args), scraped: args.scrape.len(), ..Self::default() };
        if let Some(path) = &args.scenario {
            let WrittenScenario { file, places } = written(path)?;
            (wish.file, wish.places, wish.path) = (file, places, Some(path.clone()));
            wish.rebase(path);
        }
        wish.overlay(args);
        Ok(wish)
    }

    /// How a path is called where it was written: the flag, or the place in the file.
    pub(super) fn name(&self, path: &str) -> String {
        if path.starts_with("--") {
            return path.to_owned();
        }
        let flag = self.flags.get(path);
        match (flag, &self.path) {
            (Some((flag, true)), _) | (Some((flag, _)), None) => (*flag).to_owned(),
            (_, Some(file)) => match self.places.find(path) {
                Some(place) => format!("{}:{place}: {path}", file.display()),
                None => format!("{}: {path}", file.display()),
            },
            (None, None) => path.to_owned(),
        }
    }

    /// Whether any of these paths was typed as a flag.
    pub(super) fn is_typed(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| self.flags.get(path).is_some_and(|(_, typed)| *typed))
    }

    /// Files that a scenario names are found from where it stands itself.
    fn rebase(&mut self, scenario: &Path) {
        let folder = scenario.parent().unwrap_or(Path::new(""));
        let TargetSection { ca_file, client_cert, client_key, .. } = &mut self.file.target;
        for path in [&mut self.file.accounts.file, ca_file, client_cert, client_key].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        if let Some(prompts) = &mut self.file.journey.prompts
            && Prompts::is_file(prompts)
        {
            *prompts = folder.join(&*prompts).display().to_string();
        }
        if let Some(arrivals) = self.file.load.open.as_mut().and_then(|open| open.arrivals.as_mut())
            && arrivals.ends_with(".txt")
        {
            *arrivals = folder.join(&*arrivals).display().to_string();
        }
        if let Some(serde_json::Value::String(config)) = self.file.mock.get_mut("config") {
            *config = folder.join(&*config).display().to_string();
        }
    }

    fn overlay(&mut self, args: &RunArgs) {
        let Self { file, flags, .. } = self;
        let ScenarioFile { target, accounts, journey, load, reference, verdict, guards, probe, output, .. } = file;
        if args.users.is_some() || args.headcount.is_some() || !args.tiers.is_empty() {
            (load.users, load.tiers, load.headcount, load.open) = (None, None, None, None);
            load.active_share = load.active_share.take().filter(|_| args.headcount.is_some());
        }
        if args.quick {
            // A first look at what the file describes: its times give way to those of --quick.
            (load.ramp, load.steady, load.steady_max, journey.think) = (None, None, None, None);
        }
        if args.register {
            accounts.file = None;
        }
        if args.accounts.is_some() {
            accounts.register = None;
        }
        if args.mock_config.is_some() {
            file.mock.clear();
        }
        if !args.rate.is_empty() || args.arrivals.is_some() || args.max_users.is_some() {
            (load.users, load.tiers, load.headcount) = (None, None, None);
            let open = load.open.get_or_insert_default();
            let mut lay = Lay(flags);
            lay.over(&mut open.arrivals, args.arrivals.clone(), "load.open.arrivals", "--arrivals");
            lay.over(&mut open.max_users, args.max_users, "load.open.max_users", "--max-users");
            let mut rates = (!open.rates.is_empty()).then(|| open.rates.clone());
            let typed = (!args.rate.is_empty()).then(|| args.rate.clone());
            lay.over(&mut rates, typed, "load.open.rates", "--rate");
            open.rates = rates.unwrap_or_default();
        }
        if args.ignore_retry_after {
            journey.obey_retry_after = Some(false);
        }
        let tiers = (!args.tiers.is_empty()).then(|| args.tiers.clone());
        let formats = (!args.format.is_empty()).then(|| args.format.clone());
        let yes = |typed: bool| typed.then_some(true);
        let mut lay = Lay(flags);
        lay.over(&mut load.users, args.users, "load.users", "--users");
        lay.over(&mut load.tiers, tiers, "load.tiers", "--tiers");
        lay.over(&mut load.headcount, args.headcount, "load.headcount", "--headcount");
        lay.text(&mut load.active_share, &args.active_share, "load.active_share", "--active-share");
        lay.over(&mut load.ramp, args.ramp.clone(), "load.ramp", "--ramp");
        lay.over(&mut load.steady, args.steady.clone(), "load.steady", "--steady");
        lay.over(&mut load.steady_max, args.steady_max.clone(), "load.steady_max", "--steady-max");
        lay.over(&mut load.shards, args.shards, "load.shards", "--shards");
        lay.over(&mut journey.turns, args.turns, "journey.turns", "--turns");
        lay.over(&mut journey.think, args.think.clone(), "journey.think", "--think");
        lay.over(&mut journey.prompts, args.prompts.clone(), "journey.prompts", "--prompts");
        lay.text(&mut journey.cancel_share, &args.cancel_share, "journey.cancel_share", "--cancel-share");
        lay.over(&mut file.seed, args.seed, "seed", "--seed");
        lay.over(&mut file.quick, yes(args.quick), "quick", "--quick");
        lay.over(&mut target.url, args.target.clone(), "target.url", "--target");
        lay.over(&mut target.profile, args.profile, "target.profile", "--profile");
        lay.over(&mut target.mock_admin, args.mock_admin.clone(), "target.mock_admin", "--mock-admin");
        lay.over(&mut target.endpoint, args.endpoint.clone(), "target.endpoint", "--endpoint");
        lay.over(&mut target.model, args.model.clone(), "target.model", "--model");
        lay.over(&mut target.api_key_env, args.api_key_env.clone(), "target.api_key_env", "--api-key-env");
        lay.over(&mut target.http1, yes(args.http1), "target.http1", "--http1");
        lay.connecting(target, args);
        lay.over(&mut target.white_space, args.white_space, "target.white_space", "--white-space");
        lay.over(&mut target.real_model, yes(args.real_model), "target.real_model", "--real-model");
        let (connect, stall, turn) = (&args.connect_timeout, &args.stall_timeout, &args.turn_timeout);
        lay.over(&mut target.connect_timeout, connect.clone(), "target.connect_timeout", "--connect-timeout");
        lay.over(&mut target.stall_timeout, stall.clone(), "target.stall_timeout", "--stall-timeout");
        lay.over(&mut target.turn_timeout, turn.clone(), "target.turn_timeout", "--turn-timeout");
        lay.over(&mut accounts.file, args.accounts.clone(), "accounts.file", "--accounts");
        lay.over(&mut accounts.register, yes(args.register), "accounts.register", "--register");
        lay.over(&mut accounts.login_rate, args.login_rate, "accounts.login_rate", "--login-rate");
        lay.over(&mut reference.workers, args.reference_workers, "reference.workers", "--reference-workers");
        let pool = args.reference_mongo_pool;
        lay.over(&mut reference.mongo_pool, pool, "reference.mongo_pool", "--reference-mongo-pool");
        lay.over(&mut probe.pools, yes(args.probe_pools), "probe.pools", "--probe-pools");
        lay.over(&mut verdict.fail_on, args.fail_on, "verdict.fail_on", "--fail-on");
        lay.over(&mut guards.abort_on, args.abort_on.clone(), "guards.abort_on", "--abort-on");
        lay.over(&mut guards.max_duration, args.max_duration.clone(), "guards.max_duration", "--max-duration");
        lay.over(&mut output.dir, args.out.clone(), "output.dir", "--out");
        lay.over(&mut output.formats, formats, "output.formats", "--format");
        lay.over(&mut output.lang, args.lang, "output.lang", "--lang");
        lay.0.insert("budgets", ("--budget", false));
        lay.0.insert("mock", ("--mock-config", args.mock_config.is_some()));
        if let Some(config) = &args.mock_config {
            file.mock.insert("config".to_owned(), json!(config.display().to_string()));
        }
        lay.watched(args);
        probe.process.extend(watched(args));
        let scraped = |url: &String| PrometheusSection { url: url.clone(), ..PrometheusSection::default() };
        probe.prometheus.extend(args.scrape.iter().map(scraped));
        file.authorized.extend(args.i_am_authorized_to_test.iter().cloned());
    }
}

/// The processes that flags name.
fn watched(args: &RunArgs) -> impl Iterator<Item = ProcessSection> {
    let pids = args.watch_pid.iter().map(|pid| ProcessSection { pid: Some(*pid), ..ProcessSection::default() });
    let ports = args.watch_port.iter().map(|port| ProcessSection { port: Some(*port), ..ProcessSection::default() });
    let groups = args.watch_cgroup.iter();
    let groups = groups.map(|path| ProcessSection { cgroup: Some(path.clone()), ..ProcessSection::default() });
    pids.chain(ports).chain(groups)
}

/// Lays flags over fields, and notes which.
struct Lay<'a>(&'a mut BTreeMap<&'static str, (&'static str, bool)>);

impl Lay<'_> {
    fn over<T>(&mut self, field: &mut Option<T>, typed: Option<T>, path: &'static str, flag: &'static str) {
        self.0.insert(path, (flag, typed.is_some()));
        if typed.is_some() {
            *field = typed;
        }
    }

    /// How connections are made.
    fn connecting(&mut self, target: &mut TargetSection, args: &RunArgs) {
        let list = |typed: &Vec<String>| (!typed.is_empty()).then(|| typed.clone());
        let (resolve, sources) = (list(&args.resolve), list(&args.source_address));
        self.over(&mut target.ca_file, args.ca_file.clone(), "target.ca_file", "--ca-file");
        self.over(&mut target.insecure, args.insecure.then_some(true), "target.insecure", "--insecure");
        self.over(&mut target.sni, args.sni.clone(), "target.sni", "--sni");
        if args.client_cert.is_some() {
            // The file's key belongs to the file's certificate.
            target.client_key = None;
        }
        self.over(&mut target.client_cert, args.client_cert.clone(), "target.client_cert", "--client-cert");
        self.over(&mut target.client_key, args.client_key.clone(), "target.client_key", "--client-key");
        self.over(&mut target.resolve, resolve, "target.resolve", "--resolve");
        self.over(&mut target.proxy, args.proxy.clone(), "target.proxy", "--proxy");
        self.over(&mut target.source_addresses, sources, "target.source_addresses", "--source-address");
    }

    /// Notes the flags of probes, for messages.
    fn watched(&mut self, args: &RunArgs) {
        let stores = [
            ("probe.mongo", "--mongo-uri", args.mongo_uri.is_some()),
            ("probe.redis", "--redis-url", args.redis_url.is_some()),
            ("reference.mongo_env", "--reference-mongo", args.reference_mongo.is_some()),
            ("reference.redis_env", "--reference-redis", args.reference_redis.is_some()),
            ("probe.prometheus", "--scrape", !args.scrape.is_empty()),
        ];
        self.0.extend(stores.map(|(path, flag, typed)| (path, (flag, typed))));
    }

    fn text(
        &mut self,
        field: &mut Option<crate::scenario::file::Text>,
        typed: &Option<String>,
        path: &'static str,
        flag: &'static str,
    ) {
        self.over(field, typed.clone().map(crate::scenario::file::Text), path, flag);
    }
}

fn written(path: &Path) -> Result<WrittenScenario, Vec<Problem>> {
    let file = path.display();
    let alone = |message: String| vec![Problem { key: "--scenario".to_owned(), message }];
    let text = std::fs::read_to_string(path).map_err(|error| alone(format!("cannot read {file}: {error}")))?;
    read(&text).map_err(|wrong| {
        let problem = |wrong: crate::scenario::Wrong| {
            let place = wrong.place.map_or_else(String::new, |place| format!(":{place}"));
            let path = if wrong.path.is_empty() { String::new() } else { format!(": {}", wrong.path) };
            Problem { key: format!("{file}{place}{path}"), message: wrong.message }
        };
        wrong.into_iter().map(problem).collect()
    })
}
