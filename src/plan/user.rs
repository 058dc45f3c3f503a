//! What one virtual user does: when it thinks how long, and what it says.

use mock_llm::script::stable_hash;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Plan;
use crate::clock::Nanos;
use crate::scenario::Prompts;

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
    /// After how many tokens of the reply the user cancels it, if so.
    pub cancel_after: Option<u64>,
}

impl UserPlan {
    pub(super) fn new(plan: &Plan, number: u32) -> Self {
        let seed = stable_hash(&[b"user", &plan.seed.to_le_bytes(), &number.to_le_bytes()]);
        Self {
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
    pub fn first_wait(&mut self) -> Nanos {
        (self.think.sample_residual(&mut self.rng) * 1_000.0) as Nanos
    }

    /// From a turn's end to the next turn's intended start.
    pub fn think(&mut self) -> Nanos {
        (self.think.sample(&mut self.rng) * 1_000.0) as Nanos
    }

    /// The next thing that the user says.
    pub fn say(&mut self) -> Saying {
        let turn = self.turn;
        self.turn += 1;
        let choices = self.prompts.choices();
        let (which, place) = self.conversation.unwrap_or_else(|| (self.rng.random_range(0..choices), 0));
        let prompt = self.prompts.text(which, place, &mut self.rng);
        let continues = place + 1 < self.prompts.turns(which).min(self.turns as usize);
        self.conversation = continues.then_some((which, place + 1));
        let cancels = self.cancel_share > 0.0 && self.rng.random_bool(self.cancel_share);
        let cancel_after = cancels.then(|| self.rng.random_range(CANCEL_AFTER));
        let marker = marker(&self.run, &self.number.to_string(), turn);
        Saying { text: format!("{prompt} [[{marker}]]"), marker, opens: place == 0, continues, cancel_after }
    }
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

    #[test]
    fn equal_seeds_give_equal_users_and_other_numbers_others() {
        let plan = plan(&[10], "lognormal 15s 45s");
        let draw = |number| {
            let mut user = plan.user(number);
            (user.first_wait(), user.think(), user.say(), user.say())
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn a_conversation_has_its_turns_and_every_turn_its_marker() {
        let plan = plan(&[10], "0");
        let mut user = plan.user(7);
        let said: Vec<Saying> = (0..6).map(|_| user.say()).collect();
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
            (0..30).map(|_| user.say()).collect()
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
            let mean = (0..20_000).map(|_| user.think() as f64 / 1e3).sum::<f64>() / 20_000.0;
            // Five standard errors of the heaviest tail above.
            prop_assert!((mean / plan.think.mean() - 1.0).abs() < 0.05, "{mean} {}", plan.think.mean());
        }
    }
}
