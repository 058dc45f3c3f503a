//! What MongoDB's commands tell, by the names of 6.0 and of later versions.

use futures_util::TryStreamExt as _;
use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

use crate::probe::{APP_NAME, Moment, Rates};
use crate::record::{Gauge, LimitSource, Watched};
use crate::secret::escaped;

/// `serverStatus` without its long sections.
pub(super) fn server_status() -> Document {
    let mut command = doc! { "serverStatus": 1 };
    for section in ["tcmalloc", "locks", "transactions", "flowControl", "logicalSessionRecordCache", "mirroredReads"] {
        command.insert(section, 0);
    }
    command
}

/// Which server has answered: its host, port and process.
pub(super) fn server(status: &Document) -> String {
    format!("{} {}", status.get_str("host").unwrap_or_default(), number(status, "pid").unwrap_or(0.0))
}

/// A number at a path such as `connections.current`.
pub(super) fn number(document: &Document, path: &str) -> Option<f64> {
    let (folder, name) = match path.rsplit_once('.') {
        Some((folder, name)) => {
            let found = folder.split('.').try_fold(document, |found, part| found.get_document(part).ok())?;
            (found, name)
        }
        None => (document, path),
    };
    match folder.get(name)? {
        Bson::Int32(value) => Some(f64::from(*value)),
        Bson::Int64(value) => Some(*value as f64),
        Bson::Double(value) => Some(*value),
        _ => None,
    }
}

/// Counters that become rates.
const COUNTERS: [(&str, Gauge); 9] = [
    ("opcounters.query", Gauge::Queries),
    ("opcounters.insert", Gauge::Inserts),
    ("opcounters.update", Gauge::Updates),
    ("opcounters.delete", Gauge::Deletes),
    ("opcounters.getmore", Gauge::GetMores),
    ("opcounters.command", Gauge::Commands),
    ("network.bytesIn", Gauge::NetworkIn),
    ("network.bytesOut", Gauge::NetworkOut),
    ("connections.totalCreated", Gauge::ConnectionsCreated),
];

/// Levels as they are, with what they are counted in.
const LEVELS: [(&str, Gauge, f64); 8] = [
    ("connections.current", Gauge::Connections, 1.0),
    ("connections.active", Gauge::ConnectionsActive, 1.0),
    ("globalLock.currentQueue.readers", Gauge::QueuedReaders, 1.0),
    ("globalLock.currentQueue.writers", Gauge::QueuedWriters, 1.0),
    ("metrics.cursor.open.total", Gauge::Cursors, 1.0),
    ("mem.resident", Gauge::Memory, 1_048_576.0),
    ("wiredTiger.cache.bytes currently in the cache", Gauge::CacheUsed, 1.0),
    ("wiredTiger.cache.tracked dirty bytes in the cache", Gauge::CacheDirty, 1.0),
];

/// Sums of time in microseconds, with their counts.
const LATENCIES: [(&str, Gauge); 3] = [
    ("opLatencies.reads", Gauge::ReadLatency),
    ("opLatencies.writes", Gauge::WriteLatency),
    ("opLatencies.commands", Gauge::CommandLatency),
];

/// Takes what `serverStatus` tells.
pub(super) fn record(status: &Document, rates: &mut Rates, moment: Moment, out: &mut Watched) {
    let (at, second) = (moment.at, moment.second);
    for (name, path) in [("version", "version"), ("process", "process")] {
        if let Ok(value) = status.get_str(path) {
            out.fact(name, escaped(value, 100));
        }
    }
    for (path, gauge, unit) in LEVELS {
        if let Some(value) = number(status, path) {
            out.put(second, gauge, None, value * unit);
        }
    }
    let mut operations = None;
    for (path, gauge) in COUNTERS {
        let Some(rate) = number(status, path).and_then(|value| rates.per_second(path, value, at)) else { continue };
        if path.starts_with("opcounters") {
            *operations.get_or_insert(0.0) += rate;
        }
        out.put(second, gauge, None, rate);
    }
    if let Some(operations) = operations {
        out.put(second, Gauge::Operations, None, operations);
    }
    for (path, gauge) in LATENCIES {
        let sum = number(status, &format!("{path}.latency"));
        let count = number(status, &format!("{path}.ops"));
        if let (Some(sum), Some(count)) = (sum, count)
            && let Some(mean) = rates.mean(path, sum, count, at)
        {
            out.put(second, gauge, None, mean);
        }
    }
    let evicted = number(status, "wiredTiger.cache.pages evicted by application threads");
    if let Some(rate) = evicted.and_then(|value| rates.per_second("evicted", value, at)) {
        out.put(second, Gauge::CacheEvicted, None, rate);
    }
    tickets(status, second, out);
    limits(status, out);
}

