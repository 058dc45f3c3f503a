//! Counters of the mock, and their Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::journal::TurnOutcome;

/// Upper bounds of the lateness histogram, in microseconds.
const LATENESS_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000];

/// Everything that the mock counts.
pub(crate) struct Metrics {
    pub(crate) tokens: AtomicU64,
    pub(crate) streams: AtomicI64,
    pub(crate) queued: AtomicI64,
    outcomes: Mutex<BTreeMap<String, u64>>,
    lateness: Mutex<Lateness>,
}

struct Lateness {
    histogram: Histogram<u64>,
    sum: Duration,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // One minute and three digits always make a histogram.
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds are constant and valid");
        Self {
            tokens: AtomicU64::new(0),
            streams: AtomicI64::new(0),
            queued: AtomicI64::new(0),
            outcomes: Mutex::default(),
            lateness: Mutex::new(Lateness { histogram, sum: Duration::ZERO }),
        }
    }

    /// Notes a sent token and how late it was.
    pub(crate) fn token(&self, late: Duration) {
        self.tokens.fetch_add(1, Relaxed);
        let mut lateness = lock(&self.lateness);
        lateness.histogram.saturating_record(late.as_micros() as u64);
        lateness.sum += late;
    }

    /// Notes an ended request.
    pub(crate) fn ended(&self, outcome: TurnOutcome) {
        let name = serde_json::to_value(outcome)
            .map_or_else(|_| String::new(), |value| value.as_str().unwrap_or_default().to_owned());
        *lock(&self.outcomes).entry(name).or_default() += 1;
    }

    /// The Prometheus text exposition format, version 0.0.4.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = text.write_fmt(args);
            text.push('\n');
        };
        line(format_args!("# HELP mock_llm_requests_total Ended requests by outcome."));
        line(format_args!("# TYPE mock_llm_requests_total counter"));
        for (outcome, count) in lock(&self.outcomes).iter() {
            line(format_args!("mock_llm_requests_total{{outcome=\"{outcome}\"}} {count}"));
        }
        for (name, kind, help, value) in [
            ("tokens_total", "counter", "Tokens handed to sockets.", self.tokens.load(Relaxed) as i64),
            ("streams_in_flight", "gauge", "Admitted requests not ended yet.", self.streams.load(Relaxed)),
            ("queued", "gauge", "Requests waiting for a slot.", self.queued.load(Relaxed)),
        ] {
            line(format_args!("# HELP mock_llm_{name} {help}"));
            line(format_args!("# TYPE mock_llm_{name} {kind}"));
            line(format_args!("mock_llm_{name} {value}"));
        }
        let lateness = lock(&self.lateness);
        line(format_args!("# HELP mock_llm_lateness_seconds Lateness of tokens against their schedule."));
        line(format_args!("# TYPE mock_llm_lateness_seconds histogram"));
        for bound in LATENESS_BOUNDS_US {
            let count = lateness.histogram.count_between(0, bound);
            line(format_args!("mock_llm_lateness_seconds_bucket{{le=\"{}\"}} {count}", bound as f64 / 1e6));
        }
        let count = lateness.histogram.len();
        line(format_args!("mock_llm_lateness_seconds_bucket{{le=\"+Inf\"}} {count}"));
        line(format_args!("mock_llm_lateness_seconds_sum {}", lateness.sum.as_secs_f64()));
        line(format_args!("mock_llm_lateness_seconds_count {count}"));
        line(format_args!("# HELP mock_llm_lateness_quantile_seconds Quantiles of the lateness since start."));
        line(format_args!("# TYPE mock_llm_lateness_quantile_seconds gauge"));
        for quantile in [0.5, 0.99, 0.999, 1.0] {
            let value = lateness.histogram.value_at_quantile(quantile) as f64 / 1e6;
            line(format_args!("mock_llm_lateness_quantile_seconds{{quantile=\"{quantile}\"}} {value}"));
        }
        text
    }
}

/// A lock whose holder panicked still guards plain counters.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
