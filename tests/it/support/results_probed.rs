//! What probes might have seen beside the users of a simulated run: 50 from 0:20 on, 100 from 2:42 to 4:42.

use capacity_check::record::{
    EventKind, Gauge, IndexAudit, IndexFinding, IndexProblem, LimitSource, PoolStudy, PoolTrial, Probe, Smallest,
    Watched,
};
use capacity_check::result::{Balance, Checkout, Growth, Probes, Role, SizingRow, Used};

const MEBI: f64 = 1_048_576.0;

/// The seconds that have a point.
fn seconds() -> impl Iterator<Item = u32> {
    (4..=280).step_by(4)
}

/// The users of a second, as a share of the most, with a slow wave.
fn load(t_s: u32) -> f64 {
    let since = |from: u32| f64::from(t_s.saturating_sub(from).min(20)) / 20.0;
    (since(0) + since(142)) / 2.0 * (1.0 + 0.1 * (f64::from(t_s) / 9.0).sin())
}

pub(super) fn probes() -> Probes {
    Probes {
        watched: vec![mongo(), redis(), workers(), proxy(), cgroup(), health(), prometheus()],
        sizing: vec![sizing(50, 1.0), sizing(100, 2.0)],
        checkout: vec![checkout(50, true, 900.0), checkout(100, false, 14_200.0)],
        balance: vec![balance(50, 0.41), balance(100, 0.92)],
        growth: vec![growth("node 4711", 18_400.0, 15_900.0), growth("nginx 4650", 12.0, -96.0)],
        index_audit: Some(audit()),
        mongo_pools: Some(mongo_pools()),
        redis_pools: Some(redis_pools()),
    }
}

fn mongo() -> Watched {
    let mut mongo = Watched::new(Probe::Mongo, "127.0.0.1:27017");
    mongo.fact("version", "6.0.5");
    mongo.fact("topology", "replica set rs0, 1 member");
    for t_s in seconds().filter(|t_s| !(65..72).contains(t_s)) {
        let load = load(t_s);
        let busy = (load * 6.0).round().min(5.0);
        mongo.put(t_s, Gauge::PoolBusy, None, busy);
        mongo.put(t_s, Gauge::PoolOpen, None, (busy + 2.0).min(5.0));
        mongo.put(t_s, Gauge::Operations, None, (load * 900.0).round());
        mongo.put(t_s, Gauge::ReadLatency, None, (400.0 + load * 900.0).round());
        mongo.put(t_s, Gauge::Connections, None, (24.0 + load * 40.0).round());
        mongo.put(t_s, Gauge::ReadTickets, None, (load * 8.0).round());
    }
    mongo.limit(&Gauge::PoolBusy, None, 5.0, LimitSource::Environment);
    mongo.limit(&Gauge::PoolOpen, None, 5.0, LimitSource::Environment);
    mongo.limit(&Gauge::Connections, None, 838_860.0, LimitSource::Server);
    mongo.limit(&Gauge::ReadTickets, None, 128.0, LimitSource::Server);
    mongo.blind(65.0, "127.0.0.1:27017: connection refused");
    mongo.seen(72.0);
    mongo.event(168.0, EventKind::PoolFull, "5 of 5 connections were busy for 12 s");
    mongo.miss("$currentOp", "not authorized on admin; grant the role clusterMonitor to the probe's user");
    mongo
}

fn redis() -> Watched {
    let mut redis = Watched::new(Probe::Redis, "127.0.0.1:6379");
    redis.fact("version", "7.0.15");
    redis.fact("role", "master");
    for t_s in seconds() {
        let load = load(t_s);
        redis.put(t_s, Gauge::Connections, None, (12.0 + load * 170.0).round());
        redis.put(t_s, Gauge::Memory, None, ((24.0 + load * 80.0) * MEBI).round());
        redis.put(t_s, Gauge::Operations, None, (load * 4_200.0).round());
        for share in [0.8, 1.0, 2.4] {
            redis.put(t_s, Gauge::Ping, None, (180.0 + load * 400.0 * share).round());
        }
    }
    redis.limit(&Gauge::Connections, None, 200.0, LimitSource::Server);
    redis.limit(&Gauge::Memory, None, 256.0 * MEBI, LimitSource::Scenario);
    redis.event(96.0, EventKind::Failover, "127.0.0.1:6379 after 127.0.0.1:6380");
    redis.event(188.0, EventKind::MaxClients, "3 connections");
    redis.event(204.0, EventKind::MaxClients, "7 connections");
    redis
}

