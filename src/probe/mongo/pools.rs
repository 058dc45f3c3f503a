//! How large a pool of connections should be: tried, with operations as long and as many as the run had them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::event::command::CommandEvent;
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};

use super::{let_go, options, status};
use tokio::time::Instant;

use crate::probe::ProbeError;
use crate::probe::pace::{LEAST_PER_S, MOST_PER_S, MULTIPLES, Shared, WAIT_LIMIT_US, drive};
use crate::record::{PoolStudy, PoolTrial, Smallest};
use crate::secret::Secret;

/// The sizes that are tried.
const LADDER: [u32; 5] = [10, 50, 100, 200, 500];
/// No more than this share of what the server still has to give is taken.
const SHARE: f64 = 0.5;
/// How long a pool may take to open its connections, and our traces to be removed.
const WARM: Duration = Duration::from_secs(15);
/// Operations that tell how long one takes on an idle pool.
const FIRST: u32 = 20;
/// Connections that a pool opens at once.
const CONNECTING: u32 = 16;

/// What the run asked of its store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Operations a second.
    pub operations_per_s: f64,
    /// Operations at once.
    pub concurrency: f64,
}

/// What stands for an operation of the deployment.
#[derive(Debug, Clone)]
enum Operation {
    /// A look-up by `_id`: as quick as the run's operations were.
    Find,
    /// A `hello` that the server answers after so many milliseconds, which holds a connection as long as a slow
    /// operation does and costs the server nothing.
    Held(Document),
}

/// Tries pools, on a scratch database that is dropped afterwards; `interrupted` ends it early. What goes wrong is told.
pub async fn mongo_pools(uri: &Secret, demand: Demand, run: &str, interrupted: impl Future<Output = ()>) -> PoolStudy {
    let operation_us = demand.concurrency / demand.operations_per_s.max(1e-9) * 1e6;
    let mut study = PoolStudy {
        operations_per_s: demand.operations_per_s,
        operation_us: if operation_us.is_finite() { operation_us } else { 0.0 },
        concurrency: demand.concurrency,
        wait_limit_us: WAIT_LIMIT_US,
        ..PoolStudy::default()
    };
    if demand.operations_per_s < 1.0 {
        study.refused = Some("the run asked hardly anything of MongoDB, so there is nothing to try".to_owned());
        return study;
    }
    let scratch = format!("capacity_check_pools_{run}");
    let mut made = false;
    let tried = tokio::select! {
        tried = climb(uri, &scratch, &mut study, &mut made) => tried,
        () = interrupted => Err(ProbeError::failed("interrupted")),
    };
    if let Err(error) = tried {
        study.refused = Some(error.to_string());
    }
    if !made {
        return study;
    }
    let removed = tokio::time::timeout(WARM, remove(uri, &scratch)).await;
    let removed = removed.unwrap_or(Err(ProbeError::Silent { seconds: WARM.as_secs() }));
    study.left_behind = removed.err().map(|error| format!("database {scratch}: {error}"));
    study
}

/// Why a load is not tried.
pub(in crate::probe) fn too_few(rate: f64) -> String {
    format!("{rate:.1} operations a second are too few to tell a 99th percentile (it wants {LEAST_PER_S:.0})")
}

async fn remove(uri: &Secret, scratch: &str) -> Result<(), ProbeError> {
    let client = connected(options(uri).await?, uri)?;
    client.database(scratch).drop().await.map_err(|error| ProbeError::mongo(&error, uri))
}

fn connected(options: ClientOptions, uri: &Secret) -> Result<Client, ProbeError> {
    Client::with_options(options).map_err(|error| ProbeError::mongo(&error, uri))
}

/// `made` tells, before it is so, that there may be something to remove.
async fn climb(uri: &Secret, scratch: &str, study: &mut PoolStudy, made: &mut bool) -> Result<(), ProbeError> {
    let said = |error: mongodb::error::Error| ProbeError::mongo(&error, uri);
    let own = connected(options(uri).await?, uri)?;
    let told = own.database("admin").run_command(status::server_status()).await.map_err(said)?;
    let free = status::number(&told, "connections.available").unwrap_or(0.0);
    study.headroom = Some(free);
    let database = own.database(scratch);
    *made = true;
    let inserted = database.collection::<Document>("probe").insert_one(doc! { "_id": 1, "text": "scratch" }).await;
    inserted.map_err(said).inspect_err(|error| *made = !error.is_denied())?;
    let operation = operation(&database, study.operation_us).await.map_err(said)?;
    let mut open = MULTIPLES.to_vec();
    for size in LADDER {
        if open.is_empty() {
            break;
        }
        if f64::from(size) > free * SHARE {
            let more = format!("a pool of {size} is more than half of the {free} connections that are free");
            study.refused = Some(format!("{more}; it was not tried"));
            break;
        }
        let pool = Pool::warm(uri, size, scratch).await?;
        for multiple in std::mem::take(&mut open) {
            let rate = study.operations_per_s * multiple;
            if rate < LEAST_PER_S {
                study.refused = Some(too_few(rate));
                continue;
            }
            if rate > MOST_PER_S {
                study.refused = Some(format!("{rate:.0} operations a second are more than is tried ({MOST_PER_S})"));
                continue;
            }
            let trial = pool.trial(size, multiple, rate, &operation).await;
            study.trials.push(trial);
            if trial.wait_p99_us < WAIT_LIMIT_US && trial.errors == 0 {
                study.smallest.push(Smallest { multiple, size: Some(size) });
            } else {
                open.push(multiple);
            }
        }
        let_go(pool.client).await;
    }
    study.smallest.extend(open.into_iter().map(|multiple| Smallest { multiple, size: None }));
    study.smallest.sort_by(|one, other| one.multiple.total_cmp(&other.multiple));
    Ok(())
}

