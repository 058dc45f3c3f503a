//! The plan of a run: pure arithmetic on time and seeds, no clock and no await.

mod forecast;
mod translate;
mod user;

use std::time::Duration;

use mock_llm::distribution::Distribution;

use crate::clock::{self, Nanos};
use crate::scenario::{Prompts, Scenario};

pub use forecast::{Assumed, Documents, Forecast, TierForecast};
pub use translate::Translation;
pub use user::{Saying, UserPlan, marker};

/// A resolved load.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Names the run in markers; letters and digits.
    pub run: String,
    /// Concurrent users, rising.
    pub tiers: Vec<u32>,
    /// Over how long the new users of a tier come.
    pub ramp: Duration,
    /// The least and the greatest length of a steady phase.
    pub steady: (Duration, Duration),
    /// Microseconds between a turn's end and the next turn's intended start.
    pub think: Distribution,
    /// The most turns of a conversation.
    pub turns: u32,
    /// What users say.
    pub prompts: Prompts,
    /// The share of turns that the user cancels in the middle of the reply, from 0 to 1.
    pub cancel_share: f64,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

impl Plan {
    /// The plan of a scenario.
    pub fn new(scenario: &Scenario, run: &str) -> Self {
        let load = &scenario.load;
        Self {
            run: run.to_owned(),
            tiers: load.tiers.iter().map(|tier| tier.users).collect(),
            ramp: load.ramp,
            steady: (load.steady, load.steady_max.max(load.steady)),
            think: load.think.distribution,
            turns: load.turns,
            prompts: load.prompts.clone(),
            cancel_share: load.cancel_share,
            seed: scenario.seed,
        }
    }

    /// The most users at once.
    pub fn peak(&self) -> u32 {
        self.tiers.last().copied().unwrap_or(0)
    }

    /// The users that come with a tier, by number.
    pub fn newcomers(&self, tier: usize) -> std::ops::Range<u32> {
        let before = tier.checked_sub(1).map_or(0, |before| self.tiers[before]);
        before..self.tiers[tier]
    }

    /// When a user comes, from the beginning of its tier's ramp: newcomers are spread evenly.
    pub fn arrival(&self, tier: usize, user: u32) -> Nanos {
        let newcomers = self.newcomers(tier);
        let count = i128::from(newcomers.end - newcomers.start).max(1);
        let place = i128::from(user.saturating_sub(newcomers.start));
        (i128::from(clock::nanos(self.ramp)) * place / count) as Nanos
    }

    /// What one user does.
    pub fn user(&self, number: u32) -> UserPlan {
        UserPlan::new(self, number)
    }
}

#[cfg(test)]
mod tests {
    use mock_llm::distribution::Unit;
    use proptest::prelude::*;

    use super::*;

    pub(super) fn plan(tiers: &[u32], think: &str) -> Plan {
        Plan {
            run: "r1".to_owned(),
            tiers: tiers.to_vec(),
            ramp: Duration::from_secs(20),
            steady: (Duration::from_mins(1), Duration::from_mins(3)),
            think: Distribution::parse(think, Unit::Duration).unwrap(),
            turns: 3,
            prompts: Prompts::bundled("mixed").unwrap(),
            cancel_share: 0.0,
            seed: 1,
        }
    }

    proptest! {
        /// The users that have come by any moment of a ramp are what a straight line says, to within one.
        #[test]
        fn ramps_integrate_to_the_tiers(
            sizes in proptest::collection::btree_set(1_u32..3_000, 1..5),
            share in 0.0_f64..1.0,
        ) {
            let tiers: Vec<u32> = sizes.into_iter().collect();
            let plan = plan(&tiers, "15s");
            let ramp = clock::nanos(plan.ramp);
            let mut before = 0;
            for (tier, users) in tiers.iter().enumerate() {
                let at = (ramp as f64 * share) as Nanos;
                let come = plan.newcomers(tier).filter(|user| plan.arrival(tier, *user) <= at).count() as f64;
                let line = f64::from(users - before) * share;
                prop_assert!((come - line).abs() <= 1.0 + 1e-6, "{come} of {line}");
                prop_assert!(plan.newcomers(tier).all(|user| plan.arrival(tier, user) < ramp));
                before = *users;
            }
            let all: u32 = (0..tiers.len()).map(|tier| plan.newcomers(tier).len() as u32).sum();
            prop_assert_eq!(all, plan.peak());
        }
    }
}
