//! Load of our own for pools: arrivals at random, as those of many users are, in bounded number.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::record::{PoolTrial, new_histogram};

/// How long one size is tried under one load: until a 99th percentile has its samples, but within these.
const TRIAL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// The operations that a 99th percentile wants.
const SAMPLES: f64 = 299.0;
/// Fewer operations a second than this tell no 99th percentile in the longest trial.
pub(super) const LEAST_PER_S: f64 = SAMPLES / 10.0;
/// The load, as multiples of what the run measured.
pub(super) const MULTIPLES: [f64; 3] = [1.0, 2.0, 4.0];
/// A size is enough where the wait's 99th percentile stays below this, in microseconds.
pub(super) const WAIT_LIMIT_US: u64 = 5_000;
/// The most operations a second that are driven: beyond it the generator would measure itself.
pub(super) const MOST_PER_S: f64 = 20_000.0;
/// The most operations that are under way at once; who comes then waits too long in any case.
const MOST_OPEN: usize = 5_000;

/// Times of one trial.
#[derive(Debug)]
pub(super) struct Times {
    /// Waits for a connection.
    pub(super) wait: Histogram<u64>,
    /// Operations, without the wait.
    pub(super) latency: Histogram<u64>,
    /// Operations that failed.
    pub(super) errors: u64,
    /// When those came who wait for a connection now, the first first.
    pub(super) waiting: VecDeque<Instant>,
}

/// Times that the driver's own tasks write.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Times>>);

impl Shared {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Times {
            wait: new_histogram(),
            latency: new_histogram(),
            errors: 0,
            waiting: VecDeque::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was before a trial.
    pub(super) fn begin(&self) {
        let mut times = self.lock();
        times.waiting.clear();
        times.wait.reset();
        times.latency.reset();
        times.errors = 0;
    }

    /// What a trial of so long has shown. Who still waits at its end counts with the time that he has waited so far:
    /// otherwise a pool that lets nobody through would look quick.
    pub(super) fn trial(&self, size: u32, multiple: f64, took: Duration) -> PoolTrial {
        let mut times = self.lock();
        let now = Instant::now();
        for came in std::mem::take(&mut times.waiting) {
            times.wait.saturating_record(now.duration_since(came).as_micros().max(1) as u64);
        }
        let at = |histogram: &Histogram<u64>, share| histogram.value_at_quantile(share);
        PoolTrial {
            size,
            multiple,
            pipeline: 0,
            operations: times.latency.len(),
            operations_per_s: times.latency.len() as f64 / took.as_secs_f64(),
            wait_p50_us: at(&times.wait, 0.5),
            wait_p99_us: at(&times.wait, 0.99),
            latency_p50_us: at(&times.latency, 0.5),
            latency_p99_us: at(&times.latency, 0.99),
            errors: times.errors,
        }
    }
}

/// Starts operations at random moments, `rate` a second on average, for the length of a trial. Equal seeds, equal
/// moments. Gives how long it took, and those that are still under way: whoever drops them gives them up.
pub(super) async fn drive<F>(rate: f64, seed: u64, operation: impl Fn() -> F) -> (Duration, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut open = JoinSet::new();
    let began = Instant::now();
    let (least, most) = TRIAL;
    let end = began + Duration::from_secs_f64(SAMPLES / rate.max(1e-3)).clamp(least, most);
    let mut next = began;
    while next < end {
        tokio::time::sleep_until(next).await;
        // A timer wakes a millisecond late: all that is due by now begins now.
        while next <= Instant::now() && next < end {
            if open.len() < MOST_OPEN {
                open.spawn(operation());
            }
            // The exponential gap of a Poisson process.
            let uniform: f64 = rng.random();
            next += Duration::from_secs_f64(-(1.0 - uniform).ln() / rate.max(1e-3));
        }
        while open.try_join_next().is_some() {}
    }
    // The last ones have their turn too before it is looked who waits.
    tokio::time::sleep_until(end).await;
    tokio::task::yield_now().await;
    (began.elapsed(), open)
}
