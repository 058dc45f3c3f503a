//! Who belongs to a Redis: one server, a Sentinel's master with its replicas, or the nodes of a Cluster.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use url::Url;

use super::connect;
use super::info::{ClusterNode, Info, cluster_nodes};
use crate::probe::{APP_NAME, ProbeError};
use crate::record::{EventKind, Watched};
use crate::secret::{Secret, escaped};

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// `host:port`.
    pub(super) address: String,
    pub(super) is_master: bool,
    pub(super) is_up: bool,
}

/// What form a Redis has, and who tells it.
pub(super) enum Topology {
    /// One server, by itself.
    Alone { address: String },
    /// Watched by Sentinels.
    Sentinel { connection: MultiplexedConnection, master: String },
    /// A Cluster; asked through any of its nodes.
    Cluster { connection: MultiplexedConnection },
}

/// How it was at the last look.
#[derive(Debug, Default)]
pub(super) struct Known {
    master: Option<String>,
    nodes: Vec<ClusterNode>,
}

/// A URL's parts besides the address: what every node is connected with.
fn seeds(url: &Secret) -> Vec<Url> {
    let scheme = |text: &str| text.replacen("redis+sentinel://", "redis://", 1);
    url.expose().split(',').filter_map(|seed| scheme(seed.trim()).parse().ok()).collect()
}

/// The URL of a node: the seed's scheme and credentials at its address.
pub(super) fn url_of(url: &Secret, address: &str) -> Option<Secret> {
    let mut node = seeds(url).into_iter().next()?;
    let (host, port) = address.rsplit_once(':')?;
    node.set_host(Some(host)).ok()?;
    node.set_port(Some(port.parse().ok()?)).ok()?;
    if url.expose().starts_with("redis+sentinel://") {
        // There the path is the master's name, not a database.
        node.set_path("");
    }
    Some(Secret::new(node.to_string()))
}

impl Topology {
    /// Asks the seeds, one after the other.
    pub(super) async fn find(url: &Secret, out: &mut Watched) -> Result<Self, ProbeError> {
        let mut last = ProbeError::Url {
            example: "redis://:PASSWORD@HOST:PORT, rediss://.., redis+sentinel://HOST:PORT/MASTER, or a node of a Cluster",
        };
        for seed in seeds(url) {
            match Self::ask(url, &seed, out).await {
                Ok(topology) => return Ok(topology),
                Err(error) => last = ProbeError::redis(&error, url),
            }
        }
        Err(last)
    }

    async fn ask(url: &Secret, seed: &Url, out: &mut Watched) -> redis::RedisResult<Self> {
        let master = seed.path().trim_start_matches('/').to_owned();
        let mut plain = seed.clone();
        if url.expose().starts_with("redis+sentinel://") {
            plain.set_path("");
        }
        let mut connection = connect(plain.as_str(), APP_NAME).await?;
        // `INFO server` may be denied where nothing else is: then it is taken for a server by itself.
        let info: redis::RedisResult<String> = redis::cmd("INFO").arg("server").query_async(&mut connection).await;
        let info = match info {
            Ok(text) => Info::parse(&text),
            Err(error) if error.code() == Some("NOPERM") => Info::default(),
            Err(error) => return Err(error),
        };
        let mode = info.text("redis_mode").unwrap_or("standalone");
        if let Some(version) = info.text("redis_version") {
            out.fact("version", escaped(version, 60));
        }
        out.fact("mode", escaped(mode, 60));
        Ok(match mode {
            "sentinel" => {
                let master = if master.is_empty() { Self::first_master(&mut connection).await? } else { master };
                out.fact("master", escaped(&master, 100));
                Self::Sentinel { connection, master }
            }
            "cluster" => Self::Cluster { connection },
            _ => {
                let host = seed.host_str().unwrap_or_default();
                Self::Alone { address: format!("{host}:{}", seed.port().unwrap_or(6379)) }
            }
        })
    }

    /// The only master that a Sentinel watches, or the first of them.
    async fn first_master(connection: &mut MultiplexedConnection) -> redis::RedisResult<String> {
        let masters: Vec<BTreeMap<String, String>> =
            redis::cmd("SENTINEL").arg("MASTERS").query_async(connection).await?;
        let name = masters.into_iter().find_map(|mut master| master.remove("name"));
        name.ok_or_else(|| (redis::ErrorKind::MasterNameNotFoundBySentinel, "the Sentinel watches no master").into())
    }

