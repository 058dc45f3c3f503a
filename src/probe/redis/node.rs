//! One Redis server: what its `INFO`, client list, slow log and latency monitor tell, and its round trip.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

use super::connect;
use super::info::{Clients, Info};
use crate::clock::{self, Nanos};
use crate::probe::redis::topology::url_of;
use crate::probe::{APP_NAME, Moment, ProbeError, Rates};
use crate::record::{EventKind, Gauge, LimitSource, Watched};
use crate::secret::{Secret, escaped};

/// From so many clients on, their list is asked for at every tenth second only.
const MANY_CLIENTS: f64 = 1_000.0;
/// Round trips that are under way; a server that does not answer is not asked more often.
const PINGS: usize = 20;
/// Applications that have a series of their own.
const GROUPS: usize = 8;
/// Settings change rarely.
const SETTINGS_EVERY: u32 = 10;

/// Round trips: those that are over, with when they began, and those under way.
#[derive(Debug, Default)]
struct Pings {
    over: Vec<(Nanos, f64)>,
    open: usize,
}

/// One server.
pub(super) struct Node {
    connection: MultiplexedConnection,
    rates: Rates,
    pings: Rc<RefCell<Pings>>,
    /// The newest entry of the slow log.
    slowest: Option<i64>,
    /// The newest moment of each kind in the latency monitor.
    spikes: HashMap<String, i64>,
    first: Option<Info>,
    last: Info,
    uptime: f64,
    /// Commands that we have sent.
    sent: Cell<u64>,
    role: Option<String>,
}

/// What sums up over the servers.
type Total = BTreeMap<Gauge, f64>;

/// Levels of `INFO`.
const LEVELS: [(&str, Gauge); 2] = [("connected_clients", Gauge::Connections), ("used_memory", Gauge::Memory)];

/// Counters of `INFO` that become rates.
const COUNTERS: [(&str, Gauge); 6] = [
    ("total_commands_processed", Gauge::Operations),
    ("evicted_keys", Gauge::Evicted),
    ("expired_keys", Gauge::Expired),
    ("rejected_connections", Gauge::Rejected),
    ("total_net_input_bytes", Gauge::NetworkIn),
    ("total_net_output_bytes", Gauge::NetworkOut),
];

impl Node {
    pub(super) async fn connect(url: &Secret, address: &str) -> Result<Self, ProbeError> {
        let at = url_of(url, address).unwrap_or_else(|| url.clone());
        let connection = connect(at.expose(), APP_NAME).await.map_err(|error| ProbeError::redis(&error, url))?;
        Ok(Self {
            connection,
            rates: Rates::default(),
            pings: Rc::default(),
            slowest: None,
            spikes: HashMap::new(),
            first: None,
            last: Info::default(),
            uptime: 0.0,
            sent: Cell::default(),
            role: None,
        })
    }

    /// Begins a round trip.
    pub(super) fn ping(&self) {
        let mut connection = self.connection.clone();
        let pings = Rc::clone(&self.pings);
        if pings.borrow().open >= PINGS {
            return;
        }
        pings.borrow_mut().open += 1;
        self.sent.set(self.sent.get() + 1);
        tokio::task::spawn_local(async move {
            let began = clock::monotonic();
            let pong: RedisResult<String> = redis::cmd("PING").query_async(&mut connection).await;
            let micros = (clock::monotonic() - began) as f64 / 1e3;
            let mut pings = pings.borrow_mut();
            pings.open -= 1;
            // Who may not PING is refused in the same time.
            if pong.is_ok() || pong.is_err_and(|error| error.code() == Some("NOPERM")) {
                pings.over.push((began, micros));
            }
        });
    }

    /// The round trips that have ended since the last call.
    pub(super) fn pongs(&self) -> Vec<(Nanos, f64)> {
        std::mem::take(&mut self.pings.borrow_mut().over)
    }

    /// One whole look; gives what has happened. Levels and rates of masters are summed up in `total`; `of` names the
    /// server where there are several.
    pub(super) async fn look(
        &mut self,
        moment: Moment,
        is_master: bool,
        of: Option<&str>,
        total: &mut Total,
        denied: &mut Vec<&'static str>,
        out: &mut Watched,
    ) -> Result<Vec<(EventKind, String)>, RedisError> {
        let mut happened = Vec::new();
        let mut clients = 0.0;
        if let Some(text) = self.ask::<String>("INFO", redis::cmd("INFO").arg("all"), denied, out).await? {
            let info = Info::parse(&text);
            clients = info.number("connected_clients").unwrap_or(0.0);
            happened.extend(self.info(&info, moment, is_master, of, total, out));
            self.first.get_or_insert_with(|| info.clone());
            self.last = info;
        }
        if clients < MANY_CLIENTS || moment.second.is_multiple_of(10) {
            let list = self.ask::<String>("CLIENT LIST", redis::cmd("CLIENT").arg("LIST"), denied, out).await?;
            if let Some(text) = list.filter(|_| is_master) {
                self.clients(&Clients::parse(&text), moment, of.is_none(), total, out);
            }
        }
        happened.extend(self.slow(moment, of, denied, out).await?);
        happened.extend(self.latency(denied, out).await?);
        if moment.second.is_multiple_of(SETTINGS_EVERY) || out.fact_of("maxmemory-policy").is_none() {
            self.settings(denied, out).await?;
        }
        Ok(happened)
    }

