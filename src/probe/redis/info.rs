//! What Redis tells as text, read without I/O.

use std::collections::{BTreeMap, HashMap};

use crate::probe::APP_NAME;
use crate::secret::escaped;

/// `INFO`: names and values, of all sections.
#[derive(Debug, Clone, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// Keys of all databases.
    pub(super) fn keys(&self) -> f64 {
        let databases =
            self.0.iter().filter(|(name, _)| name.strip_prefix("db").is_some_and(|rest| rest.parse::<u32>().is_ok()));
        databases.filter_map(|(_, value)| field(value, "keys")).sum()
    }

    /// Calls and microseconds by command.
    pub(super) fn commands(&self) -> BTreeMap<String, (f64, f64)> {
        let stats = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("cmdstat_")?, value)));
        let both =
            stats.filter_map(|(name, value)| Some((name.to_owned(), (field(value, "calls")?, field(value, "usec")?))));
        both.collect()
    }
}

/// A number of `calls=3,usec=12`.
fn field(list: &str, name: &str) -> Option<f64> {
    let mut pairs = list.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| *known == name)?.1.parse().ok()
}

/// What `CLIENT LIST` tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Clients {
    /// By `NAME @ HOST`, without ours, most connections first.
    pub(super) groups: Vec<(String, Crowd)>,
    /// All of them.
    pub(super) all: Crowd,
}

/// Some clients together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Crowd {
    pub(super) connections: f64,
    /// Bytes that wait in their output buffers.
    pub(super) output: f64,
    /// Those in a blocking command.
    pub(super) blocked: f64,
}

impl Crowd {
    fn add(&mut self, output: f64, is_blocked: bool) {
        self.connections += 1.0;
        self.output += output;
        self.blocked += f64::from(u8::from(is_blocked));
    }
}

impl Clients {
    pub(super) fn parse(text: &str) -> Self {
        let (mut groups, mut told) = (BTreeMap::<String, Crowd>::new(), Self::default());
        for line in text.lines() {
            let fields: HashMap<&str, &str> = line.split(' ').filter_map(|pair| pair.split_once('=')).collect();
            let of = |name: &str| fields.get(name).copied().unwrap_or_default();
            if of("name").starts_with(APP_NAME) {
                continue;
            }
            let (output, is_blocked) = (of("omem").parse().unwrap_or(0.0), of("flags").contains('b'));
            told.all.add(output, is_blocked);
            let named = [of("name"), of("lib-name"), "unnamed"].into_iter().find(|name| !name.is_empty());
            let host = of("addr").rsplit_once(':').map_or("", |(host, _)| host);
            let name = escaped(&format!("{} @ {host}", named.unwrap_or_default()), 120);
            groups.entry(name).or_default().add(output, is_blocked);
        }
        told.groups = groups.into_iter().collect();
        let most = |one: &(String, Crowd), other: &(String, Crowd)| other.1.connections.total_cmp(&one.1.connections);
        told.groups.sort_by(|one, other| most(one, other).then_with(|| one.0.cmp(&other.0)));
        told
    }
}

/// A node of a Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterNode {
    pub(super) id: String,
    /// `host:port`.
    pub(super) address: String,
    pub(super) is_master: bool,
    /// Whether the others reach it.
    pub(super) is_up: bool,
    /// Its slots, as they are written.
    pub(super) slots: Vec<String>,
    /// Slots that are moving away, or to it.
    pub(super) moving: Vec<String>,
}

/// `CLUSTER NODES`.
pub(super) fn cluster_nodes(text: &str) -> Vec<ClusterNode> {
    let node = |line: &str| {
        let mut parts = line.split_whitespace();
        let (id, address, flags) = (parts.next()?, parts.next()?, parts.next()?);
        // host:port@bus,hostname
        let address = address.split(['@', ',']).next()?;
        let (moving, slots) = parts.skip(5).map(str::to_owned).partition(|part: &String| part.starts_with('['));
        Some(ClusterNode {
            id: id.to_owned(),
            address: address.to_owned(),
            is_master: flags.contains("master"),
            is_up: !["fail", "noaddr", "handshake"].iter().any(|flag| flags.split(',').any(|known| known == *flag)),
            slots,
            moving,
        })
    };
    text.lines().filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\n\
             db5:keys=4,expires=0\r\ndbsize:9\r\ncmdstat_xadd:calls=10,usec=55,usec_per_call=5.50\r\n\
             ",
        );
        assert_eq!((info.text("redis_mode"), info.keys()), (Some("cluster"), 7.0));
        assert_eq!(info.commands()["xadd"], (10.0, 55.0));
    }

    #[test]
    fn clients_are_counted_by_name_and_host_without_ours() {
        let line = |addr: &str, name: &str, flags: &str, omem: u32| {
            format!("id=3 addr={addr} laddr=127.0.0.1:6379 fd=8 name={name} age=0 flags={flags} omem={omem} cmd=ping\n")
        };
        let text = line("10.0.0.1:5", "", "N", 10)
            + &line("10.0.0.1:6", "chat", "b", 0)
            + &line("10.0.0.1:7", "chat", "N", 90)
            + &line("[::1]:7", "capacity-check", "N", 7);
        let clients = Clients::parse(&text);
        let crowd = |connections, output, blocked| Crowd { connections, output, blocked };
        let chat = ("chat @ 10.0.0.1".to_owned(), crowd(2.0, 90.0, 1.0));
        assert_eq!(clients.groups, [chat, ("unnamed @ 10.0.0.1".to_owned(), crowd(1.0, 10.0, 0.0))]);
        assert_eq!(clients.all, crowd(3.0, 100.0, 1.0));
    }

    #[test]
    fn a_cluster_s_nodes_are_read() {
        let nodes = cluster_nodes(
            "07c3 127.0.0.1:30004@31004,host slave e7d1 0 1426238317239 4 connected\n\
             67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922 [42->-e7d1]\n\
             292f 127.0.0.1:30003@31003 master,fail - 0 1426238318243 3 disconnected 10923-16383\n",
        );
        assert_eq!((nodes[0].is_master, nodes[0].address.as_str()), (false, "127.0.0.1:30004"));
        assert_eq!(
            (&nodes[1].slots[..], &nodes[1].moving[..]),
            (&["5461-10922".to_owned()][..], &["[42->-e7d1]".to_owned()][..])
        );
        assert!(nodes[1].is_up && !nodes[2].is_up);
    }
}