/// A look-up where that takes about as long as the run's operations did, and a held one where these took longer.
async fn operation(scratch: &Database, wanted_us: f64) -> Result<Operation, mongodb::error::Error> {
    let probe = scratch.collection::<Document>("probe");
    let began = Instant::now();
    for _ in 0..FIRST {
        probe.find_one(doc! { "_id": 1 }).await?;
    }
    let found_us = began.elapsed().as_micros() as f64 / f64::from(FIRST);
    let held_ms = (wanted_us / 1e3).round();
    if held_ms < 2.0 || found_us > wanted_us / 2.0 {
        return Ok(Operation::Find);
    }
    let hello = scratch.client().database("admin").run_command(doc! { "hello": 1 }).await?;
    Ok(match hello.get_document("topologyVersion") {
        Ok(version) => {
            Operation::Held(doc! { "hello": 1, "topologyVersion": version, "maxAwaitTimeMS": held_ms as i64 })
        }
        // Before 4.4 no server holds one.
        Err(_) => Operation::Find,
    })
}

/// A pool of one size, with all its connections open.
struct Pool {
    client: Client,
    scratch: Database,
    times: Shared,
}

impl Pool {
    async fn warm(uri: &Secret, size: u32, scratch: &str) -> Result<Self, ProbeError> {
        let mut options = options(uri).await?;
        let (times, ready) = (Shared::new(), Arc::new(AtomicU32::new(0)));
        options.max_pool_size = Some(size);
        options.min_pool_size = Some(size);
        options.max_connecting = Some(CONNECTING);
        let (heard, counted) = (times.clone(), Arc::clone(&ready));
        options.cmap_event_handler = Some(EventHandler::callback(move |event| match event {
            CmapEvent::ConnectionReady(_) => {
                counted.fetch_add(1, Relaxed);
            }
            CmapEvent::ConnectionCheckoutStarted(_) => heard.lock().waiting.push_back(Instant::now()),
            CmapEvent::ConnectionCheckoutFailed(_) => {
                let mut times = heard.lock();
                times.waiting.pop_front();
                times.errors += 1;
            }
            CmapEvent::ConnectionCheckedOut(event) => {
                let mut times = heard.lock();
                // A pool serves in the order in which it is asked.
                times.waiting.pop_front();
                times.wait.saturating_record(event.duration.as_micros().max(1) as u64);
            }
            _ => {}
        }));
        let heard = times.clone();
        options.command_event_handler = Some(EventHandler::callback(move |event| match event {
            CommandEvent::Succeeded(event) => {
                heard.lock().latency.saturating_record(event.duration.as_micros().max(1) as u64);
            }
            CommandEvent::Failed(_) => heard.lock().errors += 1,
            _ => {}
        }));
        let client = connected(options, uri)?;
        let scratch = client.database(scratch);
        let probe = scratch.collection::<Document>("probe");
        probe.find_one(doc! { "_id": 1 }).await.map_err(|error| ProbeError::mongo(&error, uri))?;
        let opened = async {
            while ready.load(Relaxed) < size {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(WARM, opened).await.is_err() {
            let (open, wait) = (ready.load(Relaxed), WARM.as_secs());
            return Err(ProbeError::failed(format!("only {open} of {size} connections opened in {wait} s")));
        }
        Ok(Self { client, scratch, times })
    }

    async fn trial(&self, size: u32, multiple: f64, rate: f64, operation: &Operation) -> PoolTrial {
        // Who was given up in the trial before is out of the queue in a moment.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.times.begin();
        let (took, mut open) = drive(rate, u64::from(size), || {
            let (scratch, operation) = (self.scratch.clone(), operation.clone());
            async move {
                // How it went is told by the driver's events.
                match operation {
                    Operation::Find => {
                        let _ = scratch.collection::<Document>("probe").find_one(doc! { "_id": 1 }).await;
                    }
                    Operation::Held(hello) => {
                        let _ = scratch.client().database("admin").run_command(hello).await;
                    }
                }
            }
        })
        .await;
        let trial = self.times.trial(size, multiple, took);
        open.shutdown().await;
        trial
    }
}
