//! Probes of a run: what is watched, what is looked up before it and tried after it.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch as channel;
use url::Url;

use super::console::Console;
use super::ready::Ready;
use super::resolve::Secrets;
use super::route::{route, tls_settings};
use crate::analysis::demand;
use crate::clock::Nanos;
use crate::engine::{self, Interrupt};
use crate::net::{Endpoint, client_config, routed_client};
use crate::probe::{Demand, Wanted, Watching, audit, mongo_pools, redis_pools};
use crate::record::{IndexAudit, IndexProblem, Probe, Watched};
use crate::result::{End, Probes, RunResult};
use crate::scenario::file::Preset;
use crate::scenario::{PrometheusProbe, Scenario};

/// Findings of the index audit that are told before a run; the report has all.
const TOLD: usize = 10;
/// How long it may take: no query is run, so it is a matter of moments.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);

/// What was begun before the first tier.
pub(super) struct Begun {
    audit: Option<IndexAudit>,
    watching: Option<Watching>,
}

/// Looks at the indexes and begins to watch, before the run begins. What cannot be watched is said, and missing.
pub(super) async fn begin(
    scenario: &Scenario,
    secrets: &Secrets,
    ready: &Ready,
    console: Console,
) -> anyhow::Result<Begun> {
    let audit = look_up(scenario, secrets, ready, console).await;
    let wanted = wanted(scenario, secrets, ready)?;
    if wanted.is_empty() {
        return Ok(Begun { audit, watching: None });
    }
    let mut watching = Watching::begin(wanted).context("cannot start the probes")?;
    for introduction in watching.introductions().await {
        match introduction.said {
            Ok(what) => console.say(&format!("Watching {what}.")),
            Err(why) => console.complain(&why),
        }
    }
    Ok(Begun { audit, watching: Some(watching) })
}

/// The index audit, where there are queries to explain.
async fn look_up(scenario: &Scenario, secrets: &Secrets, ready: &Ready, console: Console) -> Option<IndexAudit> {
    let mongo = scenario.probes.mongo.as_ref().filter(|mongo| !mongo.queries.is_empty())?;
    let uri = secrets.stores.mongo.as_ref()?;
    let embedded = ready.embedded.as_ref().and_then(|embedded| embedded.database.as_deref());
    let database = mongo.database.as_deref().or(embedded);
    let looked = tokio::time::timeout(AUDIT_PATIENCE, audit(uri, database, &mongo.queries)).await;
    let told = looked.unwrap_or_else(|_| IndexAudit {
        database: database.unwrap_or_default().to_owned(),
        checked: 0,
        empty: Vec::new(),
        findings: Vec::new(),
        failed: Some(format!("it took longer than {} s", AUDIT_PATIENCE.as_secs())),
    });
    if let Some(why) = &told.failed {
        console.complain(&format!("the indexes of {} could not be looked at: {why}", told.database));
    }
    for finding in told.findings.iter().take(TOLD) {
        let what = match finding.problem {
            IndexProblem::CollectionScan => "reads the whole collection",
            IndexProblem::MemorySort => "sorts in memory",
        };
        console.say(&format!("{} {what}: {}", finding.query, finding.create_index));
    }
    Some(told)
}

