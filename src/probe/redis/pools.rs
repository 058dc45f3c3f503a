//! How many connections should share a deployment's commands: tried, one pipeline at a time on each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connect;
use super::info::Info;
use super::topology::{Known, Topology, url_of};
use crate::probe::ProbeError;
use crate::probe::mongo::{Demand, too_few};
use crate::probe::pace::{LEAST_PER_S, MOST_PER_S, MULTIPLES, Shared, WAIT_LIMIT_US, drive};
use crate::record::{PoolStudy, PoolTrial, Probe, Smallest, Watched};
use crate::secret::Secret;

/// The numbers of connections that are tried.
const LADDER: [u32; 6] = [1, 3, 10, 30, 100, 300];
/// Commands that are sent together: alone, and as many as LibreChat sends for a token.
const PIPELINES: [u32; 2] = [1, 5];
/// Scratch keys, and how long one lives that nobody removed.
const KEYS: u64 = 64;
const TTL_S: u64 = 60;
/// No more than this share of the clients that may still come is taken.
const SHARE: f64 = 0.5;

/// Tries connections on scratch keys that are removed afterwards; `interrupted` ends it early. What goes wrong is told.
pub async fn redis_pools(url: &Secret, demand: Demand, run: &str, interrupted: impl Future<Output = ()>) -> PoolStudy {
    let mut study = PoolStudy {
        operations_per_s: demand.operations_per_s,
        operation_us: demand.concurrency / demand.operations_per_s.max(1e-9) * 1e6,
        concurrency: demand.concurrency,
        wait_limit_us: WAIT_LIMIT_US,
        ..PoolStudy::default()
    };
    if demand.operations_per_s < 1.0 {
        study.refused = Some("the run asked hardly anything of Redis, so there is nothing to try".to_owned());
        return study;
    }
    let prefix = format!("capacity-check:pools:{run}");
    let address = match master(url).await {
        Ok(address) => address,
        Err(error) => {
            study.refused = Some(error.to_string());
            return study;
        }
    };
    let tried = tokio::select! {
        tried = climb(&address, &prefix, &mut study) => tried.map_err(|error| ProbeError::redis(&error, url)),
        () = interrupted => Err(ProbeError::failed("interrupted")),
    };
    if let Err(error) = tried {
        study.refused = Some(error.to_string());
    }
    let removed = remove(&address, &prefix).await;
    study.left_behind =
        removed.err().map(|error| format!("keys {prefix}:* for {TTL_S} s: {}", ProbeError::redis(&error, url)));
    study
}

/// The server that takes writes. Of a Cluster the first master: its scratch keys share a slot.
async fn master(url: &Secret) -> Result<Secret, ProbeError> {
    let mut nobody = Watched::new(Probe::Redis, "");
    let (members, _) = Topology::find(url, &mut nobody).await?.members(url, &mut Known::default()).await?;
    let master = members.iter().find(|member| member.is_master && member.is_up);
    let address = master.and_then(|member| url_of(url, &member.address));
    let address = address.ok_or_else(|| ProbeError::failed("no master of it is up"))?;
    if members.iter().filter(|member| member.is_master).count() > 1 {
        return Err(ProbeError::failed("the commands of a Cluster are spread over its nodes; try one node by itself"));
    }
    Ok(address)
}

async fn remove(address: &Secret, prefix: &str) -> redis::RedisResult<()> {
    let mut connection = connect(address.expose(), "capacity-check-pools").await?;
    let keys: Vec<String> = (0..KEYS).map(|key| format!("{prefix}:{key}")).collect();
    redis::cmd("DEL").arg(keys).query_async(&mut connection).await
}

