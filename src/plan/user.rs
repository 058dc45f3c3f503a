//! What one virtual user does: when it thinks how long, and what it says.

use std::time::Duration;

use mock_llm::distribution::Written;
use mock_llm::script::stable_hash;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Plan;
use crate::clock::Nanos;
use crate::scenario::{After, Disturb, Disturbance, Journey, Prompts, Turns};

/// After how many tokens a user cancels who cancels at all.
const CANCEL_AFTER: std::ops::RangeInclusive<u64> = 1..=20;

/// One user's part of the plan, drawn from the run's seed and the user's number.
pub struct UserPlan {
    rng: ChaCha8Rng,
    think: mock_llm::distribution::Distribution,
    run: String,
    number: u32,
    turn: u32,
    turns: u32,
    prompts: Prompts,
    /// Which conversation goes on, and how many of its turns are said.
    conversation: Option<(usize, usize)>,
    cancel_share: f64,
    journey: usize,
}

/// What a user says in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    /// The text, with its marker `[[cc:RUN:USER:TURN]]`.
    pub text: String,
    /// The marker itself, `cc:RUN:USER:TURN`.
    pub marker: String,
    /// Whether it opens a conversation.
    pub opens: bool,
    /// Whether the conversation goes on after it.
    pub continues: bool,
    /// What the user does in the middle of the reply, if anything.
    pub disturb: Option<Disturb>,
}

impl UserPlan {
    pub(super) fn new(plan: &Plan, number: u32) -> Self {
        let seed = stable_hash(&[b"user", &plan.seed.to_le_bytes(), &number.to_le_bytes()]);
        Self {
            journey: journey_of(plan, number),
            rng: ChaCha8Rng::seed_from_u64(seed),
            think: plan.think,
            run: plan.run.clone(),
            number,
            turn: 0,
            turns: plan.turns,
            prompts: plan.prompts.clone(),
            conversation: None,
            cancel_share: plan.cancel_share,
        }
    }

    /// From the user's arrival to its first turn: the rest of a think time that is met at a
    /// random moment, so that the arrivals of turns are in equilibrium from the beginning.
    pub fn first_wait(&mut self, own: Option<&Written>) -> Nanos {
        let think = own.map_or(self.think, |own| own.distribution);
        (think.sample_residual(&mut self.rng) * 1_000.0) as Nanos
    }

    /// From a turn's end to the next turn's intended start, where a step has no think time of its own.
    pub fn think(&mut self, own: Option<&Written>) -> Nanos {
        let think = own.map_or(self.think, |own| own.distribution);
        (think.sample(&mut self.rng) * 1_000.0) as Nanos
    }

    /// Which of the plan's journeys the user follows.
    pub fn journey(&self) -> usize {
        self.journey
    }

    /// How long the user is away.
    pub fn away(&mut self, away: &Written) -> Nanos {
        (away.distribution.sample(&mut self.rng) * 1_000.0) as Nanos
    }

    /// Another visit begins, with another conversation.
    pub fn begin_visit(&mut self) {
        self.conversation = None;
    }

    /// The next thing that the user says, in a step whose turns these are.
    pub fn say(&mut self, turns: &Turns) -> Saying {
        let turn = self.turn;
        self.turn += 1;
        let choices = self.prompts.choices();
        let (which, place) = self.conversation.unwrap_or_else(|| (self.rng.random_range(0..choices), 0));
        let prompt = self.prompts.text(which, place, &mut self.rng);
        let continues = place + 1 < self.prompts.turns(which).min(self.turns as usize);
        self.conversation = continues.then_some((which, place + 1));
        let marker = marker(&self.run, &self.number.to_string(), turn);
        let text = format!("{prompt} [[{marker}]]");
        Saying { text, marker, opens: place == 0, continues, disturb: self.disturb(turns) }
    }
}

impl UserPlan {
    /// What happens in the middle of the reply: one of the risks of the step, else a cancel for the share of all turns.
    fn disturb(&mut self, turns: &Turns) -> Option<Disturb> {
        let risks = [
            (&turns.abort, Disturbance::Cancel),
            (&turns.reload, Disturbance::Reload),
            (&turns.drop, Disturbance::Drop),
        ];
        if risks.iter().any(|(risk, _)| risk.is_some()) {
            let mut draw: f64 = self.rng.random();
            for (risk, what) in risks {
                let Some(risk) = risk else { continue };
                if draw < risk.share {
                    let micros = risk.after.distribution.sample(&mut self.rng).max(0.0);
                    return Some(Disturb { what, after: After::Time(Duration::from_micros(micros as u64)) });
                }
                draw -= risk.share;
            }
        }
        let cancels = self.cancel_share > 0.0 && self.rng.random_bool(self.cancel_share);
        cancels
            .then(|| Disturb { what: Disturbance::Cancel, after: After::Tokens(self.rng.random_range(CANCEL_AFTER)) })
    }
}

/// Which journey a user follows: drawn by weight from the run's seed and the user's number alone, so that a change of
/// anything else leaves it as it is.
pub(super) fn journey_of(plan: &Plan, number: u32) -> usize {
    if plan.journeys.len() <= 1 {
        return 0;
    }
    let seed = stable_hash(&[b"journey", &plan.seed.to_le_bytes(), &number.to_le_bytes()]);
    let whole: f64 = plan.journeys.iter().map(|journey| journey.weight).sum();
    let mut draw = ChaCha8Rng::seed_from_u64(seed).random::<f64>() * whole;
    let fits = |journey: &Journey| {
        draw -= journey.weight;
        draw < 0.0
    };
    plan.journeys.iter().position(fits).unwrap_or(plan.journeys.len() - 1)
}

