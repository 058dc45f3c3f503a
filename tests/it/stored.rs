//! The reference deployment on real stores, and whole runs that watch them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capacity_check::record::{EventKind, Gauge, LimitSource, Outcome, Probe, Watched};
use capacity_check::result::RunResult;
use mongodb::bson::{Document, doc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reference_chat::{MongoSettings, Operations, Plant, RedisSettings, Settings};
use serde_json::Value;

use crate::support::chat::{Harm, Proxy, Reference, SECRET, chat, hello, list, run_signed, say};
use crate::support::nginx::Nginx;
use crate::support::stores::{Mongod, Redis};
use crate::support::{Mock, Ran, get, load, quiet, run, run_with, runtime, start, tool, until};

const CALM: &str = "[models.m]\nttft = \"200ms\"\ngap = \"10ms\"\ntokens = 10";

fn mongo(server: &Mongod, pool: u32) -> Option<MongoSettings> {
    Some(MongoSettings { uri: server.uri.clone(), database: "LibreChat".to_owned(), pool })
}

fn redis(server: &Redis) -> Option<RedisSettings> {
    Some(RedisSettings { url: server.url.clone(), prefix: "librechat".to_owned() })
}

fn watched(result: &RunResult, probe: Probe) -> &Watched {
    let probes = result.probes.as_ref().expect("probes");
    probes.watched.iter().find(|watched| watched.probe == probe).expect("it was watched")
}

/// How often MongoDB did each kind of operation. Callable from within a runtime.
fn counters(server: &Mongod) -> [i64; 3] {
    std::thread::scope(|scope| scope.spawn(|| counted(server)).join()).expect("counters")
}

fn counted(server: &Mongod) -> [i64; 3] {
    server.with(async |client| {
        let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
        let counters = status.get_document("opcounters").expect("counters");
        Ok(["query", "insert", "update"]
            .map(|name| counters.get_i64(name).unwrap_or_else(|_| i64::from(counters.get_i32(name).unwrap_or(0)))))
    })
}

#[test]
fn a_turn_does_librechat_s_operations_and_its_data_are_in_both_stores() {
    let (mongod, store) = (Mongod::start(), Redis::start(&[]));
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = 12");
    let reference = Reference::start(&mock, |settings| {
        (settings.mongo, settings.redis) = (mongo(&mongod, 20), redis(&store));
    });
    let driver = chat(&reference.base);
    runtime().block_on(async {
        let mut session = driver.session(0);
        // The account is new at the first call, which costs an operation more.
        assert_eq!(say(&driver, &mut session, hello()).await.outcome, Outcome::Completed);
        let mut before = counters(&mongod);
        for (continues, expected) in [(false, Operations::NEW_TURN), (true, Operations::FOLLOW_UP)] {
            let prompt = capacity_check::driver::Prompt { opens: !continues, continues: true, ..hello() };
            let turn = say(&driver, &mut session, prompt).await;
            assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 12), "{}", turn.detail);
            let after = counters(&mongod);
            let done: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            let expected = [expected.query, expected.insert, expected.update].map(i64::from);
            assert_eq!(done, expected, "continues: {continues}");
            before = after;
        }
    });
    let count = |collection: &'static str| {
        mongod.with(async |client| {
            client.database("LibreChat").collection::<Document>(collection).count_documents(doc! {}).await
        })
    };
    assert_eq!([count("users"), count("conversations"), count("messages"), count("transactions")], [1, 2, 6, 6]);
    let keys = store.keys();
    for part in ["librechat::stream:{", "}:job", "}:chunks"] {
        assert!(keys.iter().any(|key| key.contains(part)), "{part}: {keys:?}");
    }
}

