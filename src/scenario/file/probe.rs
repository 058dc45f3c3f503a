//! What is watched beside the users, as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is watched beside the users. Everything here only reads, but for `pools`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeSection {
    /// After the run, try pools of a ladder of sizes with load of our own on a scratch database and scratch keys.
    pub pools: Option<bool>,
    /// The deployment's MongoDB; `[probe.mongo]` alone takes its connection string from MONGO_URI.
    #[schemars(with = "MongoSection")]
    pub mongo: Option<MongoSection>,
    /// The deployment's Redis; `[probe.redis]` alone takes its URL from REDIS_URI.
    #[schemars(with = "RedisSection")]
    pub redis: Option<RedisSection>,
    /// Processes of the server, on this machine.
    pub process: Vec<ProcessSection>,
    /// Cheap paths that are asked ten times a second.
    pub health: Vec<HealthSection>,
    /// Endpoints that tell Prometheus metrics, asked once a second.
    pub prometheus: Vec<PrometheusSection>,
}

/// The deployment's MongoDB.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MongoSection {
    /// The environment variable that holds the connection string; MONGO_URI without it.
    pub uri_env: Option<String>,
    /// The database whose indexes are looked at; without it the one of the connection string, or LibreChat.
    pub database: Option<String>,
    /// The most connections of one process of the deployment (its MONGO_MAX_POOL_SIZE). Without it that of the
    /// watched processes' environment, or where more were never seen.
    pub max_pool_size: Option<u32>,
    /// Processes of the deployment that have such a pool; 1 without it.
    pub processes: Option<u32>,
    /// The application whose connections are the deployment's; without it the one that has the most.
    pub app_name: Option<String>,
    /// Whether the deployment's queries are held against the indexes before the run; yes with the profile librechat
    /// and the embedded deployment, or where `query` is given.
    pub audit: Option<bool>,
    /// Further queries of the deployment.
    pub query: Vec<QuerySection>,
}

/// A query of the deployment, by its shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuerySection {
    /// The collection.
    pub collection: String,
    /// Fields that are compared for equality.
    pub filter: Vec<String>,
    /// Fields that it sorts by, `-` before those that fall: `["-updatedAt"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sort: Vec<String>,
}

/// The deployment's Redis.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSection {
    /// The environment variable that holds the URL; REDIS_URI without it. `redis://host:port`, `rediss://..`,
    /// `redis+sentinel://host:port/MASTER`; any node of a Cluster.
    pub url_env: Option<String>,
}

/// Processes of the server: one of `pid`, `port` and `cgroup`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessSection {
    /// A process and its descendants.
    pub pid: Option<u32>,
    /// The processes that listen on this TCP port, and their descendants.
    pub port: Option<u16>,
    /// A control group (v2), below `cgroup_root`.
    pub cgroup: Option<PathBuf>,
    /// Where control groups are; /sys/fs/cgroup without it.
    pub cgroup_root: Option<PathBuf>,
    /// How it is called in the report.
    pub name: Option<String>,
}

/// A cheap path: `url`, or `path` of the target.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSection {
    /// The whole URL.
    pub url: Option<String>,
    /// A path of the target; /health without either.
    pub path: Option<String>,
}

/// An endpoint that tells Prometheus metrics.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrometheusSection {
    /// The whole URL, such as `http://127.0.0.1:3080/metrics`.
    pub url: String,
    /// Which series are kept; without it what any preset knows.
    #[schemars(with = "Preset")]
    pub preset: Option<Preset>,
    /// Further series by name, or with labels: `http_requests_total{status="500"}`.
    pub series: Vec<String>,
    /// The environment variable that holds the bearer token. For an address of the target it is METRICS_SECRET
    /// without it, and none elsewhere.
    pub bearer_env: Option<String>,
}

/// Whose metrics an endpoint tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// LibreChat, and the reference deployment.
    Librechat,
    /// prom-client's defaults of a Node process, and the node exporter's of a machine.
    Node,
    /// The MongoDB exporter.
    Mongodb,
    /// The Redis exporter.
    Redis,
    /// The nginx exporter.
    Nginx,
}
