//! Real stores on loopback: a mongod, a Redis, a Redis Cluster, a master watched by a Sentinel.
//!
//! Each has a folder of its own and ends with its test. Nothing in a store outlives a Redis that is
//! stopped; a mongod keeps its folder.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{root, runtime, until};

/// A free port whose cluster bus, 10000 above, is free too.
///
/// A port of `listen` would not do. The kernel gives those to outgoing connections as well: while a
/// server is stopped its port could be taken, and a client that knocks at it could meet itself.
fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at once begin in different places.
    let first = std::process::id().wrapping_mul(64);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let number = first.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let port = 10_000 + u16::try_from(number).expect("below 10,000");
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// The program that an environment variable names, else the one where it is usually found.
fn program(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = [root().join("target/tools"), PathBuf::from("/usr/bin")];
    let mut places = std::env::split_paths(&path).chain(elsewhere).map(|folder| folder.join(name));
    let named = std::env::var_os(variable).map(PathBuf::from);
    let found = named.or_else(|| places.find(|place| place.is_file()));
    found.unwrap_or_else(|| panic!("no {name}: tests/run.sh installs one and names it in {variable}"))
}

/// A server that can be stopped and started again on its port.
struct Process {
    program: PathBuf,
    args: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl Process {
    /// Starts it, and waits until it listens.
    fn start(program: PathBuf, args: &[&str], port: u16) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut process = Self { program, args, port, child: None };
        process.start_again();
        process
    }

    fn start_again(&mut self) {
        let (program, port) = (self.program.display(), self.port);
        assert!(self.child.is_none(), "{program} runs already");
        let spawned = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        // Kept at once: a test that waits in vain ends it as well.
        let child = self.child.insert(spawned);
        until("the server listens", || {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "{program} on port {port}: {ended:?}");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Ends it as an operator would.
    fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a signal");
        child.wait().expect("the server ends");
    }

    /// Ends it as a power cut would.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its folder goes with it, so nothing need be saved.
        self.kill();
    }
}

/// A mongod with its test commands.
pub(crate) struct Mongod {
    /// Leads to the database LibreChat, as nobody in particular.
    pub(crate) uri: String,
    pub(crate) port: u16,
    /// The tests' own way in, which may do everything.
    own: String,
    replicates: bool,
    // Before the folder, so that it ends first.
    process: Process,
    _folder: tempfile::TempDir,
}

