//! Probes: what stores, processes and endpoints do while users talk, as series on the run's clock.
//!
//! All of them run on one thread beside the shards. Nothing that a probe meets fails a run: what could not be seen is
//! a gap or is missing, with the reason.

mod error;
mod health;
mod mongo;
mod pace;
mod process;
mod prometheus;
mod redis;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::{self, Nanos, SECOND};
use crate::net::Endpoint;
use crate::record::{Probe, Watched};
use crate::scenario::{MongoProbe, ProcessProbe, PrometheusProbe, Which};
use crate::secret::{Secret, escaped};
pub use error::ProbeError;
pub use mongo::{Demand, audit, mongo_pools};
pub use redis::redis_pools;

/// How long one look at something may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last words of a probe may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two looks at most things.
const SECONDLY: Duration = Duration::from_secs(1);
/// Between two round trips of what is asked often.
const OFTEN: Duration = Duration::from_millis(100);

/// The longest name of what is watched.
const NAME: usize = 200;
/// The name under which probes are known to stores, so that they can be told from the deployment.
pub const APP_NAME: &str = "capacity-check";

/// What is to be watched, with what lets us in.
pub enum Wanted {
    /// A MongoDB, and what the environment of the deployment's processes says of its pools.
    Mongo {
        /// Its connection string.
        uri: Secret,
        /// What is known of the deployment.
        settings: MongoProbe,
        /// The processes that may use it.
        processes: Vec<ProcessProbe>,
    },
    /// A Redis.
    Redis {
        /// Its URL.
        url: Secret,
    },
    /// Processes or a control group.
    Process(ProcessProbe),
    /// A cheap path.
    Health {
        /// Where it is asked, by the way that the users take.
        endpoint: Box<Endpoint>,
        /// What is asked.
        url: url::Url,
    },
    /// Prometheus metrics.
    Prometheus {
        /// The HTTP client.
        client: reqwest::Client,
        /// What is asked, and kept.
        settings: PrometheusProbe,
        /// Its bearer token.
        bearer: Option<Secret>,
    },
}

impl Wanted {
    /// What is told of it before anything was seen.
    fn blank(&self) -> Watched {
        let (probe, name) = match self {
            Self::Mongo { uri, .. } => (Probe::Mongo, uri.hosts()),
            Self::Redis { url } => (Probe::Redis, url.hosts()),
            Self::Process(ProcessProbe { name, which: Which::Cgroup(_) }) => (Probe::Cgroup, name.clone()),
            Self::Process(ProcessProbe { name, .. }) => (Probe::Process, name.clone()),
            Self::Health { url, .. } => (Probe::Health, url.to_string()),
            Self::Prometheus { settings, .. } => (Probe::Prometheus, settings.url.to_string()),
        };
        Watched::new(probe, escaped(&name, NAME))
    }
}

/// What a probe says of itself when it begins.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// What is watched, such as `MongoDB 127.0.0.1:27017 (6.0.5)`; or why it cannot be.
    pub said: Result<String, String>,
}

/// Probes at work.
pub struct Watching {
    epoch: Arc<AtomicI64>,
    /// What is told of each, should it break off.
    blanks: Vec<Watched>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Vec<Watched>>,
    introductions: mpsc::UnboundedReceiver<Introduction>,
    expected: usize,
}

/// When a probe looks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// Seconds of the run.
    at_s: f64,
    /// The second that a measurement belongs to.
    second: u32,
    /// The moment itself.
    at: Nanos,
    /// When the run began; whatever was before belongs to its second 0.
    epoch: Nanos,
}

impl Moment {
    fn of(at: Nanos, epoch: Nanos) -> Self {
        let at_s = at.saturating_sub(epoch).max(0) as f64 / SECOND as f64;
        Self { at_s, second: at_s.round() as u32, at, epoch }
    }

    /// Another moment of the same run.
    fn at(self, at: Nanos) -> Self {
        Self::of(at, self.epoch)
    }
}

/// One probe.
enum Watcher {
    Mongo(Box<mongo::Mongo>),
    Redis(Box<redis::Redis>),
    Processes(process::Processes),
    Cgroup(process::Cgroup),
    Health(health::Health),
    Prometheus(prometheus::Scraper),
}

