//! Little's law as a check of what was measured: streams in flight, turns a second and the mean turn are three ways to
//! look at the same turns.

use hdrhistogram::Histogram;

use crate::metric::Metric;
use crate::result::{DecodeError, LittlesLaw, TierResult};

/// The shortest steady phase, in mean turns: turns that go on at its ends are a small part of it.
const LEAST_TURNS: f64 = 20.0;
/// The 99.5th percentile of the standard normal distribution, for an interval of 99 %.
const Z: f64 = 2.575_829_3;
/// What may be missing of a turn: the user reads on from the terminal event to the body's end.
const UNSEEN: f64 = 0.02;
/// A tolerance above this holds whatever was measured.
const MOST_TOLERANCE: f64 = 0.25;

/// Holds the mean streams in flight of a tier against its turns a second times its mean turn. `None` where the steady
/// phase is below 20 mean turns, where too few turns were seen to tell a quarter, or where the length of some turns is
/// not known. A stream is in flight from the turn's actual start to its end, whatever its outcome, so the mean is taken
/// of all turns and counts from there: those that completed, those of `failed_metrics`, less the mean start lag.
///
/// Over a window the law is an identity (Stidham, "A last word on L = lambda W", Operations Research 22, 1974) but for
/// two things, which make the tolerance. With lambda turns a second of length S in a window of T seconds:
/// the turns that go on at its beginning are counted as streams, and the rest of those that go on at its end as turns;
/// both are about lambda E(S) independent turns with the remaining length of a turn that is met at a random moment,
/// whose mean square is E(S^3) / (3 E(S)) (Cox, *Renewal Theory*, 1962, section 5.1), so the variance of their
/// difference is 2 lambda E(S^3) / 3. And streams are counted once a second: of a turn's length only whole seconds are
/// seen, with a variance of f (1 - f), f its fraction of a second: at most E(S) or a quarter, for each of the
/// lambda T turns.
///
/// # Errors
/// When a histogram of the result cannot be read.
pub fn littles_law(tier: &TierResult) -> Result<Option<LittlesLaw>, DecodeError> {
    let lag_us = tier.metrics.get(&Metric::StartLag).map_or(0.0, |lag| lag.mean_us);
    let mut lengths = Lengths::default();
    for metrics in [&tier.metrics, &tier.failed_metrics] {
        if let Some(turn) = metrics.get(&Metric::Turn) {
            lengths.add_all(&turn.decode()?, lag_us);
        }
    }
    let known = lengths.turns > 0.0 && lengths.turns == tier.counts.started as f64;
    Ok(if known { check(tier.streams, tier.steady_s, &lengths) } else { None })
}

/// How long turns took, in seconds.
#[derive(Debug, Default)]
struct Lengths {
    turns: f64,
    sum: f64,
    cubes: f64,
}

impl Lengths {
    fn add(&mut self, turns: f64, seconds: f64) {
        self.turns += turns;
        self.sum += turns * seconds;
        self.cubes += turns * seconds.powi(3);
    }

    fn add_all(&mut self, histogram: &Histogram<u64>, lag_us: f64) {
        for step in histogram.iter_recorded() {
            let micros = histogram.median_equivalent(step.value_iterated_to()) as f64;
            self.add(step.count_at_value() as f64, (micros - lag_us).max(0.0) / 1e6);
        }
    }
}

fn check(streams: f64, steady_s: f64, lengths: &Lengths) -> Option<LittlesLaw> {
    let mean_turn_s = lengths.sum / lengths.turns;
    if mean_turn_s <= 0.0 || steady_s < LEAST_TURNS * mean_turn_s {
        return None;
    }
    let turns_per_s = lengths.turns / steady_s;
    let ends = 2.0 / 3.0 * turns_per_s * lengths.cubes / lengths.turns;
    let seconds = lengths.turns * mean_turn_s.min(0.25);
    let tolerance = Z * (ends + seconds).sqrt() / lengths.sum + UNSEEN;
    let ratio = streams / (turns_per_s * mean_turn_s);
    let holds = (ratio - 1.0).abs() <= tolerance;
    let found = LittlesLaw { streams, turns_per_s, mean_turn_s, ratio, tolerance, holds };
    (tolerance <= MOST_TOLERANCE).then_some(found)
}

