//! Which tier a moment belongs to.

use crate::clock::Nanos;

/// The stages of one tier on the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When new users begin to come.
    pub ramp_from: Nanos,
    /// When all are there.
    pub steady_from: Nanos,
    /// When the steady phase ends; unknown until the ramp has shown the turn rate.
    pub steady_to: Option<Nanos>,
}

impl Window {
    /// Whether a moment is in the steady phase.
    pub fn is_steady(&self, at: Nanos) -> bool {
        at >= self.steady_from && self.steady_to.is_none_or(|end| at < end)
    }
}

/// The tiers that have begun so far, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stages(pub Vec<Window>);

impl Stages {
    /// The tier in whose steady phase a moment lies, and that phase's beginning.
    pub fn tier_at(&self, at: Nanos) -> Option<(usize, Nanos)> {
        let found = self.0.iter().rposition(|window| window.is_steady(at))?;
        Some((found, self.0[found].steady_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramp_and_drain_belong_to_no_tier() {
        let stages = Stages(vec![
            Window { ramp_from: 0, steady_from: 10, steady_to: Some(20) },
            Window { ramp_from: 25, steady_from: 30, steady_to: None },
        ]);
        let tiers: Vec<_> = [5, 10, 19, 20, 27, 30, 99].map(|at| stages.tier_at(at).map(|(tier, _)| tier)).into();
        assert_eq!(tiers, [None, Some(0), Some(0), None, None, Some(1), Some(1)]);
    }
}