#[test]
fn two_processes_are_one_deployment_and_who_is_late_on_the_other_one_loses_the_beginning() {
    let (mongod, store) = (Mongod::start(), Redis::start(&[]));
    let mock = Mock::start("[models.m]\nttft = \"200ms\"\ngap = \"20ms\"\ntokens = 30");
    let process =
        || Reference::start(&mock, |settings| (settings.mongo, settings.redis) = (mongo(&mongod, 20), redis(&store)));
    let (one, two) = (process(), process());
    // Turns are begun on one process, and read on the other.
    let server = format!(
        "location / {{ proxy_pass {}; proxy_buffering off; }} \
         location /api/agents/chat/stream/ {{ proxy_pass {}; proxy_buffering off; }}",
        one.base, two.base
    );
    let nginx = Nginx::start("", &server);
    let turn = |base: &str| {
        runtime().block_on(async {
            let driver = chat(base);
            say(&driver, &mut driver.session(0), hello()).await
        })
    };
    let prompt = turn(&nginx.base);
    assert_eq!((prompt.outcome, prompt.tokens, prompt.late), (Outcome::Completed, 30, 0), "{}", prompt.detail);
    let address = nginx.base.trim_start_matches("http://").parse().expect("an address");
    let late = Proxy::start(address, Harm { cut: None, hold: Duration::from_millis(450) });
    let late = turn(&late.base);
    assert_eq!(late.outcome, Outcome::Completed, "{}", late.detail);
    assert!(late.late > 3 && late.tokens + late.late == 30, "{} and {} late", late.tokens, late.late);
    // On its own process nothing is lost, however late.
    let address = one.address;
    let proxy = Proxy::start(address, Harm { cut: None, hold: Duration::from_millis(450) });
    assert_eq!(turn(&proxy.base).late, 0);
}

/// A run of twelve users against a deployment whose pool is full or not; each turn is 0.3 s with the model and thirty
/// operations of 20 ms: eight at once, by Little's law.
fn slowed(pool: u32, scrape: bool, more: &[&str]) -> (Ran, f64) {
    let mongod = Mongod::start();
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |settings: &mut Settings| {
        settings.mongo = mongo(&mongod, pool);
        settings.plants = vec![Plant::parse("slow-mongo=20ms").unwrap()];
    });
    let scenario = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(scenario.path(), format!("[probe.mongo]\nmax_pool_size = {pool}\n")).unwrap();
    let (accounts, metrics) = (list(12), format!("{}/metrics", reference.base));
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let (scenario, accounts) = (path(&scenario), path(&accounts));
    let mut flags =
        vec!["--scenario", &scenario, "--profile", "librechat", "--target", &reference.base, "--accounts", &accounts];
    flags.extend(["--mock-admin", &mock.admin, "--tiers", "12", "--think", "0s", "--ramp", "1s", "--no-progress"]);
    flags.extend(["--steady", "10s", "--steady-max", "10s"]);
    if scrape {
        flags.extend(["--scrape", &metrics]);
    }
    flags.extend(more);
    let ran = run_with(tool().env("JWT_SECRET", SECRET).env("MONGO_URI", &mongod.uri), &flags);
    let text = get(&reference.base, "/metrics");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("a metric");
        line.parse::<f64>().expect("a number")
    };
    let wait = value("mongo_pool_checkout_wait_seconds_sum") / value("mongo_pool_checkout_wait_seconds_count");
    (ran, wait * 1e6)
}

#[test]
fn a_pool_that_is_full_is_seen_with_the_wait_that_the_deployment_measured() {
    let _machine = quiet();
    for told in [true, false] {
        let (ran, wait_us) = slowed(5, told, &[]);
        let result = ran.result();
        let mongo = watched(&result, Probe::Mongo);
        let busy = mongo.find(&Gauge::PoolBusy, None).unwrap_or_else(|| panic!("{ran}"));
        let limit = busy.limit.expect("a limit");
        assert_eq!(
            (busy.highest().unwrap().max, limit.value, limit.source),
            (5.0, 5.0, LimitSource::Scenario),
            "{ran}"
        );
        assert!(mongo.events.iter().any(|event| event.kind == EventKind::PoolFull), "{mongo:?}");
        let checkout = result.probes.as_ref().unwrap().checkout[0];
        assert_eq!(checkout.told, told, "{checkout:?}");
        // Five connections at 20 ms each are 250 operations a second, whatever is asked of them.
        assert!((180.0..252.0).contains(&checkout.operations_per_s), "{checkout:?}");
        let ratio = checkout.mean_us / wait_us;
        // What is inferred takes all that a turn does besides for waiting, and counts a turn that waits for several
        // connections at once as one; and the deployment's own mean has the page loads of the ramp in it.
        let fits = if told { 0.8..1.2 } else { 0.65..1.6 };
        assert!(fits.contains(&ratio) && wait_us > 5_000.0, "{checkout:?}, the deployment says {wait_us} µs");
        assert!(ran.stdout.contains("5 of 5 (100 %)"), "{ran}");
    }
}