async fn climb(address: &Secret, prefix: &str, study: &mut PoolStudy) -> redis::RedisResult<()> {
    let mut own = connect(address.expose(), "capacity-check-pools").await?;
    let info: String = redis::cmd("INFO").arg("clients").query_async(&mut own).await?;
    let info = Info::parse(&info);
    let free = info.number("maxclients").zip(info.number("connected_clients")).map(|(most, now)| most - now);
    study.headroom = free;
    for pipeline in PIPELINES {
        let mut open = MULTIPLES.to_vec();
        for size in LADDER {
            if open.is_empty() {
                break;
            }
            if free.is_some_and(|free| f64::from(size) > free * SHARE) {
                study.refused = Some(format!(
                    "{size} connections are more than half of the {} that may still come; they were not tried",
                    free.unwrap_or(0.0)
                ));
                break;
            }
            let pool = Pool::warm(address, size, prefix).await?;
            for multiple in std::mem::take(&mut open) {
                let commands = study.operations_per_s * multiple;
                if commands / f64::from(pipeline) < LEAST_PER_S {
                    study.refused = Some(too_few(commands / f64::from(pipeline)));
                    continue;
                }
                if commands > MOST_PER_S {
                    study.refused =
                        Some(format!("{commands:.0} commands a second are more than is tried ({MOST_PER_S})"));
                    continue;
                }
                let trial = pool.trial(size, multiple, commands, pipeline).await;
                study.trials.push(trial);
                if trial.wait_p99_us >= WAIT_LIMIT_US || trial.errors > 0 {
                    open.push(multiple);
                } else if pipeline == PIPELINES[0] {
                    study.smallest.push(Smallest { multiple, size: Some(size) });
                }
            }
        }
        if pipeline == PIPELINES[0] {
            study.smallest.extend(open.into_iter().map(|multiple| Smallest { multiple, size: None }));
        }
    }
    study.smallest.sort_by(|one, other| one.multiple.total_cmp(&other.multiple));
    Ok(())
}

/// Connections that are free.
type Connections = Arc<Mutex<Vec<MultiplexedConnection>>>;

/// Connections that each carry one pipeline at a time.
struct Pool {
    free: Arc<Semaphore>,
    connections: Connections,
    times: Shared,
    prefix: String,
}

impl Pool {
    async fn warm(address: &Secret, size: u32, prefix: &str) -> redis::RedisResult<Self> {
        let mut connections = Vec::new();
        for _ in 0..size {
            connections.push(connect(address.expose(), "capacity-check-pools").await?);
        }
        Ok(Self {
            free: Arc::new(Semaphore::new(size as usize)),
            connections: Arc::new(Mutex::new(connections)),
            times: Shared::new(),
            prefix: prefix.to_owned(),
        })
    }

    async fn trial(&self, size: u32, multiple: f64, commands_per_s: f64, pipeline: u32) -> PoolTrial {
        self.times.begin();
        let number = AtomicU64::new(0);
        let (took, mut open) = drive(commands_per_s / f64::from(pipeline), u64::from(size), || {
            let key = number.fetch_add(1, Relaxed) % KEYS;
            let key = format!("{}:{key}", self.prefix);
            let (free, connections, times) =
                (Arc::clone(&self.free), Arc::clone(&self.connections), self.times.clone());
            // As it is made, and not when it first runs: so is one counted that never comes to run.
            let waiting = Waiting::begin(&times);
            async move {
                let came = Instant::now();
                let Ok(_permit) = free.acquire().await else { return };
                drop(waiting);
                times.lock().wait.saturating_record(came.elapsed().as_micros().max(1) as u64);
                let mut taken = Taken::from(&connections);
                let Some(connection) = taken.as_mut().and_then(|taken| taken.connection.as_mut()) else { return };
                let began = Instant::now();
                let done = commands(&key, pipeline).query_async::<()>(connection).await;
                drop(taken);
                let mut times = times.lock();
                match done {
                    Ok(()) => times.latency.saturating_record(began.elapsed().as_micros().max(1) as u64),
                    Err(_) => times.errors += 1,
                }
            }
        })
        .await;
        let trial = PoolTrial { pipeline, ..self.times.trial(size, multiple, took) };
        open.shutdown().await;
        trial
    }
}

/// Somebody who waits for a connection; one who is given up at the end still counts.
struct Waiting(Shared);

impl Waiting {
    fn begin(times: &Shared) -> Self {
        times.lock().waiting.push_back(Instant::now());
        Self(times.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A semaphore serves in the order in which it is asked.
        self.0.lock().waiting.pop_front();
    }
}

/// A connection that goes back to its pool, also where its user was given up.
struct Taken {
    pool: Connections,
    connection: Option<MultiplexedConnection>,
}

impl Taken {
    fn from(pool: &Connections) -> Option<Self> {
        let connection = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        connection.map(|connection| Self { pool: Arc::clone(pool), connection: Some(connection) })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).extend(self.connection.take());
    }
}

/// So many commands: a write that ends by itself, then look-ups.
fn commands(key: &str, count: u32) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("SET").arg(key).arg("scratch").arg("EX").arg(TTL_S).ignore();
    for _ in 1..count {
        pipeline.cmd("GET").arg(key).ignore();
    }
    pipeline
}
