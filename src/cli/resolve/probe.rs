//! What is watched beside the users, and the secrets that this takes.

use std::path::{Path, PathBuf};

use url::Url;

use super::secrets::{missing, variable};
use super::target::consent;
use super::{For, Problems};
use crate::cli::overlay::Wish;
use crate::scenario::file::{HealthSection, MongoSection, ProcessSection, Profile, PrometheusSection, QuerySection};
use crate::scenario::{MongoProbe, Probes, ProcessProbe, PrometheusProbe, Which, librechat_queries, plain_url};
use crate::secret::Secret;

/// Variables that hold connection strings, and LibreChat's bearer token of /metrics.
const MONGO_VARIABLE: &str = "MONGO_URI";
const REDIS_VARIABLE: &str = "REDIS_URI";
const METRICS_VARIABLE: &str = "METRICS_SECRET";
/// What the embedded deployment calls itself to MongoDB.
const REFERENCE_APP: &str = "LibreChat";
/// Where Linux has its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Connections of a Node process to MongoDB, where nothing is said: the driver's default.
const DRIVER_POOL: u32 = 100;

/// Connection strings and tokens of what is watched.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct StoreSecrets {
    /// Of the MongoDB that is watched.
    pub(in crate::cli) mongo: Option<Secret>,
    /// Of the Redis that is watched.
    pub(in crate::cli) redis: Option<Secret>,
    /// Of the embedded deployment's MongoDB.
    pub(in crate::cli) reference_mongo: Option<Secret>,
    /// Of the embedded deployment's Redis.
    pub(in crate::cli) reference_redis: Option<Secret>,
    /// The bearer tokens of Prometheus endpoints, in the order of the scenario.
    pub(in crate::cli) bearers: Vec<Option<Secret>>,
}

/// Reads connection strings: those that were typed, or the variables that are named.
pub(super) fn store_secrets(wish: &Wish, problems: &mut Problems<'_>) -> StoreSecrets {
    let (stores, file) = (&wish.stores, &wish.file);
    let mut read = |typed: &Option<Secret>, named: Option<Option<&str>>, standard: &str, path: &str| {
        if let Some(typed) = typed.as_ref().filter(|typed| !typed.expose().is_empty()) {
            return Some(typed.clone());
        }
        if typed.is_none() && named.is_none() {
            return None;
        }
        let name = named.flatten().unwrap_or(standard);
        let found = variable(name);
        if found.is_none() {
            problems.add(path, missing(name));
        }
        found
    };
    let of_mongo = file.probe.mongo.as_ref().map(|mongo| mongo.uri_env.as_deref());
    let of_redis = file.probe.redis.as_ref().map(|redis| redis.url_env.as_deref());
    let mongo = read(&stores.mongo, of_mongo, MONGO_VARIABLE, "probe.mongo");
    let redis = read(&stores.redis, of_redis, REDIS_VARIABLE, "probe.redis");
    let named = file.reference.mongo_env.as_deref().map(Some);
    let reference_mongo = read(&stores.reference_mongo, named, MONGO_VARIABLE, "reference.mongo_env");
    let named = file.reference.redis_env.as_deref().map(Some);
    let reference_redis = read(&stores.reference_redis, named, REDIS_VARIABLE, "reference.redis_env");
    let bearers = file.probe.prometheus.iter().enumerate().map(|(index, section)| {
        let Some(name) = &section.bearer_env else {
            return variable(METRICS_VARIABLE).filter(|_| is_of_target(&section.url, file.target.url.as_deref()));
        };
        let found = variable(name);
        if found.is_none() {
            problems.add(&format!("probe.prometheus[{index}].bearer_env"), missing(name));
        }
        found
    });
    let bearers = bearers.collect();
    StoreSecrets {
        // The embedded deployment's stores are watched, unless others are named.
        mongo: mongo.or_else(|| reference_mongo.clone()),
        redis: redis.or_else(|| reference_redis.clone()),
        reference_mongo,
        reference_redis,
        bearers,
    }
}

/// Whether a URL is at the target's own origin.
fn is_of_target(url: &str, target: Option<&str>) -> bool {
    let origin = |text: &str| text.parse::<Url>().ok().map(|url| url.origin());
    target.and_then(origin).is_some_and(|target| origin(url) == Some(target))
}

/// Whether pools may be tried on these stores: that is load, and of a public host somebody must have said that it may.
pub(super) fn consent_to_pools(wish: &Wish, stores: &StoreSecrets, problems: &mut Problems<'_>) {
    if !wish.file.probe.pools.unwrap_or(false) {
        return;
    }
    for store in [&stores.mongo, &stores.redis].into_iter().flatten() {
        for host in store.hosts().split(',').filter_map(|host| format!("http://{host}").parse().ok()) {
            problems.take("probe.pools", consent(&host, &wish.file.authorized));
        }
    }
}

