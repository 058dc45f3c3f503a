//! What probes have found, in a result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::Watched;

/// Everything that was seen beside the users.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probes {
    /// What was watched, each with its series on the run's clock.
    pub watched: Vec<Watched>,
    /// What each tier needed, as operators count it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sizing: Vec<SizingRow>,
    /// Waiting for a database connection, by tier.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub checkout: Vec<Checkout>,
    /// Whether workers share the work evenly, by tier.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub balance: Vec<Balance>,
    /// How memory grows with turns.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub growth: Vec<Growth>,
    /// Whether the deployment's queries have the indexes that they need.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index_audit: Option<IndexAudit>,
    /// How large a pool of database connections should be, as it was tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mongo_pools: Option<PoolStudy>,
    /// How many Redis connections should share the commands, as it was tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redis_pools: Option<PoolStudy>,
}

/// What one tier needed, over its steady phase: the mean, and the most of any second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SizingRow {
    /// Concurrent users.
    pub users: u32,
    /// Cores that the watched processes (or their control group) used.
    pub cpu_cores: Option<Used>,
    /// Their resident memory, in bytes.
    pub memory_bytes: Option<Used>,
    /// Connections of the deployment to MongoDB; where these cannot be told apart, all of the server.
    pub mongo_connections: Option<Used>,
    /// Of them, those in use.
    pub mongo_busy: Option<Used>,
    /// Memory of Redis, in bytes.
    pub redis_memory_bytes: Option<Used>,
    /// Clients of Redis.
    pub redis_clients: Option<Used>,
}

/// A mean and a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    /// The mean over the steady phase.
    pub mean: f64,
    /// The most of any second of it.
    pub max: f64,
}

/// How long an operation waited for a connection in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checkout {
    /// Concurrent users.
    pub users: u32,
    /// The mean wait in microseconds.
    pub mean_us: f64,
    /// Whether the deployment told it; otherwise it is inferred by Little's law from turns that were in the deployment
    /// and connections that were busy, and can only be too large.
    pub told: bool,
    /// Connections in use, on average.
    pub busy: Option<f64>,
    /// The most that there can be.
    pub limit: Option<f64>,
    /// Operations a second.
    pub operations_per_s: f64,
}

/// How evenly the workers of a deployment shared the CPU time of one tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Balance {
    /// Concurrent users.
    pub users: u32,
    /// Workers that were compared.
    pub workers: u32,
    /// The busiest one.
    pub busiest: String,
    /// Its cores.
    pub most_cores: f64,
    /// The mean of all, in cores.
    pub mean_cores: f64,
}

/// Growth of memory with turns: the median of all slopes between two moments of one steady phase (Theil and Sen), so
/// that neither a jump nor a collection of garbage decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// Of what.
    pub of: String,
    /// Bytes a turn.
    pub bytes_per_turn: f64,
    /// With 95 % confidence not below this.
    pub lower: f64,
    /// With 95 % confidence not above this.
    pub upper: f64,
    /// Turns over which it was watched.
    pub turns: u64,
}

/// The queries of a deployment against the indexes of its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexAudit {
    /// The database.
    pub database: String,
    /// Shapes of queries that were explained.
    pub checked: u32,
    /// Of them, those whose collection is empty or missing, which nothing can be said of.
    pub empty: Vec<String>,
    /// What is missing.
    pub findings: Vec<IndexFinding>,
    /// Why it could not be done, if so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failed: Option<String>,
}

/// What is wrong with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IndexProblem {
    /// It reads the whole collection.
    CollectionScan,
    /// It sorts in memory.
    MemorySort,
}

/// A query that wants an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexFinding {
    /// The query, such as `logs.find({ key })`.
    pub query: String,
    /// What is wrong with it.
    pub problem: IndexProblem,
    /// Documents of the collection, about.
    pub documents: u64,
    /// The command for mongosh that mends it.
    pub create_index: String,
}

/// Pools of a ladder of sizes, tried with load of our own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStudy {
    /// Operations a second that the run measured.
    pub operations_per_s: f64,
    /// How long one of them took, in microseconds.
    pub operation_us: f64,
    /// Their product by Little's law: operations at once.
    pub concurrency: f64,
    /// What was tried.
    pub trials: Vec<PoolTrial>,
    /// The smallest size by multiple of the load that kept the wait's 99th percentile below `wait_limit_us`.
    pub smallest: Vec<Smallest>,
    /// The limit of the wait, in microseconds.
    pub wait_limit_us: u64,
    /// The most connections that the server still had to give, or that it allows.
    pub headroom: Option<f64>,
    /// Why it was not done, or not all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// What could not be taken away again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_behind: Option<String>,
}

/// A size that was enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Smallest {
    /// The load, as a multiple of what the run measured.
    pub multiple: f64,
    /// Connections; `None`: even the largest that was tried was not enough.
    pub size: Option<u32>,
}

/// One size under one load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolTrial {
    /// Connections.
    pub size: u32,
    /// The load, as a multiple of what the run measured.
    pub multiple: f64,
    /// Commands that were sent together, for Redis.
    #[serde(default)]
    pub pipeline: u32,
    /// Operations that ended.
    pub operations: u64,
    /// Operations a second.
    pub operations_per_s: f64,
    /// The wait for a connection: the median, in microseconds.
    pub wait_p50_us: u64,
    /// Its 99th percentile.
    pub wait_p99_us: u64,
    /// The operation itself, without the wait: the median.
    pub latency_p50_us: u64,
    /// Its 99th percentile.
    pub latency_p99_us: u64,
    /// Operations that failed.
    pub errors: u64,
}
