//! A slope that neither a jump nor a dip decides: the median of the slopes of all pairs of points, with its interval
//! (Theil 1950; Sen 1968, "Estimates of the regression coefficient based on Kendall's tau"; over seasons as Hirsch,
//! Slack and Smith 1982).

/// The fewest points of a slope.
const LEAST: usize = 8;
/// The most points of a season: all pairs are looked at.
const MOST: usize = 300;
/// An autocorrelation above this cannot be told from a walk without end.
const MOST_R: f64 = 0.95;
/// The 95th percentile of the standard normal distribution: each bound by itself holds with 95 % confidence.
const ONE_SIDED: f64 = 1.644_853_6;
/// The 97.5th: both bounds hold together.
const TWO_SIDED: f64 = 1.959_964;

/// Points (x, y) that are compared with each other alone, in the order of x.
pub(super) type Season = Vec<(f64, f64)>;

/// A slope between its 95 % bounds, in y a unit of x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slope {
    pub(super) median: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
}

/// The slope, with bounds of which each holds; `None`: too few points to say.
pub(super) fn slope(seasons: &[Season]) -> Option<Slope> {
    bounded(seasons, ONE_SIDED)
}

/// The same, with bounds that hold both at once.
pub(super) fn two_sided_slope(seasons: &[Season]) -> Option<Slope> {
    bounded(seasons, TWO_SIDED)
}

fn bounded(seasons: &[Season], z: f64) -> Option<Slope> {
    let seasons: Vec<Season> = seasons.iter().map(thinned).collect();
    if seasons.iter().map(Vec::len).sum::<usize>() < LEAST {
        return None;
    }
    let mut slopes = Vec::new();
    let mut variance = 0.0;
    for season in &seasons {
        for (index, one) in season.iter().enumerate() {
            let later = season[index + 1..].iter().filter(|other| other.0 > one.0);
            slopes.extend(later.map(|other| (other.1 - one.1) / (other.0 - one.0)));
        }
        let n = season.len() as f64;
        // The variance of Kendall's S without ties.
        variance += n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let count = slopes.len() as f64;
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    let median = at((count - 1.0) / 2.0);
    let half = z * f64::sqrt(variance * inflation(&seasons, median)) / 2.0;
    Some(Slope { median, lower: at((count / 2.0 - half).floor() - 1.0), upper: at((count / 2.0 + half).ceil()) })
}

/// How much wider the interval is because each point resembles the one before: (1 + r) / (1 - r) by the lag-1
/// autocorrelation r of what the slope leaves over (the effective sample size of an AR(1) process, Bayley and
/// Hammersley 1946), with r corrected for its bias in short series (Kendall 1954).
fn inflation(seasons: &[Season], slope: f64) -> f64 {
    let (mut products, mut squares, mut points) = (0.0, 0.0, 0.0);
    for season in seasons.iter().filter(|season| season.len() > 2) {
        let left: Vec<f64> = season.iter().map(|(x, y)| y - slope * x).collect();
        let mean = left.iter().sum::<f64>() / left.len() as f64;
        products += left.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>();
        squares += left.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>();
        points += left.len() as f64;
    }
    if squares <= 0.0 {
        return 1.0;
    }
    let r = products / squares;
    let r = (r + (1.0 + 4.0 * r) / points).clamp(0.0, MOST_R);
    (1.0 + r) / (1.0 - r)
}

fn thinned(season: &Season) -> Season {
    let step = season.len().div_ceil(MOST).max(1);
    season.iter().step_by(step).copied().collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A season of `n` points a unit apart, with noise of a standard deviation of about 1.
    fn noisy(rng: &mut impl rand::Rng, n: usize, slope: f64, level: f64) -> Season {
        let mut noise = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        (0..n).map(|x| (x as f64, level + slope * x as f64 + noise())).collect()
    }

    #[test]
    fn a_jump_does_not_decide_and_levels_of_seasons_do_not_count() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut seasons = vec![noisy(&mut rng, 30, 0.5, 0.0), noisy(&mut rng, 30, 0.5, 1e6)];
        seasons[0][29].1 += 1e4;
        let found = slope(&seasons).unwrap();
        assert!((found.median - 0.5).abs() < 0.05, "{found:?}");
        assert!(found.lower < 0.5 && 0.5 < found.upper && found.upper - found.lower < 0.2, "{found:?}");
    }

    #[test]
    fn each_bound_misses_the_true_slope_in_about_five_of_a_hundred() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let (mut above, mut below) = (0, 0);
        for _ in 0..200 {
            let found = slope(&[noisy(&mut rng, 20, 0.0, 0.0), noisy(&mut rng, 15, 0.0, 9.0)]).unwrap();
            above += u32::from(found.lower > 0.0);
            below += u32::from(found.upper < 0.0);
        }
        // Of a 5 % method 18 of 200 are too many in one test of a thousand.
        assert!(above <= 18 && below <= 18, "{above} {below}");
    }

    #[test]
    fn memory_that_wanders_is_rarely_said_to_grow() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        // Measured: 19, 27 and 45. A walk without end looks like growth.
        for (keeps, most) in [(0.5, 30), (0.8, 40), (1.0, 60)] {
            let mut grows = 0;
            for _ in 0..300 {
                let mut level = 0.0;
                let walk = |(x, noise): (f64, f64)| {
                    level = keeps * level + noise;
                    (x, level)
                };
                let season: Season = noisy(&mut rng, 36, 0.0, 0.0).into_iter().map(walk).collect();
                grows += u32::from(slope(&[season]).unwrap().lower > 0.0);
            }
            assert!(grows <= most, "{keeps}: {grows} of 300");
        }
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(slope(&[vec![(0.0, 1.0); 3]]), None);
        assert_eq!(slope(&[vec![(5.0, 1.0); 30]]), None, "no turn ended");
    }
}