impl Mongod {
    /// Starts one that stands alone.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(extra: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let port_text = port.to_string();
        let common = [
            // Without them there is no `failCommand`.
            "--setParameter",
            "enableTestCommands=1",
            // Its default is half the machine's memory, and there may be several at once.
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--bind_ip",
            "127.0.0.1",
            "--nounixsocket",
            "--quiet",
            "--port",
            &port_text,
            "--dbpath",
            folder.path().to_str().expect("UTF-8"),
        ];
        let process = Process::start(program("CAPACITY_CHECK_MONGOD", "mongod"), &[&common, extra].concat(), port);
        let uri = format!("mongodb://127.0.0.1:{port}/LibreChat");
        Self { own: uri.clone(), uri, port, replicates: false, process, _folder: folder }
    }

    /// Starts a replica set of one, which is its primary.
    pub(crate) fn replica_set() -> Self {
        let mut mongod = Self::start_with(&["--replSet", "rs0"]);
        mongod.uri.push_str("?directConnection=true");
        mongod.own.clone_from(&mongod.uri);
        mongod.replicates = true;
        let host = format!("127.0.0.1:{}", mongod.port);
        mongod.admin(doc! { "replSetInitiate": { "_id": "rs0", "members": [{ "_id": 0, "host": host }] } });
        mongod.wait_for_primary();
        mongod
    }

    /// Starts one that asks for passwords. `root` may do everything, `reader` may only read the
    /// database LibreChat; [`Self::uri_as`] is the way in.
    pub(crate) fn with_auth() -> Self {
        let mut mongod = Self::start_with(&["--auth"]);
        // The first user may be made by anybody on the same machine.
        mongod.admin(doc! { "createUser": "root", "pwd": "s3cret-root", "roles": ["root"] });
        mongod.own = mongod.uri_as("root");
        let role = doc! { "role": "read", "db": "LibreChat" };
        mongod.admin(doc! { "createUser": "reader", "pwd": "s3cret-reader", "roles": [role] });
        mongod
    }

    /// The URI of one of the users of [`Self::with_auth`].
    pub(crate) fn uri_as(&self, user: &str) -> String {
        format!("mongodb://{user}:s3cret-{user}@127.0.0.1:{}/LibreChat?authSource=admin", self.port)
    }

    /// Does something with it, as somebody who may do everything.
    pub(crate) fn with<T>(&self, act: impl AsyncFnOnce(mongodb::Client) -> mongodb::error::Result<T>) -> T {
        runtime().block_on(async {
            let client = mongodb::Client::with_uri_str(&self.own).await.expect("a client");
            act(client).await.expect("the database answers")
        })
    }

    /// The names of all databases that somebody made, in order: `config` and `local` come by themselves, some time.
    pub(crate) fn database_names(&self) -> Vec<String> {
        let mut names = self.with(async |client| client.list_database_names().await);
        names.retain(|name| !["admin", "config", "local"].contains(&name.as_str()));
        names.sort();
        names
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again after [`Self::stop`], with all that it held.
    pub(crate) fn start_again(&mut self) {
        self.process.start_again();
        if self.replicates {
            self.wait_for_primary();
        }
    }

    /// Makes each of these commands last so much longer, until [`Self::heal`]; where an application is
    /// named, only its own.
    pub(crate) fn fail(&self, commands: &[&str], block_ms: u32, app: Option<&str>) {
        let mut data = doc! { "failCommands": commands, "blockConnection": true, "blockTimeMS": block_ms };
        if let Some(app) = app {
            data.insert("appName", app);
        }
        self.admin(doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data });
    }

    /// Ends what [`Self::fail`] began.
    pub(crate) fn heal(&self) {
        self.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" });
    }

    fn admin(&self, command: Document) -> Document {
        self.with(async |client| client.database("admin").run_command(command).await)
    }

    fn wait_for_primary(&self) {
        until("mongod is primary", || {
            let hello = self.admin(doc! { "hello": 1 });
            hello.get_bool("isWritablePrimary").is_ok_and(|primary| primary)
        });
    }
}

/// A Redis that saves nothing.
pub(crate) struct Redis {
    pub(crate) url: String,
    pub(crate) port: u16,
    /// The tests' own way in, with the password if it has one.
    own: String,
    // Before the folder, so that it ends first.
    process: Process,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// Starts one, with further flags.
    pub(crate) fn start(extra: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let port_text = port.to_string();
        let common = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port_text,
            "--dir",
            folder.path().to_str().expect("UTF-8"),
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
            "--daemonize",
            "no",
            // A replica is served at once, rather than after 5 s in case that more come.
            "--repl-diskless-sync-delay",
            "0",
        ];
        let process = Process::start(redis_server(), &[&common, extra].concat(), port);
        let url = format!("redis://127.0.0.1:{port}");
        let password = extra.iter().skip_while(|&&flag| flag != "--requirepass").nth(1);
        let own = password.map_or_else(|| url.clone(), |password| format!("redis://:{password}@127.0.0.1:{port}"));
        Self { url, port, own, process, _folder: folder }
    }

    /// The answer to a command, which must not be an error.
    pub(crate) fn command(&self, words: &[&str]) -> redis::Value {
        ask(&self.own, words)
    }

    /// The keys of its first database, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = redis::from_redis_value(self.command(&["KEYS", "*"])).expect("keys");
        keys.sort();
        keys
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again, empty.
    pub(crate) fn start_again(&mut self) {
        self.process.start_again();
    }
}

/// A Redis Cluster of three masters.
pub(crate) struct RedisCluster {
    /// They hold the slots 0-5460, 5461-10922 and 10923-16383.
    pub(crate) nodes: Vec<Redis>,
    /// Leads to the first of them.
    pub(crate) url: String,
}

