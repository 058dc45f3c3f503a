//! When the turns of an open load come: arithmetic on time, by inverting the rate's integral.
//!
//! Of a Poisson process whose rate changes, the integrals of the rate up to its arrivals are a Poisson process of rate 1
//! (Cinlar, "Introduction to Stochastic Processes", 1975, section 4.7), so every process here is a sequence of such
//! integrals: whole numbers for even arrivals, sums of exponential draws for random ones.

use std::sync::Arc;

use mock_llm::script::stable_hash;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clock::{self, Nanos, SECOND};
use crate::scenario::Process;

/// A rate that goes from one value to another in a straight line, and stays there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Turns a second at the beginning.
    pub from: f64,
    /// Turns a second from the end of the change on.
    pub to: f64,
    /// How long the change takes, in seconds.
    pub over: f64,
}

impl Rate {
    /// Turns in the first `t` seconds, on average.
    pub fn integral(&self, t: f64) -> f64 {
        let changing = t.min(self.over);
        let slope = if self.over > 0.0 { (self.to - self.from) / self.over } else { 0.0 };
        self.from * changing + slope * changing * changing / 2.0 + self.to * (t - changing)
    }

    /// After how many seconds so many turns have come, on average; `None`: never.
    pub fn inverse(&self, turns: f64) -> Option<f64> {
        let changed = self.integral(self.over);
        if turns >= changed {
            return (self.to > 0.0).then(|| self.over + (turns - changed) / self.to);
        }
        let slope = (self.to - self.from) / self.over;
        // The smaller root of slope/2 t² + from t = turns, in the form that does not cancel.
        let root = (self.from * self.from + 2.0 * slope * turns).max(0.0).sqrt();
        Some(2.0 * turns / (self.from + root).max(f64::MIN_POSITIVE))
    }
}

/// The moments at which the turns of one tier come, from the tier's beginning, rising.
#[derive(Debug, Clone)]
pub struct Moments {
    process: Process,
    rate: Rate,
    rng: ChaCha8Rng,
    /// The rate's integral up to the newest arrival.
    integral: f64,
    /// How many have come.
    count: usize,
}

impl Moments {
    /// Of a tier, by number: equal seeds give equal moments.
    pub fn new(process: &Process, rate: Rate, seed: u64, tier: usize) -> Self {
        let seed = stable_hash(&[b"arrivals", &seed.to_le_bytes(), &tier.to_le_bytes()]);
        Self { process: process.clone(), rate, rng: ChaCha8Rng::seed_from_u64(seed), integral: 0.0, count: 0 }
    }
}

impl Iterator for Moments {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        self.integral += match &self.process {
            Process::Offsets(all) => {
                let moment = all.get(self.count).copied();
                self.count += 1;
                return moment;
            }
            // Half a step first: the arrivals of a span are as many as its integral, to within half of one.
            Process::Constant if self.count == 0 => 0.5,
            Process::Constant => 1.0,
            Process::Poisson => -(1.0 - self.rng.random::<f64>()).ln(),
        };
        self.count += 1;
        let seconds = self.rate.inverse(self.integral)?;
        Some((seconds * SECOND as f64).min(Nanos::MAX as f64 / 4.0) as Nanos)
    }
}

/// The moments of a file: a number of seconds a line, rising; blank lines and lines that begin with `#` are passed over.
///
/// # Errors
/// A sentence with the line.
pub fn offsets(text: &str) -> Result<Arc<[Nanos]>, String> {
    let mut moments: Vec<Nanos> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let seconds: f64 = line.parse().map_err(|_| format!("line {number}: `{line:.40}` is no number of seconds"))?;
        if !(0.0..=30.0 * 86_400.0).contains(&seconds) {
            return Err(format!("line {number}: should be from 0 s to 30 days"));
        }
        let moment = clock::nanos(std::time::Duration::from_secs_f64(seconds));
        if moments.last().is_some_and(|last| moment < *last) {
            return Err(format!("line {number}: is before the line above; moments should rise"));
        }
        moments.push(moment);
    }
    if moments.is_empty() { Err("has no moment".to_owned()) } else { Ok(moments.into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moments(process: Process, rate: Rate, seed: u64, until: f64) -> Vec<Nanos> {
        let until = (until * SECOND as f64) as Nanos;
        Moments::new(&process, rate, seed, 0).take_while(|moment| *moment < until).collect()
    }

    proptest! {
        /// Even arrivals up to any moment are what the rate's integral says, to within one, and they rise.
        #[test]
        fn even_arrivals_integrate_to_the_rate(
            from in 0.0_f64..100.0, to in 0.0_f64..100.0, over in 0.0_f64..20.0, until in 0.1_f64..40.0,
        ) {
            let rate = Rate { from, to, over };
            let all = moments(Process::Constant, rate, 1, until);
            prop_assert!((all.len() as f64 - rate.integral(until)).abs() <= 0.5 + 1e-6);
            prop_assert!(all.is_sorted());
        }

        /// The inverse undoes the integral.
        #[test]
        fn the_inverse_is_one(from in 0.1_f64..50.0, to in 0.1_f64..50.0, over in 0.0_f64..20.0, t in 0.0_f64..40.0) {
            let rate = Rate { from, to, over };
            let back = rate.inverse(rate.integral(t)).unwrap();
            prop_assert!((back - t).abs() < 1e-6 * (1.0 + t), "{back} {t}");
        }
    }

    #[test]
    fn random_arrivals_have_mean_and_variance_of_poisson() {
        let rate = Rate { from: 0.0, to: 20.0, over: 10.0 };
        let counts: Vec<f64> = (0..400).map(|seed| moments(Process::Poisson, rate, seed, 20.0).len() as f64).collect();
        let mean = counts.iter().sum::<f64>() / 400.0;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 399.0;
        // 300 on average; five standard errors.
        assert!((mean - 300.0).abs() < 5.0 * (300.0_f64 / 400.0).sqrt(), "{mean}");
        assert!((variance / 300.0 - 1.0).abs() < 5.0 * (2.0_f64 / 399.0).sqrt(), "{variance}");
        assert_eq!(moments(Process::Poisson, rate, 3, 5.0), moments(Process::Poisson, rate, 3, 5.0));
        assert_ne!(moments(Process::Poisson, rate, 3, 5.0), moments(Process::Poisson, rate, 4, 5.0));
    }

    #[test]
    fn a_rate_of_nothing_brings_nobody() {
        assert!(moments(Process::Poisson, Rate { from: 0.0, to: 0.0, over: 0.0 }, 1, 9.0).is_empty());
        let falling = Rate { from: 10.0, to: 0.0, over: 2.0 };
        assert_eq!(Moments::new(&Process::Constant, falling, 1, 0).count(), 10);
    }

    #[test]
    fn a_file_has_a_moment_a_line() {
        assert_eq!(*offsets("# trace\n0\n 0.5 \n\n2\n").unwrap(), [0, SECOND / 2, 2 * SECOND]);
        for (text, part) in [
            ("0\nx\n", "line 2: `x` is no number"),
            ("1\n0.5\n", "line 2: is before"),
            ("-1", "line 1: should be from 0"),
            ("nan", "line 1: should be"),
            ("# nothing", "has no moment"),
        ] {
            assert!(offsets(text).unwrap_err().contains(part), "{text}");
        }
    }
}
