//! Distributions as they are written in a behaviour file or flag, and how they are drawn from.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::RngExt;
use rand_distr::{Distribution as _, Exp1, StandardNormal};
use serde::{Serialize, Serializer};

/// The z score of a 95th percentile of the standard normal distribution.
const Z95: f64 = 1.644_853_626_951_472_2;

/// A distribution of a non-negative quantity. The unit is its user's: microseconds for
/// durations, tokens for reply lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Always the same value.
    Constant(f64),
    /// Uniform between two values, both included.
    Uniform {
        /// The least value.
        low: f64,
        /// The greatest value.
        high: f64,
    },
    /// Exponential, by its mean.
    Exponential {
        /// The mean.
        mean: f64,
    },
    /// Lognormal, by its median and its 95th percentile.
    Lognormal {
        /// The 50th percentile.
        median: f64,
        /// The 95th percentile.
        p95: f64,
    },
}

/// What the numbers of a written distribution mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Durations such as `200ms`; microseconds inside.
    Duration,
    /// Plain numbers such as `50`.
    Count,
}

impl Distribution {
    /// Reads the written form: `200ms`, `constant 200ms`, `uniform 50ms 99ms`,
    /// `exponential 20ms`, `lognormal 200ms 600ms` (median and p95); with [`Unit::Count`]
    /// the same with plain numbers.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let number = |word: &str| parse_quantity(word, unit);
        match words.as_slice() {
            [value] | ["constant", value] => Ok(Self::Constant(number(value)?)),
            ["uniform", low, high] => {
                let (low, high) = (number(low)?, number(high)?);
                if low > high {
                    return Err(format!("`{text}`: the first value is above the second"));
                }
                Ok(Self::Uniform { low, high })
            }
            ["exponential", mean] => Ok(Self::Exponential { mean: number(mean)? }),
            ["lognormal", median, p95] => {
                let (median, p95) = (number(median)?, number(p95)?);
                if median <= 0.0 || p95 < median {
                    return Err(format!("`{text}`: needs 0 < median <= p95"));
                }
                Ok(Self::Lognormal { median, p95 })
            }
            _ => Err(format!(
                "`{text}` is no distribution; write `V`, `uniform LOW HIGH`, `exponential MEAN` \
                 or `lognormal MEDIAN P95`, with values like {}",
                if unit == Unit::Duration { "200ms" } else { "50" }
            )),
        }
    }

    /// Draws one value.
    pub fn sample(&self, rng: &mut impl Rng) -> f64 {
        match *self {
            Self::Constant(value) => value,
            Self::Uniform { low, high } => low + (high - low) * rng.random::<f64>(),
            Self::Exponential { mean } => {
                let unit: f64 = Exp1.sample(rng);
                mean * unit
            }
            Self::Lognormal { median, p95 } => {
                let z: f64 = StandardNormal.sample(rng);
                median * (sigma(median, p95) * z).exp()
            }
        }
    }

    /// Draws one duration, for a distribution that was read with [`Unit::Duration`].
    pub fn sample_duration(&self, rng: &mut impl Rng) -> Duration {
        Duration::from_nanos((self.sample(rng) * 1_000.0) as u64)
    }

    /// Draws the rest of an interval that an observer meets at a random moment: the
    /// equilibrium (forward recurrence) distribution of a renewal process, which is a
    /// uniform share of a length-biased draw (Cox, *Renewal Theory*, 1962, section 5.1).
    /// The length-biased lognormal is the lognormal with its log-mean raised by sigma
    /// squared; the length-biased exponential is the sum of two.
    pub fn sample_residual(&self, rng: &mut impl Rng) -> f64 {
        let share: f64 = rng.random();
        let biased = match *self {
            Self::Constant(value) => value,
            Self::Uniform { low, high } => {
                let squared = low * low + (high * high - low * low) * rng.random::<f64>();
                squared.sqrt()
            }
            Self::Exponential { .. } => self.sample(rng) + self.sample(rng),
            Self::Lognormal { median, p95 } => self.sample(rng) * sigma(median, p95).powi(2).exp(),
        };
        share * biased
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Constant(value) => value,
            Self::Uniform { low, high } => f64::midpoint(low, high),
            Self::Exponential { mean } => mean,
            Self::Lognormal { median, p95 } => median * (sigma(median, p95).powi(2) / 2.0).exp(),
        }
    }

    /// The written form, which [`Distribution::parse`] reads back.
    pub fn written(&self, unit: Unit) -> String {
        let quantity = |value: f64| match unit {
            Unit::Duration => {
                humantime::format_duration(Duration::from_micros(value.round() as u64)).to_string().replace(' ', "")
            }
            Unit::Count => format!("{value}"),
        };
        match *self {
            Self::Constant(value) => quantity(value),
            Self::Uniform { low, high } => format!("uniform {} {}", quantity(low), quantity(high)),
            Self::Exponential { mean } => format!("exponential {}", quantity(mean)),
            Self::Lognormal { median, p95 } => format!("lognormal {} {}", quantity(median), quantity(p95)),
        }
    }
}