fn wanted(scenario: &Scenario, secrets: &Secrets, ready: &Ready) -> anyhow::Result<Vec<Wanted>> {
    let probes = &scenario.probes;
    let mut wanted = Vec::new();
    if let (Some(settings), Some(uri)) = (&probes.mongo, &secrets.stores.mongo) {
        let processes = probes.process.clone();
        wanted.push(Wanted::Mongo { uri: uri.clone(), settings: settings.clone(), processes });
    }
    if let (true, Some(url)) = (probes.redis, &secrets.stores.redis) {
        wanted.push(Wanted::Redis { url: url.clone() });
    }
    wanted.extend(probes.process.iter().cloned().map(Wanted::Process));
    let own = ready.embedded.as_ref().is_some_and(|embedded| embedded.has_stores);
    if probes.health.is_empty() && probes.prometheus.is_empty() && !own {
        return Ok(wanted);
    }
    let (tls, route) = (client_config(&tls_settings(scenario))?, route(scenario, secrets));
    let client = |url: &Url| routed_client(&tls, &route, url).context("cannot set up the HTTP client");
    let base: Url = ready.target.url.parse().context("the target's URL")?;
    for health in &probes.health {
        let url = base.join(health).with_context(|| format!("{health} is no path of {base}"))?;
        let route = if url.origin() == base.origin() { route.clone() } else { route.aside(&url) };
        let endpoint = Endpoint::routed(&url, &tls, route, scenario.timeouts.connect)?;
        wanted.push(Wanted::Health { endpoint: Box::new(endpoint), url });
    }
    let bearers = secrets.stores.bearers.iter().cloned().chain(std::iter::repeat(None));
    for (settings, bearer) in probes.prometheus.iter().zip(bearers) {
        let client = client(&settings.url)?;
        wanted.push(Wanted::Prometheus { client, settings: settings.clone(), bearer });
    }
    if own {
        // Only the deployment itself knows how long its operations wait for a connection.
        let url = base.join("/metrics").context("the embedded deployment's metrics")?;
        let client = client(&url)?;
        let settings = PrometheusProbe { url, preset: Some(Preset::Librechat), series: Vec::new() };
        wanted.push(Wanted::Prometheus { client, settings, bearer: None });
    }
    Ok(wanted)
}

impl Begun {
    /// The run begins now: its seconds count from `epoch`.
    pub(super) fn run_begins(&self, epoch: Nanos) {
        if let Some(watching) = &self.watching {
            watching.run_begins(epoch);
        }
    }

    /// Stops watching, and gives what was seen; `None` where nothing was asked for.
    pub(super) async fn end(self) -> Option<Probes> {
        let watched: Vec<Watched> = match self.watching {
            Some(watching) => watching.end().await,
            None => Vec::new(),
        };
        let any = !watched.is_empty() || self.audit.is_some();
        any.then(|| Probes { watched, index_audit: self.audit, ..Probes::default() })
    }
}

/// Tries pools of the stores with load of our own, where that was asked for.
pub(super) async fn try_pools(
    scenario: &Scenario,
    secrets: &Secrets,
    run: &str,
    result: &mut RunResult,
    interrupts: &channel::Receiver<Option<Interrupt>>,
    console: Console,
) {
    // A run that was stopped has left the deployment for a reason: more load is the last thing that it needs.
    if result.end != End::Finished {
        console.say("Pools are not tried, since the run did not come to its end.");
        return;
    }
    let measured = |probe: Probe| {
        let (operations_per_s, concurrency) = demand(result, probe).unwrap_or_default();
        Demand { operations_per_s, concurrency }
    };
    let (of_mongo, of_redis) = (measured(Probe::Mongo), measured(Probe::Redis));
    let asked = || {
        let mut interrupts = interrupts.clone();
        async move { engine::asked(&mut interrupts, Interrupt::Drain).await }
    };
    let (mut mongo, mut redis) = (None, None);
    if let (Some(_), Some(uri)) = (&scenario.probes.mongo, &secrets.stores.mongo) {
        console.say("Trying pools of connections to MongoDB, at most a minute.");
        mongo = Some(mongo_pools(uri, of_mongo, run, asked()).await);
    }
    if let (true, Some(url)) = (scenario.probes.redis, &secrets.stores.redis) {
        console.say("Trying connections to Redis, at most a minute.");
        redis = Some(redis_pools(url, of_redis, run, asked()).await);
    }
    for study in [&mongo, &redis].into_iter().flatten() {
        if let Some(left) = &study.left_behind {
            console.complain(&format!("could not be removed: {left}"));
        }
    }
    let probes = result.probes.get_or_insert_default();
    (probes.mongo_pools, probes.redis_pools) = (mongo, redis);
}