/// The storage engine's tickets: `queues.execution` since 8.0, `wiredTiger.concurrentTransactions` before.
fn tickets(status: &Document, second: u32, out: &mut Watched) {
    for (kind, gauge) in [("read", Gauge::ReadTickets), ("write", Gauge::WriteTickets)] {
        for place in ["queues.execution", "wiredTiger.concurrentTransactions"] {
            let of = |name: &str| number(status, &format!("{place}.{kind}.{name}"));
            if let (Some(used), Some(total)) = (of("out"), of("totalTickets")) {
                out.put(second, gauge.clone(), None, used);
                out.limit(&gauge, None, total, LimitSource::Server);
                break;
            }
        }
    }
}

fn limits(status: &Document, out: &mut Watched) {
    let current = number(status, "connections.current");
    if let (Some(current), Some(available)) = (current, number(status, "connections.available")) {
        out.limit(&Gauge::Connections, None, current + available, LimitSource::Server);
    }
    if let Some(most) = number(status, "wiredTiger.cache.maximum bytes configured") {
        out.limit(&Gauge::CacheUsed, None, most, LimitSource::Server);
    }
}

/// The primary's name, and how far the last member is behind it, in microseconds.
pub(super) fn replication(set: &Document) -> (Option<String>, Option<f64>) {
    let members: Vec<&Document> =
        set.get_array("members").into_iter().flatten().filter_map(Bson::as_document).collect();
    let optime = |member: &Document| member.get_datetime("optimeDate").ok().map(|date| date.timestamp_millis());
    let in_state = |state: &str| {
        let state = state.to_owned();
        members.iter().filter(move |member| member.get_str("stateStr").is_ok_and(|known| known == state))
    };
    let primary = in_state("PRIMARY").next();
    let name = primary.and_then(|member| member.get_str("name").ok()).map(str::to_owned);
    let ahead = primary.and_then(|member| optime(member));
    let last = in_state("SECONDARY").filter_map(|member| optime(member)).min();
    let lag = ahead.zip(last).map(|(ahead, last)| (ahead - last).max(0) as f64 * 1e3);
    (name, lag)
}

/// Connections of one application on one host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// What the application calls itself, or its driver.
    pub(super) app: String,
    /// `APPLICATION @ HOST`.
    pub(super) name: String,
    /// Connections, without those that watch the server.
    pub(super) open: f64,
    /// Of them, those in the middle of an operation.
    pub(super) busy: f64,
}

/// What members of a replica set call themselves to each other: no deployment.
const INTERNAL: &str = "^(OplogFetcher|NetworkInterfaceTL|MongoDB Internal Client|mongosyncd?$)";