/// The marker of a turn, without its brackets.
pub fn marker(run: &str, user: &str, turn: u32) -> String {
    format!("cc:{run}:{user}:{turn}")
}

#[cfg(test)]
mod tests {
    use mock_llm::script::newest_marker;
    use proptest::prelude::*;

    use super::super::tests::plan;
    use super::*;
    use crate::scenario::{JourneyStep, Risk};

    const NO_RISK: Turns = Turns { count: None, think: None, abort: None, reload: None, drop: None };

    #[test]
    fn journeys_are_followed_by_weight_and_seed() {
        let mut plan = plan(&[10], "0");
        let journey = |name: &str, weight| Journey { name: name.to_owned(), weight, steps: vec![JourneyStep::Page] };
        plan.journeys = vec![journey("a", 3.0), journey("b", 0.0), journey("c", 1.0)].into();
        let follow = |plan: &Plan| (0..4_000).map(|user| plan.user(user).journey()).collect::<Vec<_>>();
        let followed = follow(&plan);
        let share = followed.iter().filter(|journey| **journey == 0).count() as f64 / 4_000.0;
        // Five standard errors of a share of three quarters.
        assert!((share - 0.75).abs() < 0.035, "{share}");
        assert!(followed.iter().all(|journey| *journey != 1));
        assert_eq!(follow(&plan), followed);
        plan.seed = 2;
        assert_ne!(follow(&plan), followed);
    }

    #[test]
    fn risks_happen_to_their_share_of_turns() {
        let plan = plan(&[10], "0");
        let after = Written::duration(mock_llm::distribution::Distribution::Constant(2e6));
        let risk = |share| Some(Risk { share, after });
        let turns = Turns { abort: risk(0.2), drop: risk(0.3), ..NO_RISK };
        let mut user = plan.user(1);
        let happened: Vec<Option<Disturb>> = (0..4_000).map(|_| user.say(&turns).disturb).collect();
        let share = |what| {
            let wanted = Some(Disturb { what, after: After::Time(Duration::from_secs(2)) });
            happened.iter().filter(|happened| **happened == wanted).count() as f64 / 4_000.0
        };
        assert!((share(Disturbance::Cancel) - 0.2).abs() < 0.035 && (share(Disturbance::Drop) - 0.3).abs() < 0.035);
        assert_eq!(share(Disturbance::Reload), 0.0);
    }

    #[test]
    fn equal_seeds_give_equal_users_and_other_numbers_others() {
        let plan = plan(&[10], "lognormal 15s 45s");
        let draw = |number| {
            let mut user = plan.user(number);
            (user.first_wait(None), user.think(None), user.say(&NO_RISK), user.say(&NO_RISK))
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn a_conversation_has_its_turns_and_every_turn_its_marker() {
        let plan = plan(&[10], "0");
        let mut user = plan.user(7);
        let said: Vec<Saying> = (0..6).map(|_| user.say(&NO_RISK)).collect();
        assert_eq!(
            said.iter().map(|saying| saying.opens).collect::<Vec<_>>(),
            [true, false, false, true, false, false]
        );
        assert_eq!(
            said.iter().map(|saying| saying.continues).collect::<Vec<_>>(),
            [true, true, false, true, true, false]
        );
        assert_eq!(newest_marker(&said[4].text), Some("cc:r1:7:4"));
    }

    #[test]
    fn generated_prompts_follow_from_the_seed_and_have_their_length() {
        let mut plan = plan(&[10], "0");
        plan.prompts = Prompts::generated("uniform 3 9").unwrap();
        let draw = |number| -> Vec<Saying> {
            let mut user = plan.user(number);
            (0..30).map(|_| user.say(&NO_RISK)).collect()
        };
        let said = draw(3);
        assert_eq!(said, draw(3));
        assert_ne!(said[0].text, draw(4)[0].text);
        assert_ne!(said[0].text, said[1].text);
        for (turn, saying) in said.iter().enumerate() {
            assert_eq!((saying.opens, saying.continues), (turn.is_multiple_of(3), turn % 3 != 2), "{turn}");
            // And its marker.
            assert!((4..=10).contains(&saying.text.split(' ').count()), "{}", saying.text);
            assert_eq!(newest_marker(&saying.text), Some(saying.marker.as_str()));
        }
    }

    proptest! {
        /// Whatever the think time, its mean is that of what is drawn.
        #[test]
        fn think_times_integrate_to_what_was_asked(median in 1_u32..60, factor in 1.0_f64..4.0, seed in 0_u64..50) {
            let mut plan = plan(&[10], &format!("lognormal {median}s {:.3}s", f64::from(median) * factor));
            plan.seed = seed;
            let mut user = plan.user(1);
            let mean = (0..20_000).map(|_| user.think(None) as f64 / 1e3).sum::<f64>() / 20_000.0;
            // Five standard errors of the heaviest tail above.
            prop_assert!((mean / plan.think.mean() - 1.0).abs() < 0.05, "{mean} {}", plan.think.mean());
        }
    }
}
