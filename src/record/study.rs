//! What was tried or looked up once: indexes, and pools of connections.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