#[test]
fn a_pool_that_is_large_enough_shows_what_is_needed_and_pools_are_tried() {
    let _machine = quiet();
    let (ran, wait_us) = slowed(100, true, &["--probe-pools"]);
    let result = ran.result();
    let probes = result.probes.as_ref().unwrap();
    assert!(wait_us < 5_000.0, "{wait_us}");
    assert!(!watched(&result, Probe::Mongo).events.iter().any(|event| event.kind == EventKind::PoolFull), "{ran}");
    let study = probes.mongo_pools.as_ref().unwrap_or_else(|| panic!("{ran}"));
    assert!((5.0..11.5).contains(&study.concurrency), "eight at once: {study:?}");
    assert!((15_000.0..30_000.0).contains(&study.operation_us), "20 ms each: {study:?}");
    let first = study.smallest[0];
    assert!(first.multiple == 1.0 && first.size.is_some_and(|size| size <= 50), "{study:?}");
    assert!(ran.stdout.contains("connections are enough"), "{ran}");
}

#[test]
fn a_mongod_that_stops_and_starts_is_a_gap_and_the_run_goes_on() {
    let _machine = load();
    let mut mongod = Mongod::start();
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = 10");
    let out = tempfile::tempdir().unwrap();
    let flags =
        ["--tiers", "4", "--think", "200ms", "--ramp", "0.5s", "--steady", "9s", "--steady-max", "9s", "--no-progress"];
    let target = ["--target", &mock.api, "--mock-admin", &mock.admin, "--mongo-uri", &mongod.uri];
    let child = start(&[&flags[..], &target].concat(), out.path());
    until("turns are going on", || mock.turns().len() > 20);
    mongod.stop();
    std::thread::sleep(Duration::from_secs(2));
    mongod.start_again();
    let ran = Ran::of(child.wait_with_output().unwrap(), out);
    let result = ran.result();
    assert!(result.tiers[0].complete && result.totals.errors == 0, "{ran}");
    let mongo = watched(&result, Probe::Mongo);
    assert_eq!(mongo.gaps.len(), 1, "{mongo:?}");
    let gap = &mongo.gaps[0];
    assert!(gap.to_s.is_some_and(|to| to > gap.from_s), "{gap:?}");
    assert!(mongo.events.iter().any(|event| event.kind == EventKind::Restarted), "{mongo:?}");
    assert!(ran.stdout.contains("nothing was seen"), "{ran}");
}

/// A reference deployment as a process of its own.
struct Process {
    child: Child,
    base: String,
}

