//! Redis, watched from outside: a server, a Sentinel's master with its replicas, or a Cluster. One connection a node,
//! found again after a failover.

mod info;
mod node;
mod pools;
mod topology;

use std::collections::BTreeMap;

use super::{Moment, ProbeError};
use crate::record::{EventKind, Gauge, Watched};
use crate::secret::{Secret, escaped};
use node::Node;
pub use pools::redis_pools;
use topology::{Known, Member, Topology};

/// How long after an event of a kind the next one of the same kind is part of it, in seconds.
const SAME: f64 = 10.0;

/// The watcher of a Redis.
pub(super) struct Redis {
    url: Secret,
    topology: Option<Topology>,
    nodes: BTreeMap<String, Node>,
    /// The second of the last whole look.
    looked: Option<u32>,
    /// When an event of a kind was told last.
    told: BTreeMap<EventKind, f64>,
    /// Who led, and whose the slots were, at the last look: whoever is asked next.
    known: Known,
    denied: Vec<&'static str>,
}

impl Redis {
    pub(super) fn new(url: Secret) -> Self {
        Self {
            url,
            topology: None,
            nodes: BTreeMap::new(),
            looked: None,
            told: BTreeMap::new(),
            known: Known::default(),
            denied: Vec::new(),
        }
    }

    /// A round trip to every node, and once a second everything else.
    pub(super) async fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        self.pings(moment, out);
        if self.looked == Some(moment.second) {
            // What went wrong in this second was told.
            return if self.nodes.is_empty() { Err(ProbeError::failed("no node of it answers")) } else { Ok(()) };
        }
        self.looked = Some(moment.second);
        let members = self.members(moment, out).await?;
        self.meet(&members, moment, out).await?;
        let several = members.len() > 1;
        let mut total = BTreeMap::new();
        let mut failed = Vec::new();
        for member in &members {
            let Some(node) = self.nodes.get_mut(&member.address) else { continue };
            let of = several.then_some(member.address.as_str());
            match node.look(moment, member.is_master, of, &mut total, &mut self.denied, out).await {
                Ok(happened) => {
                    for (kind, detail) in happened {
                        self.tell(kind, moment, &detail, out);
                    }
                }
                Err(error) => failed.push((member.address.clone(), ProbeError::redis(&error, &self.url))),
            }
        }
        for (address, error) in failed {
            self.nodes.remove(&address);
            if !several {
                self.topology = None;
                return Err(error);
            }
            out.event(moment.at_s, EventKind::Gone, format!("{address}: {error}"));
        }
        for (gauge, value) in total {
            out.put(moment.second, gauge, None, value);
        }
        if several {
            Self::limit_of_the_whole(&members, out);
        }
        if self.nodes.is_empty() { Err(ProbeError::failed("no node of it answers")) } else { Ok(()) }
    }

    /// Where one server takes all writes its limits are those of the whole; limits of a Cluster's nodes do not sum up.
    fn limit_of_the_whole(members: &[Member], out: &mut Watched) {
        let mut masters = members.iter().filter(|member| member.is_master);
        let (Some(master), None) = (masters.next(), masters.next()) else { return };
        for gauge in [Gauge::Connections, Gauge::Memory] {
            if let Some(limit) = out.find(&gauge, Some(&master.address)).and_then(|series| series.limit) {
                out.limit(&gauge, None, limit.value, limit.source);
            }
        }
    }

    /// Takes the round trips that have ended, and begins the next.
    fn pings(&mut self, moment: Moment, out: &mut Watched) {
        let several = self.nodes.len() > 1;
        for (address, node) in &self.nodes {
            for (at, micros) in node.pongs() {
                let second = moment.at(at).second;
                out.put(second, Gauge::Ping, None, micros);
                if several {
                    out.put(second, Gauge::Ping, Some(address), micros);
                }
            }
            node.ping();
        }
    }

    /// Who is there now. A change of it is an event.
    async fn members(&mut self, moment: Moment, out: &mut Watched) -> Result<Vec<Member>, ProbeError> {
        let topology = match &mut self.topology {
            Some(topology) => topology,
            None => self.topology.insert(Topology::find(&self.url, out).await?),
        };
        match topology.members(&self.url, &mut self.known).await {
            Ok((members, happened)) => {
                for (kind, detail) in happened {
                    out.event(moment.at_s, kind, escaped(&detail, 300));
                }
                Ok(members)
            }
            Err(error) => {
                // Another seed may know more at the next look.
                self.topology = None;
                self.nodes.clear();
                Err(error)
            }
        }
    }

    /// Connects to who is new, and forgets who has left.
    async fn meet(&mut self, members: &[Member], moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        self.nodes.retain(|address, _| members.iter().any(|member| member.address == *address));
        let mut last = None;
        for member in members.iter().filter(|member| member.is_up) {
            if self.nodes.contains_key(&member.address) {
                continue;
            }
            match Node::connect(&self.url, &member.address).await {
                Ok(node) => {
                    self.nodes.insert(member.address.clone(), node);
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if self.nodes.is_empty() => Err(error),
            Some(error) => {
                self.tell(EventKind::Gone, moment, &error.to_string(), out);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// An event, unless it belongs to one that was told just now.
    fn tell(&mut self, kind: EventKind, moment: Moment, detail: &str, out: &mut Watched) {
        let before = self.told.insert(kind, moment.at_s);
        if before.is_none_or(|before| moment.at_s - before > SAME) {
            out.event(moment.at_s, kind, escaped(detail, 300));
        }
    }

    /// Which commands took the server's time.
    pub(super) async fn last_words(&mut self, out: &mut Watched) {
        let mut all: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for node in self.nodes.values() {
            for (command, calls, micros) in node.commands() {
                let sum = all.entry(command).or_default();
                *sum = (sum.0 + calls, sum.1 + micros);
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|one, other| other.1.1.total_cmp(&one.1.1));
        let told = all.iter().take(6).map(|(command, (calls, micros))| {
            let name = escaped(command, 40);
            format!("{name} {calls:.0} x {:.1} µs", micros / calls.max(1.0))
        });
        let told = told.collect::<Vec<_>>().join(", ");
        if !told.is_empty() {
            out.fact("commands", told);
        }
    }
}

/// The settings of our connections.
fn connecting() -> redis::AsyncConnectionConfig {
    redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(std::time::Duration::from_secs(2)))
        .set_response_timeout(Some(std::time::Duration::from_secs(2)))
}

/// A connection to a URL, named so that it can be told from the deployment's.
async fn connect(url: &str, name: &str) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&connecting()).await?;
    // Who may not have a name goes on without one, and is counted among the deployment's.
    let _: redis::RedisResult<()> = redis::cmd("CLIENT").arg("SETNAME").arg(name).query_async(&mut connection).await;
    Ok(connection)
}
