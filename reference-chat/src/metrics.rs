//! What the deployment tells of itself at `/metrics`, in Prometheus' text format and with
//! LibreChat's names; those of the pool are the reference's own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of a wait for a connection, in seconds.
const CHECKOUT: [f64; 13] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// Upper bounds of a query, in seconds.
const QUERY: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// A histogram with fixed buckets.
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One a bound, and one for what is above all of them.
    counts: Vec<AtomicU64>,
    sum_micros: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_micros: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str) {
        let _ = writeln!(out, "# TYPE {name} histogram");
        let mut total = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            total += count.load(Relaxed);
            let _ = match self.bounds.get(bucket) {
                Some(bound) => writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}"),
                None => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}"),
            };
        }
        let _ = writeln!(out, "{name}_sum {}", self.sum_micros.load(Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {total}");
    }
}

/// Buckets of [`Lag`]: eight to each doubling of a microsecond, up to some 36 hours.
const LAG_BUCKETS: usize = 280;

/// How long work waited for its event loop, since it was last asked for.
pub(crate) struct Lag {
    counts: Vec<AtomicU64>,
}

impl Default for Lag {
    fn default() -> Self {
        Self { counts: (0..LAG_BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Lag {
    pub(crate) fn observe(&self, waited: Duration) {
        self.counts[bucket(waited.as_micros() as u64)].fetch_add(1, Relaxed);
    }

    /// Median and 99th percentile in seconds, 12 % too large at most; the counts begin anew.
    fn take(&self) -> (f64, f64) {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.swap(0, Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let at = |percent: u64| {
            let wanted = (total * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.filter(|_| total > 0).map_or(0.0, |found| highest(found) as f64 / 1e6)
        };
        (at(50), at(99))
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let doubling = micros.ilog2();
    let eighth = (micros >> (doubling - 3)) & 7;
    (((doubling - 2) * 8) as usize + eighth as usize).min(LAG_BUCKETS - 1)
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (doubling, eighth) = (bucket / 8 + 2, (bucket % 8) as u64);
    ((8 + eighth + 1) << (doubling - 3)) - 1
}

/// A number of things that are under way.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicI64>);

/// One thing that is under way, as long as it lives.
pub(crate) struct Held(Gauge);

impl Gauge {
    pub(crate) fn add(&self, number: i64) {
        self.0.fetch_add(number, Relaxed);
    }

    pub(crate) fn hold(&self) -> Held {
        self.add(1);
        Held(self.clone())
    }

    fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// The driver's pool.
pub(crate) struct Pool {
    pub(crate) max: Gauge,
    pub(crate) open: Gauge,
    pub(crate) busy: Gauge,
    pub(crate) checkout: Histogram,
    pub(crate) query: Histogram,
}

/// All that is told.
pub(crate) struct Metrics {
    pub(crate) streams: Gauge,
    pub(crate) jobs: Gauge,
    pub(crate) lag: Arc<Lag>,
    /// There without a database too, with nothing in it: a scraper finds the names.
    pub(crate) pool: Pool,
    requests: Mutex<BTreeMap<(String, &'static str, u16), u64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            streams: Gauge::default(),
            jobs: Gauge::default(),
            lag: Arc::default(),
            pool: Pool {
                max: Gauge::default(),
                open: Gauge::default(),
                busy: Gauge::default(),
                checkout: Histogram::new(&CHECKOUT),
                query: Histogram::new(&QUERY),
            },
            requests: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that was answered. What is no usual method is counted as `OTHER`, so that
    /// nobody can make ever more series.
    pub(crate) fn answered(&self, method: &str, path: &str, status: u16) {
        let method = match method {
            "GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH" => method,
            _ => "OTHER",
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method.to_owned(), route_class(path), status)).or_default() += 1;
    }

    /// The text of a scrape; the event loops' lag begins anew with it.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let (median, high) = self.lag.take();
        for (name, value) in [
            ("sse_streams_in_flight", self.streams.value() as f64),
            ("generation_jobs_in_flight", self.jobs.value() as f64),
            ("nodejs_eventloop_lag_p50_seconds", median),
            ("nodejs_eventloop_lag_p99_seconds", high),
            ("mongo_pool_max_size", self.pool.max.value() as f64),
            ("mongo_pool_connections_open", self.pool.open.value() as f64),
            ("mongo_pool_connections_busy", self.pool.busy.value() as f64),
        ] {
            let _ = writeln!(out, "# TYPE {name} gauge\n{name} {value}");
        }
        self.pool.query.write(&mut out, "mongoose_query_duration_seconds");
        self.pool.checkout.write(&mut out, "mongo_pool_checkout_wait_seconds");
        let _ = writeln!(out, "# TYPE http_requests_total counter");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, class, status), count) in requests.iter() {
            let _ = writeln!(
                out,
                "http_requests_total{{method=\"{method}\",route_class=\"{class}\",status=\"{status}\"}} {count}"
            );
        }
        out
    }
}

fn route_class(path: &str) -> &'static str {
    match path {
        "/metrics" => "metrics",
        "/health" | "/livez" | "/readyz" => "health",
        _ if path.starts_with("/api/auth/") => "auth",
        _ if path.starts_with("/api/agents/") => "chat",
        _ if path.starts_with("/api/") => "api",
        _ => "page",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_and_its_bounds_belong_to_it() {
        let metrics = Metrics::default();
        for millis in [1, 3, 100_000] {
            metrics.pool.checkout.observe(Duration::from_millis(millis));
        }
        let text = metrics.text();
        for line in [
            "mongo_pool_checkout_wait_seconds_bucket{le=\"0.0005\"} 0",
            "mongo_pool_checkout_wait_seconds_bucket{le=\"0.001\"} 1",
            "mongo_pool_checkout_wait_seconds_bucket{le=\"0.005\"} 2",
            "mongo_pool_checkout_wait_seconds_bucket{le=\"5\"} 2",
            "mongo_pool_checkout_wait_seconds_bucket{le=\"+Inf\"} 3",
            "mongo_pool_checkout_wait_seconds_sum 100.004",
            "mongo_pool_checkout_wait_seconds_count 3",
            "mongoose_query_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn lag_is_told_once() {
        let metrics = Metrics::default();
        for _ in 0..98 {
            metrics.lag.observe(Duration::from_millis(10));
        }
        metrics.lag.observe(Duration::from_secs(1));
        metrics.lag.observe(Duration::from_secs(1));
        let (median, high) = metrics.lag.take();
        assert!((0.010..0.0115).contains(&median), "{median}");
        assert!((1.0..1.15).contains(&high), "{high}");
        assert_eq!(metrics.lag.take(), (0.0, 0.0));
    }

    #[test]
    fn every_bucket_ends_where_the_next_begins() {
        for number in 0..LAG_BUCKETS - 1 {
            assert_eq!(bucket(highest(number)), number);
            assert_eq!(bucket(highest(number) + 1), number + 1);
        }
        assert_eq!(bucket(u64::MAX), LAG_BUCKETS - 1);
    }

    #[test]
    fn what_is_under_way_counts_while_it_lives_and_requests_by_their_class() {
        let metrics = Metrics::default();
        let one = metrics.streams.hold();
        assert!(metrics.text().contains("\nsse_streams_in_flight 1\n"));
        drop(one);
        assert!(metrics.text().contains("\nsse_streams_in_flight 0\n"));
        metrics.answered("GET", "/api/agents/chat/active", 200);
        metrics.answered("BREW", "/api/agents/chat/active", 404);
        let text = metrics.text();
        assert!(text.contains("http_requests_total{method=\"GET\",route_class=\"chat\",status=\"200\"} 1"), "{text}");
        assert!(text.contains("method=\"OTHER\""), "{text}");
    }
}
