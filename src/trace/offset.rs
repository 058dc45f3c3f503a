//! The distance of the mock's clock from ours, measured by exchanges with its clock endpoint.
//!
//! An exchange that took a round trip of `r` knows the distance to within `r / 2` (Cristian, "Probabilistic clock
//! synchronization", 1989). Of each few seconds the quickest exchange counts; a line through these, weighted by
//! how exact they are, gives distance and drift.

use crate::clock::{Nanos, SECOND};
use crate::record::Reading;

/// Of so long only the quickest exchange counts.
const WINDOW: Nanos = 5 * SECOND;
/// So many windows make the line.
const WINDOWS: usize = 24;
/// The readings that a result keeps.
const READINGS: usize = 200;
/// No clock that is any good drifts more.
const MOST_PPM: f64 = 2_000.0;

/// What is known about the distance.
#[derive(Debug, Clone, Default)]
pub struct Offset {
    /// Both are one clock: no correction.
    same: bool,
    points: Vec<Point>,
    /// The line: distance in nanoseconds at a moment, and drift.
    origin: Nanos,
    distance: f64,
    drift: f64,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Nanos,
    distance: f64,
    half: f64,
}

impl Offset {
    /// Both sides read the same clock.
    pub fn same_host() -> Self {
        Self { same: true, ..Self::default() }
    }

    /// Whether they do.
    pub fn is_same_host(&self) -> bool {
        self.same
    }

    /// An exchange: sent and answered at these moments of the run's clock, when the mock's clock stood at
    /// `theirs`, in nanoseconds; `ours` is the run's clock brought onto our wall clock.
    pub fn exchange(&mut self, sent: Nanos, answered: Nanos, theirs: Nanos, ours: impl Fn(Nanos) -> Nanos) {
        let at = sent + (answered - sent) / 2;
        let point = Point { at, distance: (theirs - ours(at)) as f64, half: ((answered - sent) as f64 / 2.0).max(1.0) };
        match self.points.last_mut() {
            Some(last) if last.at / WINDOW == at / WINDOW => {
                if point.half < last.half {
                    *last = point;
                }
            }
            _ => self.points.push(point),
        }
        self.fit();
    }

    fn fit(&mut self) {
        let recent = &self.points[self.points.len().saturating_sub(WINDOWS)..];
        let Some(last) = recent.last() else { return };
        self.origin = last.at;
        let weight = |point: &Point| point.half.powi(-2);
        let x = |point: &Point| (point.at - last.at) as f64;
        let sum = |value: &dyn Fn(&Point) -> f64| recent.iter().map(|point| weight(point) * value(point)).sum::<f64>();
        let all = sum(&|_| 1.0);
        let (mean_x, mean_y) = (sum(&x) / all, sum(&|point| point.distance) / all);
        let spread = sum(&|point| (x(point) - mean_x).powi(2));
        let slope = sum(&|point| (x(point) - mean_x) * (point.distance - mean_y)) / spread;
        self.drift = if slope.is_finite() && slope.abs() * 1e6 <= MOST_PPM { slope } else { 0.0 };
        self.distance = mean_y - self.drift * mean_x;
    }

    /// The mock's clock ahead of ours at a moment of the run's clock, in nanoseconds.
    pub fn at(&self, at: Nanos) -> Nanos {
        if self.same { 0 } else { (self.distance + self.drift * (at - self.origin) as f64) as Nanos }
    }

    /// A moment of the mock's wall clock on ours; `ours` brings a moment of our wall clock onto the run's clock.
    pub fn to_run(&self, theirs: Nanos, ours: impl Fn(Nanos) -> Nanos) -> Nanos {
        // The drift within the distance itself is far below what is known.
        let about = ours(theirs - self.at(self.origin));
        ours(theirs - self.at(about))
    }

    /// To within how much the distance is known, in microseconds; 0 on the same host.
    pub fn uncertainty_us(&self) -> f64 {
        let recent = self.points.iter().rev().take(WINDOWS).map(|point| point.half);
        if self.same { 0.0 } else { recent.fold(f64::INFINITY, f64::min) / 1e3 }
    }

    /// The drift in millionths.
    pub fn drift_ppm(&self) -> f64 {
        if self.same { 0.0 } else { self.drift * 1e6 }
    }

    /// The readings, at most 200 of them, in seconds since `epoch`.
    pub fn readings(&self, epoch: Nanos) -> Vec<Reading> {
        let step = self.points.len().div_ceil(READINGS).max(1);
        let reading = |point: &Point| Reading {
            t_s: (point.at - epoch) as f64 / SECOND as f64,
            offset_us: point.distance / 1e3,
            uncertainty_us: point.half / 1e3,
        };
        self.points.iter().step_by(step).map(reading).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the distance and the drift, and however uneven the ways are, moments of the mock come out
        /// right to within what the exchanges can know.
        #[test]
        fn distance_and_drift_are_recovered(
            distance in -3_600_000_000_000_i64..3_600_000_000_000,
            ppm in -200.0_f64..200.0,
            ways in proptest::collection::vec((50_000_i64..3_000_000, 50_000_i64..3_000_000), 200),
        ) {
            let theirs = |at: Nanos| at + distance + (at as f64 * ppm / 1e6) as Nanos;
            let mut offset = Offset::default();
            for (number, (there, back)) in ways.into_iter().enumerate() {
                let sent = number as Nanos * SECOND / 4;
                offset.exchange(sent, sent + there + back, theirs(sent + there), |at| at);
            }
            prop_assert!((offset.drift_ppm() - ppm).abs() < 60.0, "{} for {ppm}", offset.drift_ppm());
            for at in [0, 20 * SECOND, 50 * SECOND] {
                let error = (offset.to_run(theirs(at), |wall| wall) - at).abs();
                prop_assert!(error < 1_500_000, "{error} ns at {at}");
            }
        }
    }

    #[test]
    fn the_same_clock_needs_no_correction() {
        let same = Offset::same_host();
        assert_eq!((same.to_run(42, |wall| wall), same.uncertainty_us(), same.at(7)), (42, 0.0, 0));
    }
}