/// The standard deviation of the logarithm.
fn sigma(median: f64, p95: f64) -> f64 {
    (p95 / median).ln() / Z95
}

fn parse_quantity(word: &str, unit: Unit) -> Result<f64, String> {
    match unit {
        Unit::Duration => parse_duration(word).map(|duration| duration.as_nanos() as f64 / 1_000.0),
        Unit::Count => match word.parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
            _ => Err(format!("`{word}` is no number of 0 or more")),
        },
    }
}

/// Reads a duration such as `200ms`, `1.5s` or `2m`; a bare `0` is allowed.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_duration(word: &str) -> Result<Duration, String> {
    let wanted = || format!("`{word}` is no duration; write it with a unit, like `200ms`, `1.5s` or `2m`");
    if word == "0" {
        return Ok(Duration::ZERO);
    }
    // humantime reads whole numbers only; people write 1.5s.
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, suffix) = word.split_at(digits);
    if number.contains('.') {
        let factor = humantime::parse_duration(&format!("1{suffix}")).map_err(|_| wanted())?;
        let number: f64 = number.parse().map_err(|_| wanted())?;
        return Duration::try_from_secs_f64(factor.as_secs_f64() * number).map_err(|_| wanted());
    }
    humantime::parse_duration(word).map_err(|_| wanted())
}

/// A distribution with its unit, as it is shown and serialised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Written {
    /// The distribution.
    pub distribution: Distribution,
    /// What its numbers mean.
    pub unit: Unit,
}

impl Written {
    /// A distribution of durations.
    pub fn duration(distribution: Distribution) -> Self {
        Self { distribution, unit: Unit::Duration }
    }

    /// A distribution of numbers.
    pub fn count(distribution: Distribution) -> Self {
        Self { distribution, unit: Unit::Count }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.distribution.written(self.unit))
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[(values.len() as f64 * share) as usize]
    }

    #[test]
    fn lognormal_has_the_median_and_p95_it_was_given() {
        let think = Distribution::parse("lognormal 15s 45s", Unit::Duration).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let values: Vec<f64> = (0..200_000).map(|_| think.sample(&mut rng)).collect();
        assert!((quantile(values.clone(), 0.5) / 15e6 - 1.0).abs() < 0.02);
        assert!((quantile(values, 0.95) / 45e6 - 1.0).abs() < 0.02);
        assert!((think.mean() / 18.75e6 - 1.0).abs() < 0.001, "{}", think.mean());
    }

    #[test]
    fn residual_mean_is_the_second_moment_over_twice_the_mean() {
        for (text, expected) in [
            ("constant 10s", 5.0e6),
            ("exponential 10s", 10.0e6),
            ("uniform 0s 10s", 10.0e6 / 3.0),
            // median e^mu: mean square = e^(2mu + 2s^2), mean = e^(mu + s^2/2).
            ("lognormal 10s 20s", 10.0e6 * (1.5 * sigma(1.0, 2.0).powi(2)).exp() / 2.0),
        ] {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let distribution = Distribution::parse(text, Unit::Duration).unwrap();
            let mean = (0..200_000).map(|_| distribution.sample_residual(&mut rng)).sum::<f64>() / 200_000.0;
            assert!((mean / expected - 1.0).abs() < 0.02, "{text}: {mean} is not {expected}");
        }
    }

    #[test]
    fn written_form_reads_back() {
        for text in ["200ms", "uniform 50ms 99ms", "exponential 20ms", "lognormal 200ms 1s500ms"] {
            let distribution = Distribution::parse(text, Unit::Duration).unwrap();
            assert_eq!(Distribution::parse(&distribution.written(Unit::Duration), Unit::Duration), Ok(distribution));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("soon", "`soon` is no duration"),
            ("uniform 9ms 5ms", "first value is above the second"),
            ("lognormal 9ms 5ms", "0 < median <= p95"),
            ("normal 1ms 2ms", "is no distribution"),
            ("200", "with a unit"),
        ] {
            let error = Distribution::parse(text, Unit::Duration).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