/// Connections of applications: all but ours and the servers' own, or those of one application. Most first.
pub(super) async fn connections(admin: &Database, app: Option<&str>) -> Result<Vec<Group>, mongodb::error::Error> {
    let name = doc! { "$ifNull": ["$appName", "$clientMetadata.driver.name", "unnamed"] };
    // A driver keeps a `hello` open at the server to be told of changes: that is no operation of anybody.
    let is_missing = |field: &str| doc! { "$eq": [{ "$type": format!("$command.{field}") }, "missing"] };
    let works = doc! { "$and": [is_missing("hello"), is_missing("isMaster"), is_missing("ismaster")] };
    let host = doc! { "$regexFind": { "input": { "$ifNull": ["$client", "$client_s"] }, "regex": "^(.*):[0-9]+$" } };
    let one_if = |condition: Bson| doc! { "$sum": { "$cond": [condition, 1, 0] } };
    let pipeline = vec![
        doc! { "$currentOp": { "allUsers": true, "idleConnections": true, "idleSessions": false, "localOps": true } },
        doc! { "$match": { "$or": [{ "client": { "$exists": true } }, { "client_s": { "$exists": true } }] } },
        doc! { "$project": { "app": name, "host": host, "works": works, "active": 1 } },
        doc! { "$match": { "app": match app {
            Some(app) => doc! { "$eq": app },
            None => doc! { "$not": { "$regex": format!("^{APP_NAME}|{INTERNAL}") } },
        } } },
        doc! { "$group": {
            "_id": { "app": "$app", "host": { "$arrayElemAt": ["$host.captures", 0] } },
            "open": one_if("$works".into()),
            "busy": one_if(doc! { "$and": ["$works", "$active"] }.into()),
        } },
        doc! { "$sort": { "open": -1, "_id": 1 } },
    ];
    let mut cursor = admin.aggregate(pipeline).await?;
    let mut groups = Vec::new();
    while let Some(found) = cursor.try_next().await? {
        let id = found.get_document("_id").ok();
        let of = |name: &str| id.and_then(|id| id.get_str(name).ok()).unwrap_or("unknown");
        groups.push(Group {
            app: of("app").to_owned(),
            name: escaped(&format!("{} @ {}", of("app"), of("host")), 120),
            open: number(&found, "open").unwrap_or(0.0),
            busy: number(&found, "busy").unwrap_or(0.0),
        });
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::record::Probe;

    #[test]
    fn tickets_are_known_by_the_names_of_both_versions() {
        let ticket = doc! { "out": 3, "available": 125, "totalTickets": 128 };
        let both = doc! { "read": ticket.clone(), "write": ticket };
        for status in [
            doc! { "wiredTiger": { "concurrentTransactions": both.clone() } },
            doc! { "queues": { "execution": both } },
        ] {
            let mut out = Watched::new(Probe::Mongo, "x");
            record(&status, &mut Rates::default(), Moment { at_s: 1.0, second: 1, at: SECOND, epoch: 0 }, &mut out);
            let read = out.find(&Gauge::ReadTickets, None).expect("a series");
            assert_eq!((read.points[0].mean, read.limit.unwrap().value), (3.0, 128.0));
        }
    }

    #[test]
    fn counters_of_every_width_become_rates() {
        let mut rates = Rates::default();
        let mut out = Watched::new(Probe::Mongo, "x");
        for (second, query, latency) in [(1, 100_i64, 1_000_i64), (3, 300, 21_000)] {
            let status = doc! {
                "opcounters": { "query": query, "insert": 5_i32, "command": 7.0 },
                "opLatencies": { "reads": { "latency": latency, "ops": query } },
            };
            record(
                &status,
                &mut rates,
                Moment { at_s: 1.0, second, at: i64::from(second) * SECOND, epoch: 0 },
                &mut out,
            );
        }
        let last = |gauge| out.find(&gauge, None).unwrap().points.last().unwrap().mean;
        assert_eq!((last(Gauge::Queries), last(Gauge::Operations), last(Gauge::ReadLatency)), (100.0, 100.0, 100.0));
    }

    #[test]
    fn lag_is_that_of_the_last_secondary() {
        let date = mongodb::bson::DateTime::from_millis;
        let member = |name: &str, state: &str, ms| doc! { "name": name, "stateStr": state, "optimeDate": date(ms) };
        let set = doc! { "members": [
            member("a", "PRIMARY", 5_000), member("b", "SECONDARY", 4_900), member("c", "SECONDARY", 3_000),
            member("d", "ARBITER", 0),
        ] };
        assert_eq!(replication(&set), (Some("a".to_owned()), Some(2_000_000.0)));
    }
}