fn workers() -> Watched {
    let mut node = Watched::new(Probe::Process, "node");
    node.fact("command", "node api/server/index.js");
    for t_s in seconds() {
        let load = load(t_s);
        for (worker, share) in [("4711", 0.92), ("4712", 0.36)] {
            node.put(t_s, Gauge::Cpu, Some(worker), (load * share * 1_000.0).round() / 1_000.0);
            let memory = 140.0 + load * 90.0 * share + f64::from(t_s) / 20.0;
            node.put(t_s, Gauge::Memory, Some(worker), (memory * MEBI).round());
            node.put(t_s, Gauge::Descriptors, Some(worker), (30.0 + load * 220.0 * share).round());
        }
        node.put(t_s, Gauge::ListenQueue, None, (load * 12.0).round());
    }
    for worker in ["4711", "4712"] {
        node.limit(&Gauge::Descriptors, Some(worker), 1_024.0, LimitSource::Server);
    }
    node.limit(&Gauge::ListenQueue, None, 511.0, LimitSource::Server);
    node
}

fn proxy() -> Watched {
    let mut nginx = Watched::new(Probe::Process, "nginx 4650");
    for t_s in seconds().filter(|t_s| *t_s <= 240) {
        nginx.put(t_s, Gauge::Cpu, None, (load(t_s) * 60.0).round() / 1_000.0);
        nginx.put(t_s, Gauge::Memory, None, 9.0 * MEBI);
    }
    nginx.event(242.0, EventKind::Gone, "");
    nginx.blind(242.0, "the process has ended");
    nginx
}

fn cgroup() -> Watched {
    let mut group = Watched::new(Probe::Cgroup, "/sys/fs/cgroup/chat.slice");
    for t_s in seconds() {
        let load = load(t_s);
        group.put(t_s, Gauge::Cpu, None, (load * 1_340.0).round() / 1_000.0);
        group.put(t_s, Gauge::Memory, None, ((310.0 + load * 160.0) * MEBI).round());
        group.put(t_s, Gauge::Throttled, None, (load * 40.0).round() / 1_000.0);
    }
    group.limit(&Gauge::Cpu, None, 2.0, LimitSource::Server);
    group.limit(&Gauge::Memory, None, 512.0 * MEBI, LimitSource::Server);
    group
}

fn health() -> Watched {
    let mut health = Watched::new(Probe::Health, "/health");
    for t_s in seconds() {
        for share in [0.5, 3.0] {
            health.put(t_s, Gauge::HealthLatency, None, (2_000.0 + load(t_s) * 9_000.0 * share).round());
        }
        health.put(t_s, Gauge::HealthFailures, None, 0.0);
    }
    health
}

fn prometheus() -> Watched {
    let mut endpoint = Watched::new(Probe::Prometheus, "http://127.0.0.1:9464/metrics");
    for t_s in seconds() {
        let load = load(t_s);
        endpoint.put(t_s, Gauge::CheckoutWait, None, (load * 9_000.0).round());
        endpoint.put(t_s, named("nodejs_eventloop_lag_seconds"), None, (load * 30.0).round() / 1_000.0);
        endpoint.put(t_s, named("nodejs_active_handles"), None, (40.0 + load * 300.0).round());
    }
    endpoint.miss("mongodb_driver_pool_size", "the endpoint tells no such metric");
    endpoint
}

fn named(name: &str) -> Gauge {
    Gauge::Named(name.to_owned())
}

fn sizing(users: u32, times: f64) -> SizingRow {
    let used = |mean: f64| Some(Used { mean, max: mean * 1.25 });
    SizingRow {
        users,
        rate: None,
        role: Role::Step,
        cpu_cores: used(0.64 * times),
        memory_bytes: used((300.0 + 40.0 * times) * MEBI),
        mongo_connections: used(20.0 * times),
        mongo_busy: used(2.0 * times),
        redis_memory_bytes: used((24.0 + 36.0 * times) * MEBI),
        redis_clients: used(80.0 * times),
    }
}