impl Process {
    fn start(mock: &Mock, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command: Command = tool();
        command.env("JWT_SECRET", SECRET).envs(variables.iter().copied());
        command.args(["reference-chat", "--listen", "127.0.0.1:0", "--exit-with-stdin"]);
        command.arg("--upstream").arg(format!("{}/v1", mock.api)).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
        let listening: Value = serde_json::from_str(&line).expect("where it listens");
        Self { child, base: listening["chat"].as_str().expect("a URL").to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn workers_that_share_unevenly_and_a_leak_are_seen() {
    let _machine = load();
    let (mongod, store) = (Mongod::start(), Redis::start(&[]));
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = 10");
    let variables =
        [("MONGO_URI", mongod.uri.as_str()), ("REDIS_URI", store.url.as_str()), ("MONGO_MAX_POOL_SIZE", "20")];
    let common =
        ["--mongo-uri", "--mongo-pool", "20", "--redis-url", "--burn", "--turn-cost", "12ms", "--token-cost", "200us"];
    let even = Process::start(&mock, &[&common[..], &["--plant", "leak=2000000"]].concat(), &variables);
    let dear = Process::start(&mock, &[&common[..], &["--plant", "worker-cost=3"]].concat(), &variables);
    let server = |process: &Process| format!("server {};", process.base.trim_start_matches("http://"));
    // In turn, all POSTs would go to one and all streams to the other.
    let http = format!("upstream chat {{ random; {} {} }}", server(&even), server(&dear));
    let nginx = Nginx::start(&http, "location / { proxy_pass http://chat; proxy_buffering off; }");
    let accounts = list(8);
    let (one, two) = (even.child.id().to_string(), dear.child.id().to_string());
    let flags = ["--profile", "librechat", "--target", &nginx.base, "--mock-admin", &mock.admin, "--accounts"];
    let watch = ["--watch-pid", &one, "--watch-pid", &two, "--mongo-uri", &mongod.uri, "--redis-url", &store.url];
    let times =
        ["--tiers", "8", "--think", "1s", "--ramp", "2s", "--steady", "42s", "--steady-max", "42s", "--no-progress"];
    let ran = run_signed(&[&flags[..], &[accounts.path().to_str().unwrap()], &watch, &times].concat());
    let result = ran.result();
    assert_eq!(result.totals.outcomes.keys().collect::<Vec<_>>(), ["completed"], "{ran}");
    let probes = result.probes.as_ref().unwrap();
    let balance = &probes.balance[0];
    assert!(balance.workers == 2 && balance.busiest.ends_with(&two), "{balance:?}");
    assert!(balance.most_cores / balance.mean_cores > 1.2, "{balance:?}");
    // Every second turn is at the process that leaks.
    let growth = |pid: &str| {
        probes.growth.iter().find(|growth| growth.of == format!("pid {pid}")).unwrap_or_else(|| panic!("{ran}"))
    };
    let leaks = growth(&one);
    assert!(leaks.lower > 600_000.0 && leaks.upper < 1_500_000.0, "{leaks:?}");
    assert!(growth(&two).bytes_per_turn.abs() < 100_000.0, "{:?}", growth(&two));
    // Both say in their environment how large their pools are.
    let busy = watched(&result, Probe::Mongo).find(&Gauge::PoolBusy, None).unwrap().limit.unwrap();
    assert_eq!((busy.value, busy.source), (40.0, LimitSource::Environment));
    let row = probes.sizing[0];
    assert!(row.cpu_cores.is_some_and(|cores| cores.mean > 0.05) && row.memory_bytes.is_some(), "{row:?}");
    assert!(row.mongo_connections.is_some() && row.redis_clients.is_some_and(|clients| clients.mean >= 6.0), "{row:?}");
    let text = std::fs::read_to_string(ran.folder().join("report.md")).unwrap();
    assert!(text.contains("What each tier needed") && text.contains(&format!("pid {one}")), "{text}");
}

#[test]
fn the_embedded_deployment_leaves_nothing_in_its_stores_however_it_ends() {
    let _machine = load();
    let (mongod, store) = (Mongod::start(), Redis::start(&[]));
    store.command(&["SET", "mine", "1"]);
    let before = (mongod.database_names(), store.keys());
    let flags =
        ["--tiers", "4", "--think", "200ms", "--ramp", "0.5s", "--no-progress", "--reference-mongo", &mongod.uri];
    let flags = [&flags[..], &["--reference-redis", &store.url]].concat();
    let ran = run(&[&flags[..], &["--steady", "3s", "--steady-max", "3s", "--probe-pools"]].concat());
    let result = ran.result();
    let probes = result.probes.as_ref().unwrap_or_else(|| panic!("{ran}"));
    assert_eq!(result.totals.errors, 0, "{ran}");
    assert!(probes.mongo_pools.is_some() && probes.redis_pools.is_some(), "{ran}");
    assert!(watched(&result, Probe::Prometheus).find(&Gauge::CheckoutWait, None).is_some(), "{ran}");
    let audit = probes.index_audit.as_ref().expect("an audit");
    assert!(audit.checked >= 3 && audit.database.starts_with("capacity_check_"), "{audit:?}");
    assert!(watched(&result, Probe::Redis).find(&Gauge::Operations, None).is_some(), "{ran}");
    assert_eq!((mongod.database_names(), store.keys()), before, "after a run: {ran}");
    for times in [1, 2] {
        let out = tempfile::tempdir().unwrap();
        let child = start(&[&flags[..], &["--steady", "60s"]].concat(), out.path());
        until("it has begun", || mongod.database_names() != before.0 && store.keys().len() > 1);
        std::thread::sleep(Duration::from_secs(2));
        for _ in 0..times {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        let ran = Ran::of(child.wait_with_output().unwrap(), out);
        assert_eq!(ran.code, 130, "{ran}");
        assert_eq!((mongod.database_names(), store.keys()), before, "after {times} interrupts: {ran}");
    }
    // The tool itself dies: its child notices, and cleans up behind it.
    let out = tempfile::tempdir().unwrap();
    let mut child = start(&[&flags[..], &["--steady", "60s"]].concat(), out.path());
    until("it has begun", || mongod.database_names() != before.0 && store.keys().len() > 1);
    child.kill().unwrap();
    child.wait().unwrap();
    until("nothing is left", || (mongod.database_names(), store.keys()) == before);
}

#[test]
fn plants_in_stores_are_taken_back() {
    let (mongod, store) = (Mongod::start(), Redis::start(&[]));
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 5");
    let setting = |name: &str| format!("{:?}", store.command(&["CONFIG", "GET", name]));
    let before = [setting("maxclients"), setting("maxmemory"), setting("maxmemory-policy")];
    let logs = || {
        mongod.with(async |client| {
            client.database("LibreChat").collection::<Document>("logs").count_documents(doc! {}).await
        })
    };
    let plants = ["logs=3000", "redis-maxclients=50", "redis-maxmemory=5000000", "slow-mongo=1ms"];
    let reference = Reference::start(&mock, |settings| {
        (settings.mongo, settings.redis) = (mongo(&mongod, 10), redis(&store));
        settings.plants = plants.iter().map(|plant| Plant::parse(plant).unwrap()).collect();
    });
    until("it listens", || std::net::TcpStream::connect(reference.address).is_ok() && logs() == 3_000);
    assert_eq!(get(&reference.base, "/health"), "OK");
    assert!(setting("maxclients").contains("50") && setting("maxmemory").contains("5000000"));
    drop(reference);
    assert_eq!([setting("maxclients"), setting("maxmemory"), setting("maxmemory-policy")], before);
    assert_eq!(logs(), 0);
}

#[test]
fn what_cannot_be_watched_or_kept_is_said_before_anything_runs() {
    let said = |flags: &[&str]| {
        let ran = run(&[&["--users", "5", "--target", "http://127.0.0.1:9"], flags].concat());
        assert_eq!(ran.code, 2, "{ran}");
        ran.stderr
    };
    for (flags, expected) in [
        (&["--mongo-uri"][..], "--mongo-uri: the environment has no MONGO_URI"),
        (&["--redis-url"], "--redis-url: the environment has no REDIS_URI"),
        (&["--watch-pid", "4194305"], "there is no process 4194305"),
        (&["--watch-cgroup", "/no/such/group"], "is no control group of version 2"),
        (&["--scrape", "ftp://x"], "--scrape: `ftp://x` should begin with http"),
        (&["--scrape", "http://example.com/metrics"], "--i-am-authorized-to-test example.com"),
        (&["--probe-pools"], "wants a store to try"),
        (
            &["--probe-pools", "--mongo-uri", "mongodb://a:b@db.example.com/x"],
            "--i-am-authorized-to-test db.example.com",
        ),
        (&["--reference-mongo", "mongodb://127.0.0.1"], "is for the embedded deployment"),
    ] {
        let text = said(flags);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let ran = run(&["--users", "5", "--reference-mongo-pool", "5"]);
    assert!(ran.code == 2 && ran.stderr.contains("wants --reference-mongo"), "{ran}");
    let nobody = crate::support::listen().local_addr().unwrap().port();
    let ran = run(&["--users", "5", "--reference-mongo", &format!("mongodb://ann:hunter2@127.0.0.1:{nobody}")]);
    assert!(ran.code == 4 && ran.stderr.contains("cannot use MongoDB"), "{ran}");
    assert!(!ran.stderr.contains("hunter2"), "{ran}");
}