impl Watcher {
    fn new(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Mongo { uri, settings, processes } => {
                Self::Mongo(Box::new(mongo::Mongo::new(uri, settings, &processes)))
            }
            Wanted::Redis { url } => Self::Redis(Box::new(redis::Redis::new(url))),
            Wanted::Process(ProcessProbe { which: Which::Cgroup(folder), .. }) => {
                Self::Cgroup(process::Cgroup::new(folder))
            }
            Wanted::Process(probe) => Self::Processes(process::Processes::new(probe.which)),
            Wanted::Health { endpoint, url } => Self::Health(health::Health::new(*endpoint, &url)),
            Wanted::Prometheus { client, settings, bearer } => {
                Self::Prometheus(prometheus::Scraper::new(client, settings, bearer))
            }
        }
    }

    fn period(&self) -> Duration {
        match self {
            Self::Redis(_) | Self::Health(_) => OFTEN,
            _ => SECONDLY,
        }
    }

    /// Looks once. What only a part of it could not be seen is noted as missing.
    async fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        match self {
            Self::Mongo(mongo) => mongo.look(moment, out).await,
            Self::Redis(redis) => redis.look(moment, out).await,
            Self::Processes(processes) => processes.look(moment, out),
            Self::Cgroup(group) => group.look(moment, out),
            Self::Health(health) => health.look(moment, out).await,
            Self::Prometheus(scraper) => scraper.look(moment, out).await,
        }
    }

    /// What is known only at the end.
    async fn last_words(&mut self, out: &mut Watched) {
        match self {
            Self::Mongo(mongo) => mongo.last_words(out),
            Self::Redis(redis) => redis.last_words(out).await,
            Self::Health(health) => health.last_words(out),
            _ => {}
        }
    }
}

impl Watching {
    /// Begins to watch, before the run itself does.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(wanted: Vec<Wanted>) -> io::Result<Self> {
        let epoch = Arc::new(AtomicI64::new(Nanos::MAX));
        let counted = Arc::clone(&epoch);
        let blanks: Vec<Watched> = wanted.iter().map(Wanted::blank).collect();
        let (stop, stopped) = watch::channel(false);
        let (introduce, introductions) = mpsc::unbounded_channel();
        let expected = wanted.len();
        let begun = blanks.clone();
        let thread = std::thread::Builder::new().name("probes".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            match runtime {
                Ok(runtime) => {
                    let seen = runtime.block_on(watch_all(wanted, begun, &counted, &stopped, &introduce));
                    // The drivers' own tasks may hang on a dead server.
                    runtime.shutdown_background();
                    seen
                }
                Err(_) => Vec::new(),
            }
        })?;
        Ok(Self { epoch, blanks, stop, thread, introductions, expected })
    }

    /// The run begins: its seconds count from `epoch`.
    pub fn run_begins(&self, epoch: Nanos) {
        self.epoch.store(epoch, Relaxed);
    }

    /// The first words of every probe that has any within a while.
    pub async fn introductions(&mut self) -> Vec<Introduction> {
        let mut all = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE + SECONDLY;
        while all.len() < self.expected {
            match tokio::time::timeout_at(deadline, self.introductions.recv()).await {
                Ok(Some(introduction)) => all.push(introduction),
                _ => break,
            }
        }
        all
    }

    /// Stops all probes, and gives what they have seen. Bounded by the time that one look may take.
    pub async fn end(self) -> Vec<Watched> {
        self.stop.send_replace(true);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        joined.ok().and_then(Result::ok).unwrap_or_else(|| self.blanks.into_iter().map(broken_off).collect())
    }
}

/// What is told of a probe whose thread has died.
fn broken_off(mut watched: Watched) -> Watched {
    watched.miss(&watched.name.clone(), "the probes broke off, which is a bug of capacity-check");
    watched
}

async fn watch_all(
    wanted: Vec<Wanted>,
    blanks: Vec<Watched>,
    epoch: &AtomicI64,
    stopped: &watch::Receiver<bool>,
    introduce: &mpsc::UnboundedSender<Introduction>,
) -> Vec<Watched> {
    let all = wanted.into_iter().zip(blanks).map(|(wanted, blank)| {
        let watcher = Watcher::new(wanted);
        watch_one(watcher, blank, epoch, stopped.clone(), introduce.clone())
    });
    futures_util::future::join_all(all).await
}