/// Resolves what is watched.
pub(super) fn probes(wish: &Wish, what_for: For, problems: &mut Problems<'_>) -> Probes {
    let section = &wish.file.probe;
    let typed = &wish.stores;
    let reference_mongo = typed.reference_mongo.is_some() || wish.file.reference.mongo_env.is_some();
    let reference_redis = typed.reference_redis.is_some() || wish.file.reference.redis_env.is_some();
    let mongo = (section.mongo.is_some() || typed.mongo.is_some() || reference_mongo)
        .then(|| mongo(wish, reference_mongo && section.mongo.is_none() && typed.mongo.is_none(), problems));
    let redis = section.redis.is_some() || typed.redis.is_some() || reference_redis;
    let pools = section.pools.unwrap_or(false);
    if pools && mongo.is_none() && !redis {
        problems.add("probe.pools", "wants a store to try: --mongo-uri or --redis-url");
    }
    let one = |(index, section): (usize, &ProcessSection)| process(index, section, what_for, problems);
    let process = section.process.iter().enumerate().filter_map(one).collect();
    let health = section.health.iter().enumerate();
    let health = health.filter_map(|(index, section)| health_of(wish, index, section, problems)).collect();
    let prometheus = section.prometheus.iter().enumerate();
    let prometheus = prometheus.filter_map(|(index, section)| scraped(wish, index, section, problems)).collect();
    Probes { pools, mongo, redis, process, health, prometheus }
}

/// `own`: it is the embedded deployment's.
fn mongo(wish: &Wish, own: bool, problems: &mut Problems<'_>) -> MongoProbe {
    let none = MongoSection::default();
    let section = wish.file.probe.mongo.as_ref().unwrap_or(&none);
    for (path, number) in [("max_pool_size", section.max_pool_size), ("processes", section.processes)] {
        if number == Some(0) {
            problems.add(&format!("probe.mongo.{path}"), "should be 1 or more");
        }
    }
    for (index, query) in section.query.iter().enumerate() {
        let path = format!("probe.mongo.query[{index}]");
        if query.collection.is_empty() || query.filter.is_empty() && query.sort.is_empty() {
            problems.add(&path, "should have a collection, and a filter or a sort");
        }
    }
    let embedded = wish.file.target.url.is_none();
    let librechat = embedded || wish.file.target.profile == Some(Profile::Librechat);
    let mut queries: Vec<QuerySection> = if librechat { librechat_queries() } else { Vec::new() };
    queries.extend(section.query.iter().cloned());
    if section.audit == Some(false) {
        queries.clear();
    }
    let pool = wish.file.reference.mongo_pool.unwrap_or(DRIVER_POOL);
    MongoProbe {
        database: section.database.clone(),
        max_connections: if own {
            Some(pool)
        } else {
            section.max_pool_size.map(|size| size.saturating_mul(section.processes.unwrap_or(1)))
        },
        app_name: section.app_name.clone().or_else(|| own.then(|| REFERENCE_APP.to_owned())),
        queries,
    }
}

fn process(index: usize, section: &ProcessSection, what_for: For, problems: &mut Problems<'_>) -> Option<ProcessProbe> {
    let path = format!("probe.process[{index}]");
    let named = |name: String| section.name.clone().unwrap_or(name);
    match (section.pid, section.port, &section.cgroup) {
        (Some(pid), None, None) => {
            if what_for == For::Running && !Path::new(&format!("/proc/{pid}")).exists() {
                problems.add(&path, format!("there is no process {pid} on this machine (--watch-pid)"));
            }
            Some(ProcessProbe { name: named(format!("pid {pid}")), which: Which::Pid(pid) })
        }
        (None, Some(port), None) => {
            Some(ProcessProbe { name: named(format!("port {port}")), which: Which::Port(port) })
        }
        (None, None, Some(group)) => {
            let root = section.cgroup_root.clone().unwrap_or_else(|| PathBuf::from(CGROUPS));
            let relative = group.strip_prefix(&root).unwrap_or(group);
            let folder = root.join(relative.strip_prefix("/").unwrap_or(relative));
            if what_for == For::Running && !folder.join("cgroup.procs").exists() {
                let wrong = format!("{} is no control group of version 2 (--watch-cgroup)", folder.display());
                problems.add(&path, wrong);
            }
            let name = named(group.display().to_string());
            Some(ProcessProbe { name, which: Which::Cgroup(folder) })
        }
        _ => {
            problems.add(&path, "say one of pid, port and cgroup");
            None
        }
    }
}

fn health_of(wish: &Wish, index: usize, section: &HealthSection, problems: &mut Problems<'_>) -> Option<String> {
    let path = format!("probe.health[{index}]");
    match (&section.url, &section.path) {
        (Some(_), Some(_)) => {
            problems.add(&path, "say one of url and path");
            None
        }
        (Some(url), None) => {
            let url = problems.take(&format!("{path}.url"), plain_url(url))?;
            problems.take(&format!("{path}.url"), consent(&url, &wish.file.authorized));
            Some(url.to_string())
        }
        (None, given) => {
            let given = given.as_deref().unwrap_or("/health");
            if !given.starts_with('/') || given.starts_with("//") {
                problems.add(&format!("{path}.path"), "should begin with one /");
            }
            Some(given.to_owned())
        }
    }
}

fn scraped(
    wish: &Wish,
    index: usize,
    section: &PrometheusSection,
    problems: &mut Problems<'_>,
) -> Option<PrometheusProbe> {
    let typed = wish.file.probe.prometheus.len() - index <= wish.scraped;
    let path = if typed { "--scrape".to_owned() } else { format!("probe.prometheus[{index}].url") };
    let url = problems.take(&path, plain_url(&section.url))?;
    problems.take(&path, consent(&url, &wish.file.authorized));
    Some(PrometheusProbe { url, preset: section.preset, series: section.series.clone() })
}
