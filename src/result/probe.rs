//! What probes have found, in a result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grade::Role;
use crate::record::{IndexAudit, PoolStudy, Watched};

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
    /// Concurrent users; of an open load the most that there may be.
    pub users: u32,
    /// Turns a second that an open load was to have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// What the tier is for.
    #[serde(skip_serializing_if = "Role::is_step", default)]
    pub role: Role,
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
    /// Concurrent users; of an open load the most that there may be.
    pub users: u32,
    /// Turns a second that an open load was to have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// What the tier is for.
    #[serde(skip_serializing_if = "Role::is_step", default)]
    pub role: Role,
    /// The mean wait in microseconds.
    pub mean_us: f64,
    /// Whether the deployment told it; otherwise it is inferred by Little's law from turns that were in the deployment
    /// and connections that were busy: an estimate, too large where turns do other things, too small where a turn waits
    /// for several connections at once.
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
    /// Concurrent users; of an open load the most that there may be.
    pub users: u32,
    /// Turns a second that an open load was to have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// What the tier is for.
    #[serde(skip_serializing_if = "Role::is_step", default)]
    pub role: Role,
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
/// that neither a jump nor a collection of garbage decides. The interval allows for each block resembling the one before;
/// of memory that wanders without end it still says growth in some 15 of 100 cases instead of 5.
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