impl RedisCluster {
    /// Starts it, and waits until every node finds all well.
    pub(crate) fn start() -> Self {
        let flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start(&flags)).collect();
        let held = [0..=5460, 5461..=10_922, 10_923..=16_383];
        for ((node, slots), epoch) in nodes.iter().zip(held).zip(["1", "2", "3"]) {
            // Different from the start, so that they need not settle it among themselves.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", epoch]);
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
            // Redis 6 has no ADDSLOTSRANGE.
            node.command(&[&["CLUSTER", "ADDSLOTS"], &slots[..]].concat());
        }
        for node in &nodes[1..] {
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()]);
        }
        for node in &nodes {
            // A node that has not met the others may be content with itself.
            until("the cluster is well", || {
                let info = text(node.command(&["CLUSTER", "INFO"]));
                ["cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384"]
                    .iter()
                    .all(|wanted| info.lines().any(|line| line == *wanted))
            });
        }
        let url = nodes[0].url.clone();
        Self { nodes, url }
    }

    /// Moves an empty slot from one node to another, slowly enough to be seen on the way.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let set = |node: &Redis, words: &[&str]| {
            node.command(&[&["CLUSTER", "SETSLOT", &slot.to_string()], words].concat());
        };
        let [giver, taker] = [from, to].map(|node| text(self.nodes[node].command(&["CLUSTER", "MYID"])));
        set(&self.nodes[to], &["IMPORTING", &giver]);
        set(&self.nodes[from], &["MIGRATING", &taker]);
        // Longer than the second of somebody who looks once a second.
        std::thread::sleep(Duration::from_millis(1200));
        // The taker first: its word then is newer than what the giver still tells.
        for node in [&self.nodes[to]].into_iter().chain(&self.nodes) {
            set(node, &["NODE", &taker]);
        }
    }
}

/// A master, its replica, and one Sentinel that watches them as `mymaster`.
pub(crate) struct Sentinel {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    /// Leads to the Sentinel.
    pub(crate) url: String,
    own: String,
    // Before the folder, so that it ends first.
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    /// Starts all three, and waits until the Sentinel knows the replica.
    pub(crate) fn start() -> Self {
        let master = Redis::start(&[]);
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        until("the replica follows", || text(master.command(&["INFO", "replication"])).contains("state=online"));
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        // A file that it may write to: it keeps there what it learns.
        let file = folder.path().join("sentinel.conf");
        let settings = [
            "bind 127.0.0.1".to_owned(),
            format!("port {port}"),
            format!("dir {}", folder.path().display()),
            "protected-mode no".to_owned(),
            format!("sentinel monitor mymaster 127.0.0.1 {} 1", master.port),
            "sentinel down-after-milliseconds mymaster 500".to_owned(),
            "sentinel failover-timeout mymaster 2000".to_owned(),
        ];
        std::fs::write(&file, settings.join("\n") + "\n").expect("the settings are written");
        let process = Process::start(redis_server(), &[file.to_str().expect("UTF-8"), "--sentinel"], port);
        let own = format!("redis://127.0.0.1:{port}");
        until("the Sentinel knows the replica", || {
            let known = ask(&own, &["SENTINEL", "REPLICAS", "mymaster"]);
            known.as_sequence().is_some_and(|replicas| !replicas.is_empty())
        });
        let url = format!("redis+sentinel://127.0.0.1:{port}/mymaster");
        Self { master, replica, url, own, _process: process, _folder: folder }
    }

    /// Ends the master as a power cut would.
    pub(crate) fn kill_master(&mut self) {
        self.master.process.kill();
    }

    /// Waits until the Sentinel names the replica as the master.
    pub(crate) fn wait_for_failover(&self) {
        let wanted = self.replica.port.to_string();
        until("the Sentinel names the replica", || {
            let named = ask(&self.own, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
            let named: Vec<String> = redis::from_redis_value(named).expect("an address");
            named.last() == Some(&wanted)
        });
    }
}

fn redis_server() -> PathBuf {
    program("CAPACITY_CHECK_REDIS", "redis-server")
}

/// The answer to a command over a connection of its own.
fn ask(url: &str, words: &[&str]) -> redis::Value {
    let answer = redis::Client::open(url)
        .and_then(|client| client.get_connection())
        .and_then(|mut connection| redis::cmd(words[0]).arg(&words[1..]).query(&mut connection));
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn text(value: redis::Value) -> String {
    redis::from_redis_value(value).expect("text")
}
