//! A slope that neither a jump nor a dip decides: the median of the slopes of all pairs of points, with its interval
//! (Theil 1950; Sen 1968, "Estimates of the regression coefficient based on Kendall's tau"; over seasons as Hirsch,
//! Slack and Smith 1982).

/// The fewest points of a slope.
const LEAST: usize = 8;
/// The most points of a season: all pairs are looked at.
const MOST: usize = 300;
/// The 95th percentile of the standard normal distribution: each bound is one-sided.
const Z: f64 = 1.644_853_6;

/// Points (x, y) that are compared with each other alone, in the order of x.
pub(super) type Season = Vec<(f64, f64)>;

/// A slope between its one-sided 95 % bounds, in y a unit of x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slope {
    pub(super) median: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
}

/// The slope; `None`: too few points to say.
pub(super) fn slope(seasons: &[Season]) -> Option<Slope> {
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
    let half = Z * f64::sqrt(variance) / 2.0;
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    Some(Slope {
        median: at((count - 1.0) / 2.0),
        lower: at((count / 2.0 - half).floor()),
        upper: at((count / 2.0 + half).ceil()),
    })
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
    fn too_little_says_nothing() {
        assert_eq!(slope(&[vec![(0.0, 1.0); 3]]), None);
        assert_eq!(slope(&[vec![(5.0, 1.0); 30]]), None, "no turn ended");
    }
}
