//! Probes against real servers: what they see, what they say of what they may not see, and what happens to it.

use std::time::Duration;

use capacity_check::clock;
use capacity_check::probe::{Wanted, Watching, audit};
use capacity_check::record::{EventKind, Gauge, IndexProblem, LimitSource, Probe, Watched};
use capacity_check::scenario::{MongoProbe, ProcessProbe, PrometheusProbe, Which, librechat_queries};
use capacity_check::secret::Secret;
use mongodb::bson::{Document, doc};

use crate::support::chat::Reference;
use crate::support::stores::{Mongod, Redis, RedisCluster, Sentinel};
use crate::support::{Mock, Server, get, read_request, runtime};

fn mongo(uri: &str) -> Wanted {
    let settings = MongoProbe { max_connections: Some(50), ..MongoProbe::default() };
    Wanted::Mongo { uri: Secret::new(uri), settings, processes: Vec::new() }
}

fn redis(url: &str) -> Wanted {
    Wanted::Redis { url: Secret::new(url) }
}

fn seconds(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

/// What is seen of these while something is done; and the first words.
fn seen(wanted: Vec<Wanted>, act: impl FnOnce() + Send) -> (Vec<Watched>, Vec<Result<String, String>>) {
    runtime().block_on(async {
        let mut watching = Watching::begin(wanted).expect("a thread");
        watching.run_begins(clock::monotonic());
        let said = watching.introductions().await.into_iter().map(|introduction| introduction.said).collect();
        // Elsewhere, for the stores of the tests have runtimes of their own.
        std::thread::scope(|scope| scope.spawn(act).join()).expect("it is done");
        (watching.end().await, said)
    })
}

fn one(wanted: Wanted, act: impl FnOnce() + Send) -> Watched {
    seen(vec![wanted], act).0.pop().expect("what was watched")
}

/// The mean of a series' points.
fn mean(watched: &Watched, gauge: &Gauge) -> f64 {
    let series = watched.find(gauge, None).unwrap_or_else(|| panic!("no {gauge:?}: {watched:?}"));
    series.points.iter().map(|point| point.mean).sum::<f64>() / series.points.len() as f64
}

fn kinds(watched: &Watched) -> Vec<EventKind> {
    watched.events.iter().map(|event| event.kind).collect()
}

#[test]
fn mongodb_is_seen_with_its_operations_connections_and_limits() {
    for replicates in [false, true] {
        let server = if replicates { Mongod::replica_set() } else { Mongod::start() };
        let watched = one(mongo(&server.uri), || {
            server.with(async |client| {
                let things = client.database("shop").collection::<Document>("things");
                for number in 0..600 {
                    things.insert_one(doc! { "n": number }).await?;
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                Ok(())
            });
        });
        assert_eq!((watched.probe, &watched.missing[..], &watched.gaps[..]), (Probe::Mongo, &[][..], &[][..]));
        assert_eq!(watched.fact_of("version"), Some("6.0.5"));
        let most = |gauge: Gauge| watched.find(&gauge, None).unwrap().highest().unwrap().max;
        assert!((50.0..300.0).contains(&most(Gauge::Inserts)), "{}", most(Gauge::Inserts));
        assert!(most(Gauge::WriteLatency) > 1.0 && most(Gauge::CacheUsed) > 1e4 && most(Gauge::NetworkIn) > 1e3);
        assert!(most(Gauge::PoolOpen) >= 1.0, "the test's own client is the deployment here");
        let limit = |gauge: Gauge| watched.find(&gauge, None).unwrap().limit.unwrap();
        assert_eq!((limit(Gauge::PoolBusy).value, limit(Gauge::PoolBusy).source), (50.0, LimitSource::Scenario));
        assert!(limit(Gauge::ReadTickets).value > 0.0 && limit(Gauge::Connections).value > 100.0);
        assert_eq!(watched.fact_of("replica set").is_some(), replicates);
    }
}

#[test]
fn what_mongodb_does_not_allow_is_missing_and_said() {
    let server = Mongod::with_auth();
    let (watched, said) = seen(vec![mongo(&server.uri_as("reader"))], || seconds(1.2));
    let missing: Vec<&str> = watched[0].missing.iter().map(|missing| missing.what.as_str()).collect();
    assert_eq!(missing, ["serverStatus", "$currentOp"], "{watched:?}");
    assert!(watched[0].missing.iter().all(|missing| missing.why.contains("clusterMonitor")), "{watched:?}");
    assert!(said[0].as_ref().is_err_and(|said| said.contains("cannot be watched")), "{said:?}");
    let (watched, _) = seen(vec![mongo(&server.uri_as("root"))], || seconds(1.2));
    assert_eq!(watched[0].missing, []);

    let wrong = server.uri_as("reader").replace("s3cret-reader", "s3cret-guess");
    let (watched, said) = seen(vec![mongo(&wrong)], || {});
    let said = said[0].as_ref().unwrap_err();
    assert!(said.contains("it does not let us in") && said.contains("authSource"), "{said}");
    assert!(!said.contains("s3cret-guess") && !format!("{watched:?}").contains("s3cret-guess"), "{said}");
}

#[test]
fn another_server_or_none_at_the_port_is_said() {
    let (server, other) = (Mongod::start(), Redis::start(&[]));
    let plain = Server::start(|stream, _| {
        use std::io::Write as _;
        let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let nobody = crate::support::listen().local_addr().unwrap().port();
    for (wanted, expected) in [
        (mongo(&format!("mongodb://127.0.0.1:{nobody}")), "nothing listens there"),
        (redis(&format!("redis://127.0.0.1:{nobody}")), "nothing listens there"),
        (mongo(&plain.base.replace("http", "mongodb")), "what answers there is no MongoDB"),
        (redis(&plain.base.replace("http", "redis")), "what answers there is no Redis"),
        (redis(&format!("redis://127.0.0.1:{}", server.port)), "or is no Redis"),
        (mongo(&format!("mongodb://127.0.0.1:{}", other.port)), "or is no MongoDB"),
        (mongo("mongodb:/nonsense"), "the connection string cannot be read"),
        (redis("nonsense"), "the connection string cannot be read"),
    ] {
        let (watched, said) = seen(vec![wanted], || {});
        let said = said[0].as_ref().expect_err("nothing to watch");
        assert!(said.contains("cannot be watched: ") && said.contains(expected), "{expected}: {said}");
        assert!(said.len() < 500, "{said}");
        let missing = &watched[0].missing;
        assert!(missing.len() == 1 && watched[0].gaps.is_empty(), "it was never seen: {watched:?}");
    }
}

#[test]
fn an_index_that_is_missing_is_found_and_its_command_mends_it() {
    let server = Mongod::start();
    let queries = librechat_queries();
    let look = || runtime().block_on(audit(&Secret::new(&server.uri), None, &queries));
    let empty = look();
    assert_eq!((empty.checked, empty.findings.len(), empty.failed), (0, 0, None));
    server.with(async |client| {
        let database = client.database("LibreChat");
        for (name, fields) in [
            ("logs", doc! { "key": "k" }),
            ("users", doc! { "email": "e" }),
            ("conversations", doc! { "conversationId": "c", "user": "u" }),
            ("messages", doc! { "messageId": "m", "conversationId": "c" }),
        ] {
            database.collection::<Document>(name).insert_one(fields).await?;
        }
        for (name, key) in [
            ("users", "email"),
            ("conversations", "conversationId"),
            ("conversations", "user"),
            ("messages", "messageId"),
            ("messages", "conversationId"),
        ] {
            let index = mongodb::IndexModel::builder().keys(doc! { key: 1 }).build();
            database.collection::<Document>(name).create_index(index).await?;
        }
        Ok(())
    });
    let found = look();
    assert_eq!((found.database.as_str(), found.checked, &found.empty[..]), ("LibreChat", 6, &[][..]));
    let told: Vec<(IndexProblem, &str)> =
        found.findings.iter().map(|finding| (finding.problem, finding.create_index.as_str())).collect();
    assert_eq!(
        told,
        [
            (IndexProblem::CollectionScan, "db.logs.createIndex({ key: 1 })"),
            (IndexProblem::MemorySort, "db.conversations.createIndex({ user: 1, updatedAt: -1 })"),
            (IndexProblem::MemorySort, "db.messages.createIndex({ conversationId: 1, createdAt: 1 })"),
        ]
    );
    server.with(async |client| {
        let database = client.database("LibreChat");
        for (name, keys) in [
            ("logs", doc! { "key": 1 }),
            ("conversations", doc! { "user": 1, "updatedAt": -1 }),
            ("messages", doc! { "conversationId": 1, "createdAt": 1 }),
        ] {
            let index = mongodb::IndexModel::builder().keys(keys).build();
            database.collection::<Document>(name).create_index(index).await?;
        }
        Ok(())
    });
    assert_eq!(look().findings, [], "silent with them");
}

#[test]
fn redis_is_seen_and_its_limits_that_are_reached_are_events() {
    let server = Redis::start(&["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"]);
    let watched = one(redis(&server.url), || {
        seconds(1.2);
        let value = "x".repeat(10_000);
        for number in 0..400 {
            server.command(&["SET", &format!("k{number}"), &value]);
        }
        server.command(&["CONFIG", "SET", "maxclients", "5"]);
        seconds(1.2);
        // More come than may; they are there until the end of the look.
        let crowd: Vec<_> =
            (0..12).map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap()).collect();
        seconds(2.2);
        drop(crowd);
    });
    assert_eq!((&watched.missing[..], &watched.gaps[..]), (&[][..], &[][..]));
    assert_eq!(watched.fact_of("mode"), Some("standalone"));
    assert_eq!(watched.fact_of("maxmemory-policy"), Some("allkeys-lru"));
    assert!(kinds(&watched).contains(&EventKind::Evictions), "{:?}", watched.events);
    assert!(kinds(&watched).contains(&EventKind::MaxClients), "{:?}", watched.events);
    let clients = watched.find(&Gauge::Connections, None).unwrap();
    assert_eq!(clients.limit.map(|limit| limit.value), Some(5.0));
    let memory = watched.find(&Gauge::Memory, None).unwrap();
    assert_eq!(memory.limit.map(|limit| limit.value), Some(3.0 * 1024.0 * 1024.0));
    let ping = watched.find(&Gauge::Ping, None).unwrap();
    assert!(ping.points.len() >= 3 && mean(&watched, &Gauge::Ping) > 1.0, "{ping:?}");
    assert!(watched.fact_of("commands").is_some_and(|commands| commands.contains("set 400 x")), "{:?}", watched.facts);
}

#[test]
fn what_redis_denies_is_missing_and_said() {
    let server = Redis::start(&[]);
    server.command(&["ACL", "SETUSER", "guest", "on", ">pw-of-guest", "+ping", "+info"]);
    let watched = one(redis(&server.url.replace("redis://", "redis://guest:pw-of-guest@")), || seconds(1.2));
    let missing: Vec<&str> = watched.missing.iter().map(|missing| missing.what.as_str()).collect();
    assert_eq!(missing, ["CLIENT LIST", "SLOWLOG", "LATENCY", "CONFIG GET"], "{watched:?}");
    assert!(watched.missing.iter().all(|missing| missing.why.contains("ACL")), "{watched:?}");
    assert!(watched.find(&Gauge::Memory, None).is_some() && watched.gaps.is_empty());
    let (_, said) = seen(vec![redis(&server.url.replace("redis://", "redis://guest:wrong-one@"))], || {});
    let said = said[0].as_ref().unwrap_err();
    assert!(said.contains("does not let us in") && !said.contains("wrong-one"), "{said}");
}

#[test]
fn a_cluster_s_nodes_are_seen_one_by_one_and_moving_slots_are_an_event() {
    let cluster = RedisCluster::start();
    let watched = one(redis(&cluster.url), || {
        seconds(1.2);
        cluster.move_slot(42, 0, 1);
        seconds(1.2);
    });
    assert_eq!(watched.fact_of("mode"), Some("cluster"));
    for node in &cluster.nodes {
        let of = format!("127.0.0.1:{}", node.port);
        assert!(watched.find(&Gauge::Memory, Some(&of)).is_some(), "{of}: {watched:?}");
        assert!(watched.find(&Gauge::Ping, Some(&of)).is_some(), "{of}");
    }
    let of_all = mean(&watched, &Gauge::Memory);
    let of_one = watched.find(&Gauge::Memory, Some(&format!("127.0.0.1:{}", cluster.nodes[0].port))).unwrap();
    assert!(of_all > 2.0 * of_one.points[0].mean, "the whole is the sum of its masters");
    assert!(kinds(&watched).contains(&EventKind::Resharding), "{:?}", watched.events);
    assert!(watched.events.iter().any(|event| event.detail.contains("42")), "{:?}", watched.events);
    assert!(!kinds(&watched).contains(&EventKind::Failover), "{:?}", watched.events);
}

#[test]
fn a_sentinel_s_failover_is_an_event_and_the_new_master_is_watched() {
    let mut sentinel = Sentinel::start();
    sentinel.master.command(&["CONFIG", "SET", "maxclients", "77"]);
    let (old, new) = (sentinel.master.port, sentinel.replica.port);
    let url = sentinel.url.clone();
    let watched = one(redis(&url), || {
        seconds(1.5);
        sentinel.kill_master();
        sentinel.wait_for_failover();
        seconds(2.5);
    });
    let failover = watched.events.iter().find(|event| event.kind == EventKind::Failover);
    let failover = failover.unwrap_or_else(|| panic!("{watched:?}"));
    assert_eq!(failover.detail, format!("127.0.0.1:{old} -> 127.0.0.1:{new}"));
    assert!(watched.find(&Gauge::Connections, None).unwrap().limit.is_some(), "the master's: {watched:?}");
    let total = watched.find(&Gauge::Memory, None).unwrap();
    assert!(total.points.last().is_some_and(|point| f64::from(point.t_s) > failover.t_s), "seen after it: {watched:?}");
}

#[test]
fn a_store_that_goes_away_is_a_gap_until_it_is_back() {
    let mut server = Redis::start(&[]);
    let url = server.url.clone();
    let watched = one(redis(&url), || {
        seconds(1.5);
        server.stop();
        seconds(2.5);
        server.start_again();
        seconds(2.5);
    });
    assert_eq!(watched.gaps.len(), 1, "{watched:?}");
    let gap = &watched.gaps[0];
    assert!(gap.to_s.is_some_and(|to| to - gap.from_s > 1.0), "{gap:?}");
    let memory = watched.find(&Gauge::Memory, None).unwrap();
    assert!(memory.points.last().is_some_and(|point| f64::from(point.t_s) >= gap.to_s.unwrap() - 1.0), "{watched:?}");
}

#[test]
fn health_counts_every_moment_of_a_hanging_server() {
    let mock = Mock::start("[models.m]");
    let calm = one(health(&format!("{}/health", mock.api)), || seconds(2.5));
    assert!(mean(&calm, &Gauge::HealthLatency) < 100_000.0 && calm.gaps.is_empty(), "{calm:?}");
    // One request at a time: the one that hangs makes all others wait, as an event loop does.
    let hangs = std::sync::Arc::new(std::sync::Mutex::new(0));
    let server = Server::start(move |stream, _| {
        use std::io::Write as _;
        while read_request(&stream) {
            let mut number = hangs.lock().unwrap();
            *number += 1;
            if *number == 8 {
                seconds(1.5);
            }
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
        }
    });
    let watched = one(health(&format!("{}/health", server.base)), || seconds(4.5));
    let latency = watched.find(&Gauge::HealthLatency, None).unwrap();
    assert!(latency.highest().unwrap().max > 1_300_000.0, "{latency:?}");
    // A look that waits for its answer would have one slow request of 1.5 s; a stranger every 100 ms meets fifteen.
    let second = latency.points.iter().map(|point| point.mean).fold(0.0, f64::max);
    assert!(second > 500_000.0, "the mean of the worst second: {second} µs, {latency:?}");
    let page = Server::start(|stream, _| {
        use std::io::Write as _;
        while read_request(&stream) {
            let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nhtml";
            let _ = (&stream).write_all(html.as_bytes());
        }
    });
    let watched = one(health(&format!("{}/health", page.base)), || seconds(1.0));
    assert!(watched.missing[0].why.contains("web page"), "{watched:?}");
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = capacity_check::net::client_config(&capacity_check::net::TlsSettings::default()).unwrap();
    capacity_check::net::shared_client(&tls).unwrap()
}

fn health(url: &str) -> Wanted {
    let url: url::Url = url.parse().unwrap();
    let tls = capacity_check::net::client_config(&capacity_check::net::TlsSettings::default()).unwrap();
    let endpoint = capacity_check::net::Endpoint::new(&url, &tls, Duration::from_secs(5)).unwrap();
    Wanted::Health { endpoint: Box::new(endpoint), url }
}

fn scraped(url: &str, bearer: Option<&str>) -> Wanted {
    let settings = PrometheusProbe { url: url.parse().unwrap(), preset: None, series: Vec::new() };
    Wanted::Prometheus { client: client(), settings, bearer: bearer.map(Secret::new) }
}

#[test]
fn prometheus_series_are_kept_and_a_missing_token_is_said() {
    let mock = Mock::start("[models.m]");
    let reference = Reference::start(&mock, |settings| settings.metrics_secret = Some("metrics-secret".to_owned()));
    let url = format!("{}/metrics", reference.base);
    let watched = one(scraped(&url, Some("metrics-secret")), || {
        for _ in 0..50 {
            get(&reference.base, "/health");
            seconds(0.04);
        }
        seconds(0.5);
    });
    let named = |name: &str| watched.find(&Gauge::Named(name.to_owned()), None);
    let requests = named("http_requests_total").unwrap_or_else(|| panic!("{watched:?}"));
    assert!((2.0..60.0).contains(&requests.highest().unwrap().max), "{requests:?}");
    assert!(named("sse_streams_in_flight").is_some() && watched.gaps.is_empty(), "{watched:?}");
    let (_, said) = seen(vec![scraped(&url, None)], || {});
    assert!(said[0].as_ref().is_err_and(|said| said.contains("METRICS_SECRET")), "{said:?}");
    let (_, said) = seen(vec![scraped(&format!("{}/nowhere", reference.base), None)], || {});
    assert!(said[0].as_ref().is_err_and(|said| said.contains("no metric in its answer")), "{said:?}");
}

#[test]
fn processes_are_found_by_port_with_sockets_and_listen_queue() {
    let listener = crate::support::listen();
    let port = listener.local_addr().unwrap().port();
    let probe = ProcessProbe { name: format!("port {port}"), which: Which::Port(port) };
    let waiting: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let watched = one(Wanted::Process(probe), || seconds(1.2));
    drop(waiting);
    let most = |gauge: Gauge| watched.find(&gauge, None).unwrap_or_else(|| panic!("{gauge:?}")).highest().unwrap().max;
    assert!(most(Gauge::SocketsEstablished) >= 5.0 && most(Gauge::ListenQueue) == 5.0, "{watched:?}");
    // This process has the ports of other tests too, and only the first are named.
    assert!(watched.fact_of("ports").is_some_and(|ports| !ports.is_empty()), "{:?}", watched.facts);
    // Bound, so that no other test gets it, but not listening.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let nobody = bound.local_addr().unwrap().as_socket().unwrap().port();
    let probe = ProcessProbe { name: "nobody".to_owned(), which: Which::Port(nobody) };
    let (_, said) = seen(vec![Wanted::Process(probe)], || {});
    assert!(said[0].as_ref().is_err_and(|said| said.contains("nobody listens on port")), "{said:?}");
}
