//! The plan of a run: pure arithmetic on time and seeds, no clock and no await.

mod arrivals;
mod forecast;
mod translate;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;

use mock_llm::distribution::Distribution;

use crate::clock::{self, Nanos};
use crate::scenario::{Arrivals, Journey, JourneyStep, Prompts, Role, Scenario, Tier, Times, Turns};

pub use arrivals::{Moments, Rate, offsets};
pub use forecast::{Assumed, Documents, Forecast, TierForecast};
pub use translate::Translation;
pub use user::{Saying, UserPlan, marker};

/// A resolved load.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Names the run in markers; letters and digits.
    pub run: String,
    /// What is held, one after the other.
    pub levels: Vec<Level>,
    /// Where turns come from.
    pub arrivals: Arrivals,
    /// Microseconds between a turn's end and the next turn's intended start.
    pub think: Distribution,
    /// The most turns of a conversation.
    pub turns: u32,
    /// What users say.
    pub prompts: Prompts,
    /// The share of turns that the user cancels in the middle of the reply, from 0 to 1.
    pub cancel_share: f64,
    /// What users do; at least one way.
    pub journeys: Arc<[Journey]>,
    /// Whether a user who is told to come again later does so.
    pub obey_retry_after: bool,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

/// A load that is held for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Concurrent users; of an open load, the most there may be.
    pub users: u32,
    /// How turns come, of an open load.
    pub rate: Option<Rate>,
    /// How long its stages are.
    pub times: Times,
    /// What it is for.
    pub role: Role,
}

impl Plan {
    /// The plan of a scenario.
    pub fn new(scenario: &Scenario, run: &str) -> Self {
        let load = &scenario.load;
        let journeys = if load.journeys.is_empty() { vec![whole_stay()] } else { load.journeys.clone() };
        Self {
            run: run.to_owned(),
            levels: levels(&load.tiers),
            arrivals: load.arrivals.clone(),
            think: load.think.distribution,
            turns: load.turns,
            prompts: load.prompts.clone(),
            cancel_share: load.cancel_share,
            journeys: journeys.into(),
            obey_retry_after: load.obey_retry_after,
            seed: scenario.seed,
        }
    }

    /// The most users at once.
    pub fn peak(&self) -> u32 {
        self.levels.iter().map(|level| level.users).max().unwrap_or(0)
    }

    /// The users that come with a level, by number.
    pub fn newcomers(&self, level: usize) -> std::ops::Range<u32> {
        let before = level.checked_sub(1).map_or(0, |before| self.levels[before].users);
        before..self.levels[level].users.max(before)
    }

    /// When a user comes, from the beginning of its level: newcomers are spread evenly.
    pub fn arrival(&self, level: usize, user: u32) -> Nanos {
        let newcomers = self.newcomers(level);
        let count = i128::from(newcomers.end - newcomers.start).max(1);
        let place = i128::from(user.saturating_sub(newcomers.start));
        (i128::from(clock::nanos(self.levels[level].times.arrive)) * place / count) as Nanos
    }

    /// When the turns of an open load's level come, from its beginning.
    pub fn moments(&self, level: usize) -> Option<Moments> {
        let (Arrivals::Open { process }, Some(rate)) = (&self.arrivals, self.levels[level].rate) else { return None };
        Some(Moments::new(process, rate, self.seed, level))
    }

    /// How many of the users that are planned follow which journey, by name; nothing where there is one way alone.
    pub fn followers(&self) -> BTreeMap<String, u64> {
        let mut followers = BTreeMap::new();
        if self.journeys.len() > 1 {
            for number in 0..self.peak() {
                let name = &self.journeys[user::journey_of(self, number)].name;
                *followers.entry(name.clone()).or_default() += 1;
            }
        }
        followers
    }

    /// What one user does.
    pub fn user(&self, number: u32) -> UserPlan {
        UserPlan::new(self, number)
    }
}

/// The levels of tiers; the rate of each rises from that of the one before.
fn levels(tiers: &[Tier]) -> Vec<Level> {
    let mut before = 0.0;
    let level = |tier: &Tier| {
        let over = tier.times.arrive.as_secs_f64();
        let rate = tier.rate.map(|to| Rate { from: std::mem::replace(&mut before, to), to, over });
        Level { users: tier.users, rate, times: tier.times, role: tier.role }
    };
    tiers.iter().map(level).collect()
}

/// What users do where the scenario says nothing else: they load the page, and say one thing after the other.
fn whole_stay() -> Journey {
    let turns = Turns { count: None, think: None, abort: None, reload: None, drop: None };
    Journey { name: String::new(), weight: 1.0, steps: vec![JourneyStep::Page, JourneyStep::Turns(turns)] }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mock_llm::distribution::Unit;
    use proptest::prelude::*;

    use super::*;

    pub(super) fn plan(tiers: &[u32], think: &str) -> Plan {
        let (ramp, steady, steady_max) = (Duration::from_secs(20), Duration::from_mins(1), Duration::from_mins(3));
        let times = Times { arrive: ramp, settle: ramp, steady, steady_max };
        Plan {
            run: "r1".to_owned(),
            levels: tiers.iter().map(|users| Level { users: *users, rate: None, times, role: Role::Step }).collect(),
            arrivals: Arrivals::Closed,
            journeys: vec![whole_stay()].into(),
            obey_retry_after: true,
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
            let ramp = clock::nanos(plan.levels[0].times.arrive);
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
