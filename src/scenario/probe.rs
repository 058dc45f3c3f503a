//! What is watched beside the users, resolved. Connection strings and tokens are no part of it.

use std::path::PathBuf;

use serde::Serialize;
use url::Url;

use super::file::{Preset, QuerySection};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Probes {
    /// Whether pools are tried after the run.
    pub pools: bool,
    /// The deployment's MongoDB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mongo: Option<MongoProbe>,
    /// Whether the deployment's Redis is watched.
    pub redis: bool,
    /// Processes and control groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub process: Vec<ProcessProbe>,
    /// Cheap paths: whole URLs, or paths of the target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<String>,
    /// Endpoints of Prometheus metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prometheus: Vec<PrometheusProbe>,
}

/// The deployment's MongoDB.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MongoProbe {
    /// The database, where it is named.
    pub database: Option<String>,
    /// Connections that the whole deployment may open, where the scenario says it.
    pub max_connections: Option<u32>,
    /// Whose connections are the deployment's.
    pub app_name: Option<String>,
    /// Queries that are held against the indexes.
    pub queries: Vec<QuerySection>,
}

/// What of this machine is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessProbe {
    /// How it is called.
    pub name: String,
    /// Which.
    #[serde(flatten)]
    pub which: Which,
}

/// Processes or a control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// A process and its descendants.
    Pid(u32),
    /// Who listens on a port, and their descendants.
    Port(u16),
    /// The folder of a control group.
    Cgroup(PathBuf),
}

/// An endpoint of Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrometheusProbe {
    /// Where it is.
    pub url: Url,
    /// Whose metrics it tells, where that is said.
    pub preset: Option<Preset>,
    /// Further series.
    pub series: Vec<String>,
}

impl Probes {
    /// Whether anything is watched.
    pub fn any(&self) -> bool {
        self.mongo.is_some()
            || self.redis
            || !self.process.is_empty()
            || !self.health.is_empty()
            || !self.prometheus.is_empty()
    }
}

/// The queries of LibreChat that a turn or a page load waits for: as seen on running servers of v0.8.
pub fn librechat_queries() -> Vec<QuerySection> {
    let query = |collection: &str, filter: &[&str], sort: &[&str]| QuerySection {
        collection: collection.to_owned(),
        filter: filter.iter().map(|field| (*field).to_owned()).collect(),
        sort: sort.iter().map(|field| (*field).to_owned()).collect(),
    };
    vec![
        // Eight times a turn while bans are on.
        query("logs", &["key"], &[]),
        query("users", &["email"], &[]),
        query("conversations", &["conversationId", "user"], &[]),
        query("conversations", &["user"], &["-updatedAt"]),
        query("messages", &["messageId", "user"], &[]),
        query("messages", &["conversationId"], &["createdAt"]),
    ]
}
