//! A set of histograms by metric.

use hdrhistogram::Histogram;

use crate::metric::Metric;

/// An empty histogram from 1 us to 1 h with three significant digits: 184 KiB of counters.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are constant and valid")
}

/// A histogram a metric, made when it is first needed.
#[derive(Debug, Clone, Default)]
pub struct Metrics([Option<Box<Histogram<u64>>>; Metric::COUNT]);

impl Metrics {
    /// Records a duration in microseconds; above an hour counts as an hour, below 1 us as 1 us.
    pub fn record(&mut self, metric: Metric, micros: u64) {
        self.entry(metric).saturating_record(micros.max(1));
    }

    fn entry(&mut self, metric: Metric) -> &mut Histogram<u64> {
        self.0[metric as usize].get_or_insert_with(|| Box::new(new_histogram()))
    }

    /// The histogram of a metric, if anything was recorded.
    pub fn get(&self, metric: Metric) -> Option<&Histogram<u64>> {
        self.0[metric as usize].as_deref()
    }

    /// How often a metric was recorded.
    pub fn count(&self, metric: Metric) -> u64 {
        self.get(metric).map_or(0, Histogram::len)
    }

    /// Adds what another set has recorded; exact.
    pub fn merge(&mut self, other: &Self) {
        for metric in Metric::ALL {
            if let Some(histogram) = other.get(metric) {
                let mine = self.entry(metric);
                mine.add(histogram).expect("both histograms have the same bounds");
            }
        }
    }
}