    /// A command, unless it was denied before. A denial is told once.
    async fn ask<T: redis::FromRedisValue>(
        &mut self,
        what: &'static str,
        command: &redis::Cmd,
        denied: &mut Vec<&'static str>,
        out: &mut Watched,
    ) -> Result<Option<T>, RedisError> {
        if denied.contains(&what) {
            return Ok(None);
        }
        self.sent.set(self.sent.get() + 1);
        match command.query_async(&mut self.connection).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                let told = ProbeError::redis(&error, &Secret::new(""));
                if !told.is_denied() {
                    return Err(error);
                }
                denied.push(what);
                out.miss(what, told.to_string());
                Ok(None)
            }
        }
    }

    fn info(
        &mut self,
        info: &Info,
        moment: Moment,
        is_master: bool,
        of: Option<&str>,
        total: &mut Total,
        out: &mut Watched,
    ) -> Vec<(EventKind, String)> {
        let mut happened = Vec::new();
        let name = of.unwrap_or_default();
        let uptime = info.number("uptime_in_seconds").unwrap_or(0.0);
        if uptime < self.uptime {
            self.rates.forget();
            self.slowest = None;
            self.first = None;
            self.sent.set(0);
            happened.push((EventKind::Restarted, format!("{name} up for {uptime} s").trim_start().to_owned()));
        }
        self.uptime = uptime;
        happened.extend(self.role(info, of));
        let mut put = |gauge: Gauge, value: f64, sums: bool| {
            if of.is_some() {
                out.put(moment.second, gauge.clone(), of, value);
            }
            if is_master && sums {
                *total.entry(gauge).or_default() += value;
            } else if is_master {
                // Shares and the like do not sum up: the worst of the masters is told, which of hits are the fewest.
                let fewest = gauge == Gauge::HitShare;
                let worst = total.entry(gauge).or_insert(value);
                *worst = if fewest { worst.min(value) } else { worst.max(value) };
            }
        };
        for (key, gauge) in LEVELS {
            if let Some(value) = info.number(key) {
                put(gauge, value, true);
            }
        }
        put(Gauge::Keys, info.keys(), true);
        if let Some(value) = info.number("mem_fragmentation_ratio") {
            put(Gauge::Fragmentation, value, false);
        }
        let cpu = info.number("used_cpu_user").zip(info.number("used_cpu_sys"));
        if let Some(cores) = cpu.and_then(|(user, sys)| self.rates.per_second("cpu", user + sys, moment.at)) {
            put(Gauge::Cpu, cores, false);
        }
        for (key, gauge) in COUNTERS {
            // What we asked ourselves is nobody's load.
            let own = if gauge == Gauge::Operations { self.sent.get() as f64 } else { 0.0 };
            let Some(value) = info.number(key).map(|value| value - own) else { continue };
            let Some(rate) = self.rates.per_second(key, value, moment.at) else { continue };
            put(gauge.clone(), rate, true);
            let seen = match gauge {
                Gauge::Evicted => Some((EventKind::Evictions, "keys evicted a second")),
                Gauge::Rejected => Some((EventKind::MaxClients, "connections refused a second")),
                _ => None,
            };
            if let Some((kind, words)) = seen.filter(|_| rate > 0.0) {
                happened.push((kind, format!("{name} {rate:.1} {words}").trim_start().to_owned()));
            }
        }
        if let Some(share) = self.hits(info, moment) {
            put(Gauge::HitShare, share, false);
        }
        if let Some(behind) = behind(info) {
            put(Gauge::ReplicationBehind, behind, false);
        }
        limits(info, is_master, of, out);
        happened
    }

    fn role(&mut self, info: &Info, of: Option<&str>) -> Option<(EventKind, String)> {
        let role = info.text("role")?.to_owned();
        let before = self.role.replace(role.clone())?;
        // Where there are several, who leads is told by the Sentinel or the Cluster.
        (before != role && of.is_none()).then(|| (EventKind::Failover, format!("{before} -> {role}")))
    }

    fn hits(&mut self, info: &Info, moment: Moment) -> Option<f64> {
        let hits = info.number("keyspace_hits")?;
        let looked = hits + info.number("keyspace_misses")?;
        self.rates.mean("hits", hits, looked, moment.at)
    }

    fn clients(&mut self, clients: &Clients, moment: Moment, alone: bool, total: &mut Total, out: &mut Watched) {
        *total.entry(Gauge::BlockedClients).or_default() += clients.all.blocked;
        *total.entry(Gauge::OutputBuffers).or_default() += clients.all.output;
        if !alone {
            return;
        }
        for (name, crowd) in clients.groups.iter().take(GROUPS) {
            out.put(moment.second, Gauge::Connections, Some(name), crowd.connections);
            out.put(moment.second, Gauge::BlockedClients, Some(name), crowd.blocked);
            out.put(moment.second, Gauge::OutputBuffers, Some(name), crowd.output);
        }
    }

    /// New entries of the slow log: how many, and which command. What it was given is not repeated.
    async fn slow(
        &mut self,
        moment: Moment,
        of: Option<&str>,
        denied: &mut Vec<&'static str>,
        out: &mut Watched,
    ) -> Result<Option<(EventKind, String)>, RedisError> {
        let ask = redis::cmd("SLOWLOG").arg("GET").arg(1).to_owned();
        let Some(entries) = self.ask::<Vec<Vec<redis::Value>>>("SLOWLOG", &ask, denied, out).await? else {
            return Ok(None);
        };
        let number = |value: &redis::Value| match value {
            redis::Value::Int(number) => Some(*number),
            _ => None,
        };
        let newest = entries.first();
        let id = newest.and_then(|entry| number(entry.first()?)).unwrap_or(-1);
        let before = self.slowest.replace(id);
        let new = before.map_or(0, |before| (id - before).max(0));
        out.put(moment.second, Gauge::SlowCommands, of, new as f64);
        let Some(entry) = newest.filter(|_| new > 0) else { return Ok(None) };
        let micros = entry.get(2).and_then(number).unwrap_or(0);
        let words: Vec<String> =
            entry.get(3).and_then(|words| redis::from_redis_value(words.clone()).ok()).unwrap_or_default();
        let command = escaped(words.first().map_or("?", String::as_str), 40);
        Ok(Some((EventKind::Slow, format!("{} {command} took {:.1} ms", of.unwrap_or_default(), micros as f64 / 1e3))))
    }

    /// Spikes that the latency monitor has seen since the last look; it is off unless somebody switched it on.
    async fn latency(
        &mut self,
        denied: &mut Vec<&'static str>,
        out: &mut Watched,
    ) -> Result<Option<(EventKind, String)>, RedisError> {
        let ask = redis::cmd("LATENCY").arg("LATEST").to_owned();
        let asked = self.ask::<Vec<(String, i64, i64, i64)>>("LATENCY", &ask, denied, out).await?;
        let mut told = None;
        for (kind, at, latest_ms, _) in asked.unwrap_or_default() {
            let before = self.spikes.insert(kind.clone(), at);
            if before.is_some_and(|before| before != at) {
                told = Some((EventKind::Slow, format!("{} took {latest_ms} ms", escaped(&kind, 60))));
            }
        }
        Ok(told)
    }

    async fn settings(&mut self, denied: &mut Vec<&'static str>, out: &mut Watched) -> Result<(), RedisError> {
        let ask = redis::cmd("CONFIG").arg("GET").arg("max*").to_owned();
        let found = self.ask::<HashMap<String, String>>("CONFIG GET", &ask, denied, out).await?;
        for name in ["maxclients", "maxmemory", "maxmemory-policy"] {
            if let Some(value) = found.as_ref().and_then(|found| found.get(name)) {
                out.fact(name, escaped(value, 60));
            }
        }
        Ok(())
    }

    /// Commands since the first look: name, calls, microseconds. Ours are left out.
    pub(super) fn commands(&self) -> Vec<(String, f64, f64)> {
        let before = self.first.as_ref().map(Info::commands).unwrap_or_default();
        let own = [
            "ping",
            "info",
            "client|list",
            "client|setname",
            "slowlog|get",
            "latency|latest",
            "config|get",
            "cluster|nodes",
        ];
        let one = |(name, (calls, micros)): (String, (f64, f64))| {
            let (known, spent) = before.get(&name).copied().unwrap_or_default();
            (calls > known && !own.contains(&name.as_str())).then_some((name, calls - known, micros - spent))
        };
        self.last.commands().into_iter().filter_map(one).collect()
    }
}

/// How far the last replica of a master is behind, in bytes.
fn behind(info: &Info) -> Option<f64> {
    let offset = info.number("master_repl_offset")?;
    let replicas = (0..16).map_while(|number| info.text(&format!("slave{number}")));
    let offsets = replicas.filter_map(|replica| {
        let mut pairs = replica.split(',').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == "offset")?.1.parse::<f64>().ok()
    });
    offsets.map(|replica| (offset - replica).max(0.0)).reduce(f64::max)
}

/// The limits that `INFO` itself tells; a `maxmemory` of 0 is none.
fn limits(info: &Info, is_master: bool, of: Option<&str>, out: &mut Watched) {
    let limits = [("maxclients", Gauge::Connections), ("maxmemory", Gauge::Memory)];
    for (key, gauge) in limits {
        let Some(most) = info.number(key).filter(|most| *most > 0.0 && is_master) else { continue };
        out.limit(&gauge, of, most, LimitSource::Server);
    }
}