#[cfg(test)]
mod tests {
    use mock_llm::distribution::Distribution;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Users who think and turn, seen for so many seconds: mean streams as they are counted once a second, and the
    /// lengths of the turns that began.
    fn simulated(rng: &mut ChaCha8Rng, users: u32, think_s: f64, turn_s: f64, steady_s: f64) -> (f64, Lengths) {
        let think = Distribution::Exponential { mean: think_s };
        let turn = Distribution::Lognormal { median: turn_s, p95: 2.0 * turn_s };
        let (mut counted, mut lengths) = (0.0, Lengths::default());
        for _ in 0..users {
            // Long before, so that all is in equilibrium.
            let mut at = think_s * rng.random::<f64>() - 20.0 * (think_s + turn_s);
            while at < steady_s {
                let end = at + turn.sample(rng);
                if at >= 0.0 {
                    lengths.add(1.0, end - at);
                }
                let (first, last) = (at.ceil().max(1.0), (end.ceil() - 1.0).min(steady_s));
                counted += (last - first + 1.0).max(0.0);
                at = end + think.sample(rng);
            }
        }
        (counted / steady_s, lengths)
    }

    #[test]
    fn it_holds_for_what_is_counted_rightly_and_for_nothing_else() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for (users, think_s, turn_s, steady_s) in
            [(50, 15.0, 5.0, 180.0), (20, 15.0, 5.0, 180.0), (50, 2.0, 0.3, 60.0), (300, 1.0, 3.0, 70.0)]
        {
            let (mut held, mut doubted) = (0, 0);
            for _ in 0..50 {
                let (streams, lengths) = simulated(&mut rng, users, think_s, turn_s, steady_s);
                held += u32::from(check(streams, steady_s, &lengths).unwrap().holds);
                doubted += u32::from(!check(1.5 * streams, steady_s, &lengths).unwrap().holds);
            }
            // Of 1 % four of fifty are too many in one test of five hundred.
            assert!(held >= 47 && doubted >= 47, "{users} users: {held} held, {doubted} doubted");
        }
    }

    #[test]
    fn too_little_says_nothing() {
        let mut lengths = Lengths::default();
        lengths.add(100.0, 5.0);
        assert!(check(5.0, 100.0, &lengths).unwrap().holds);
        assert_eq!(check(5.0, 99.0, &lengths), None, "fewer than 20 turns long");
        let mut few = Lengths::default();
        few.add(30.0, 0.1);
        assert_eq!(check(0.05, 60.0, &few), None, "three seconds of streams in a minute");
        let mut nothing = Lengths::default();
        nothing.add(9.0, 0.0);
        assert_eq!(check(0.0, 60.0, &nothing), None);
    }

    #[test]
    fn a_tier_is_held_to_it_where_every_turn_has_a_length() {
        let mut result = crate::result::read(include_str!("../../fixtures/results/pass.json")).unwrap();
        let tier = &mut result.tiers[0];
        let found = littles_law(tier).unwrap().unwrap();
        assert!(found.holds && (found.ratio - 1.0).abs() < 0.01, "{found:?}");
        assert!((found.turns_per_s - 2.6).abs() < 1e-9 && (found.mean_turn_s - 0.4718).abs() < 1e-3, "{found:?}");
        tier.streams *= 1.3;
        assert!(!littles_law(tier).unwrap().unwrap().holds);
        tier.streams /= 1.3;
        // A turn that failed, and whose length nobody wrote down.
        tier.counts.started += 1;
        assert_eq!(littles_law(tier).unwrap(), None);
        let turn = tier.metrics[&Metric::Turn].clone();
        tier.counts.started = 2 * turn.count;
        tier.failed_metrics.insert(Metric::Turn, turn);
        tier.streams *= 2.0;
        assert!(littles_law(tier).unwrap().unwrap().holds, "failed turns are streams too");
    }
}