fn checkout(users: u32, told: bool, mean_us: f64) -> Checkout {
    let busy = f64::from(users) / 22.0;
    Checkout {
        users,
        rate: None,
        role: Role::Step,
        mean_us,
        told,
        busy: Some(busy),
        limit: Some(5.0),
        operations_per_s: f64::from(users) * 8.8,
    }
}

fn balance(users: u32, most_cores: f64) -> Balance {
    Balance {
        users,
        rate: None,
        role: Role::Step,
        workers: 2,
        busiest: "node 4711".to_owned(),
        most_cores,
        mean_cores: most_cores / 1.4,
    }
}

fn growth(of: &str, bytes_per_turn: f64, lower: f64) -> Growth {
    Growth { of: of.to_owned(), bytes_per_turn, lower, upper: bytes_per_turn * 2.0 - lower, turns: 624 }
}

fn audit() -> IndexAudit {
    let finding = |query: &str, problem, documents, create_index: &str| IndexFinding {
        query: query.to_owned(),
        problem,
        documents,
        create_index: create_index.to_owned(),
    };
    IndexAudit {
        database: "LibreChat".to_owned(),
        checked: 14,
        empty: vec!["toolcalls".to_owned()],
        findings: vec![
            finding(
                "logs.find({ key })",
                IndexProblem::CollectionScan,
                48_210,
                "db.getSiblingDB(\"LibreChat\").logs.createIndex({ key: 1 })",
            ),
            finding(
                "messages.find({ conversationId }).sort({ createdAt })",
                IndexProblem::MemorySort,
                912_004,
                "db.getSiblingDB(\"LibreChat\").messages.createIndex({ conversationId: 1, createdAt: 1 })",
            ),
        ],
        failed: None,
    }
}

/// A size under a load of which it has `room` times as many connections as operations at once.
fn trial(size: u32, multiple: f64, pipeline: u32, operations_per_s: f64, room: f64) -> PoolTrial {
    PoolTrial {
        size,
        multiple,
        pipeline,
        operations: (operations_per_s * multiple * 10.0) as u64,
        operations_per_s: operations_per_s * multiple,
        wait_p50_us: (20.0 / room) as u64,
        wait_p99_us: (9_000.0 / (room * room)) as u64,
        latency_p50_us: 900,
        latency_p99_us: 4_100,
        errors: u64::from(room < 1.0) * 3,
    }
}

fn mongo_pools() -> PoolStudy {
    let of = |multiple: f64| [2, 5, 10].map(|size| trial(size, multiple, 0, 880.0, f64::from(size) / 2.1 / multiple));
    PoolStudy {
        operations_per_s: 880.0,
        operation_us: 2_400.0,
        concurrency: 2.112,
        trials: [1.0, 2.0, 4.0].into_iter().flat_map(of).collect(),
        smallest: vec![
            Smallest { multiple: 1.0, size: Some(5) },
            Smallest { multiple: 2.0, size: Some(10) },
            Smallest { multiple: 4.0, size: None },
        ],
        wait_limit_us: 5_000,
        headroom: Some(838_796.0),
        refused: None,
        left_behind: Some("collection capacity_check_pool: not authorized to drop it".to_owned()),
    }
}

fn redis_pools() -> PoolStudy {
    let of =
        |pipeline: u32| [1, 4].map(|size| trial(size, 1.0, pipeline, 4_100.0, f64::from(size) * f64::from(pipeline)));
    PoolStudy {
        operations_per_s: 4_100.0,
        operation_us: 190.0,
        concurrency: 0.779,
        trials: [1, 16].into_iter().flat_map(of).collect(),
        smallest: vec![Smallest { multiple: 1.0, size: Some(4) }],
        wait_limit_us: 1_000,
        headroom: Some(8.0),
        refused: Some("2 times the load: maxclients of 200 leaves room for 8 connections only".to_owned()),
        left_behind: None,
    }
}