    /// Who belongs to it now, and what has changed since the last look.
    pub(super) async fn members(
        &mut self,
        url: &Secret,
        known: &mut Known,
    ) -> Result<(Vec<Member>, Vec<(EventKind, String)>), ProbeError> {
        let said = |error: redis::RedisError| ProbeError::redis(&error, url);
        match self {
            Self::Alone { address } => {
                Ok((vec![Member { address: address.clone(), is_master: true, is_up: true }], Vec::new()))
            }
            Self::Sentinel { connection, master } => {
                sentinel(connection, master, &mut known.master).await.map_err(said)
            }
            Self::Cluster { connection } => {
                let text: String = redis::cmd("CLUSTER").arg("NODES").query_async(connection).await.map_err(said)?;
                let now = cluster_nodes(&text);
                let happened = if known.nodes.is_empty() { Vec::new() } else { changes(&known.nodes, &now) };
                let member = |node: &ClusterNode| Member {
                    address: node.address.clone(),
                    is_master: node.is_master,
                    is_up: node.is_up,
                };
                let members = now.iter().map(member).collect();
                known.nodes = now;
                Ok((members, happened))
            }
        }
    }
}

async fn sentinel(
    connection: &mut MultiplexedConnection,
    master: &str,
    known: &mut Option<String>,
) -> redis::RedisResult<(Vec<Member>, Vec<(EventKind, String)>)> {
    let mut ask = redis::cmd("SENTINEL");
    let (host, port): (String, String) = ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master).query_async(connection).await?;
    let address = format!("{host}:{port}");
    let replicas: Vec<BTreeMap<String, String>> =
        redis::cmd("SENTINEL").arg("REPLICAS").arg(master).query_async(connection).await?;
    let replica = |replica: BTreeMap<String, String>| {
        let flags = replica.get("flags").cloned().unwrap_or_default();
        Some(Member {
            address: format!("{}:{}", replica.get("ip")?, replica.get("port")?),
            is_master: false,
            is_up: !flags.contains("down"),
        })
    };
    let others = replicas.into_iter().filter_map(replica).filter(|member| member.address != address && member.is_up);
    let first = Member { address: address.clone(), is_master: true, is_up: true };
    let members = [first].into_iter().chain(others).collect();
    let before = known.replace(address.clone());
    let moved = before.filter(|before| *before != address);
    Ok((members, moved.into_iter().map(|before| (EventKind::Failover, format!("{before} -> {address}"))).collect()))
}

/// What has changed in a Cluster: who leads, and whose the slots are.
fn changes(before: &[ClusterNode], now: &[ClusterNode]) -> Vec<(EventKind, String)> {
    let mut happened = Vec::new();
    for node in now {
        let Some(was) = before.iter().find(|known| known.id == node.id) else { continue };
        if node.is_master && !was.is_master {
            happened.push((EventKind::Failover, format!("{} leads now", node.address)));
        }
        if !node.moving.is_empty() && was.moving != node.moving {
            happened.push((EventKind::Resharding, format!("{}: {}", node.address, node.moving.join(" "))));
        }
    }
    let slots = |nodes: &[ClusterNode]| -> BTreeMap<String, Vec<String>> {
        nodes.iter().filter(|node| node.is_master).map(|node| (node.address.clone(), node.slots.clone())).collect()
    };
    if happened.is_empty() {
        let (was, is) = (slots(before), slots(now));
        let moved: Vec<&String> =
            is.keys().filter(|address| was.get(*address).is_some_and(|slots| slots != &is[*address])).collect();
        if let [one, ..] = moved[..] {
            happened.push((EventKind::Resharding, format!("{one} has {} now", is[one].join(" "))));
        }
    }
    happened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_keep_the_credentials() {
        let url = Secret::new("redis+sentinel://:hunter2@s:26379/mymaster");
        assert_eq!(url_of(&url, "10.0.0.1:6380").unwrap().expose(), "redis://:hunter2@10.0.0.1:6380");
        let cluster = Secret::new("rediss://ann:x@a:1, rediss://ann:x@b:2");
        assert_eq!(url_of(&cluster, "c:3").unwrap().expose(), "rediss://ann:x@c:3");
    }

    #[test]
    fn a_failover_is_told_from_resharding() {
        let node = |id: &str, is_master, slots: &str, moving: &[&str]| ClusterNode {
            id: id.to_owned(),
            address: format!("{id}:1"),
            is_master,
            is_up: true,
            slots: vec![slots.to_owned()],
            moving: moving.iter().map(|slot| (*slot).to_owned()).collect(),
        };
        let before = [node("a", true, "0-9", &[]), node("b", false, "", &[])];
        let kinds = |now: &[ClusterNode]| changes(&before, now).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(&before), []);
        assert_eq!(kinds(&[node("a", false, "", &[]), node("b", true, "0-9", &[])]), [EventKind::Failover]);
        assert_eq!(kinds(&[node("a", true, "0-9", &["[3->-c]"]), node("b", false, "", &[])]), [EventKind::Resharding]);
        assert_eq!(kinds(&[node("a", true, "0-8", &[]), node("b", false, "", &[])]), [EventKind::Resharding]);
    }
}