/// Looks again and again until told to stop.
async fn watch_one(
    mut watcher: Watcher,
    mut out: Watched,
    epoch: &AtomicI64,
    mut stopped: watch::Receiver<bool>,
    introduce: mpsc::UnboundedSender<Introduction>,
) -> Watched {
    let mut tick = tokio::time::interval(watcher.period());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut introduce = Some(introduce);
    let mut ever = false;
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = tick.tick() => {}
        }
        let moment = Moment::of(clock::monotonic(), epoch.load(Relaxed));
        let looked = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            looked = tokio::time::timeout(PATIENCE, watcher.look(moment, &mut out)) => looked,
        };
        let looked = looked.unwrap_or(Err(ProbeError::Silent { seconds: PATIENCE.as_secs() }));
        match &looked {
            Ok(()) => {
                ever = true;
                out.seen(moment.at_s);
            }
            Err(error) => {
                out.blind(moment.at_s, error.to_string());
            }
        }
        if let Some(introduce) = introduce.take() {
            let said = looked.map(|()| introduction(&out)).map_err(|error| error.to_string());
            let said = said.map_err(|why| format!("{} cannot be watched: {why}", titled(&out)));
            // Nobody may be listening any more.
            let _ = introduce.send(Introduction { said });
        }
    }
    // A limit of what was never measured is none of anything.
    out.series.retain(|series| !series.points.is_empty());
    if ever {
        let _ = tokio::time::timeout(LAST_WORDS, watcher.last_words(&mut out)).await;
    } else if let Some(gap) = out.gaps.first().cloned() {
        // What was never seen has no gaps: it is missing, where not each part of it is already.
        out.gaps.clear();
        if out.missing.is_empty() {
            out.miss(&out.name.clone(), gap.why);
        }
    }
    out
}

fn titled(out: &Watched) -> String {
    let kind = match out.probe {
        Probe::Mongo => "MongoDB ",
        Probe::Redis => "Redis ",
        Probe::Process | Probe::Cgroup => "",
        Probe::Health => "health ",
        Probe::Prometheus => "metrics ",
    };
    format!("{kind}{}", out.name)
}

fn introduction(out: &Watched) -> String {
    let facts: Vec<&str> = out.facts.iter().take(2).map(|(_, value)| value.as_str()).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    let missing: String =
        out.missing.iter().map(|missing| format!("; without {}: {}", missing.what, missing.why)).collect();
    format!("{}{facts}{missing}", titled(out))
}

/// Differences of counters between two looks, as rates.
#[derive(Debug, Default)]
struct Rates {
    before: HashMap<String, (f64, Nanos)>,
}

impl Rates {
    /// How much a counter grew a second since it was last told; `None` at first, and after a restart.
    fn per_second(&mut self, name: &str, value: f64, at: Nanos) -> Option<f64> {
        let (grown, took) = self.grown(name, value, at)?;
        Some(grown / (took as f64 / SECOND as f64))
    }

    /// How much a counter grew, and in what time.
    fn grown(&mut self, name: &str, value: f64, at: Nanos) -> Option<(f64, Nanos)> {
        let before = match self.before.get_mut(name) {
            Some(before) => std::mem::replace(before, (value, at)),
            None => {
                self.before.insert(name.to_owned(), (value, at));
                return None;
            }
        };
        let took = at - before.1;
        (value >= before.0 && took > 0).then_some((value - before.0, took))
    }

    /// The mean of what was summed up, of a sum and its count: as histograms and latencies are told.
    fn mean(&mut self, name: &str, sum: f64, count: f64, at: Nanos) -> Option<f64> {
        let sum = self.grown(&format!("{name} sum"), sum, at);
        let count = self.grown(&format!("{name} count"), count, at);
        let ((sum, _), (count, _)) = (sum?, count?);
        (count > 0.0).then(|| sum / count)
    }

    /// Counters whose names end so are of no more use.
    fn forget_ending(&mut self, end: &str) {
        self.before.retain(|name, _| !name.ends_with(end));
    }

    /// Everything is counted anew.
    fn forget(&mut self) {
        self.before.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_begin_with_the_second_look_and_anew_after_a_restart() {
        let mut rates = Rates::default();
        assert_eq!(rates.per_second("a", 10.0, 0), None);
        assert_eq!(rates.per_second("a", 30.0, 2 * SECOND), Some(10.0));
        assert_eq!(rates.per_second("a", 5.0, 3 * SECOND), None, "counted anew");
        assert_eq!(rates.per_second("a", 6.0, 4 * SECOND), Some(1.0));
        assert_eq!(rates.mean("l", 100.0, 10.0, 0), None);
        assert_eq!(rates.mean("l", 160.0, 12.0, SECOND), Some(30.0));
        assert_eq!(rates.mean("l", 160.0, 12.0, 2 * SECOND), None, "nothing was done");
    }
}
