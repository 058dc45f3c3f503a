//! What a run will do, before it does: arithmetic on the plan and on what is assumed of the target.

use std::time::Duration;

use statrs::distribution::{Binomial, DiscreteCDF, Poisson};

use super::Translation;
use crate::scenario::{Accounts, Arrivals, Process, Scenario, Target, Times};

/// The mean number of tokens after which a user cancels who cancels at all.
const CANCELLED_TOKENS: f64 = 10.5;

/// What is assumed of the target, or known where the model is ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumed {
    /// The mean turn, from actual send to terminal event.
    pub turn: Duration,
    /// The mean number of tokens of a reply.
    pub tokens: f64,
}

/// One tier of a run that is to come.
#[derive(Debug, Clone, PartialEq)]
pub struct TierForecast {
    /// Users, turns a second, streams in flight on average.
    pub wish: Translation,
    /// Streams in flight that are exceeded in one moment of a thousand.
    pub streams_peak: u64,
    /// The expected length of the steady phase.
    pub steady: Duration,
}

/// What a LibreChat deployment will write into its database. Of each turn: two messages, and two
/// transactions where they are recorded, which is the default; a conversation each, and a session a
/// login (the operations of LibreChat v0.8.7, as MongoDB saw them).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Documents {
    /// Of users and the model.
    pub messages: f64,
    /// Opened.
    pub conversations: f64,
    /// Of tokens.
    pub transactions: f64,
    /// Of logins.
    pub sessions: u32,
    /// Accounts that the run makes.
    pub accounts: u32,
}

/// A run that is to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// The tiers, rising.
    pub tiers: Vec<TierForecast>,
    /// Before the first tier, while users are made and let in.
    pub sign_in: Duration,
    /// All stages with the expected steady phases, and with the longest that are allowed.
    pub duration: (Duration, Duration),
    /// Turns of the whole run.
    pub turns: f64,
    /// Tokens that the model makes in it.
    pub tokens: f64,
    /// Conversations that are opened in it.
    pub conversations: f64,
    /// The most users at once.
    pub users: u32,
    /// The accounts that must be there, or are made.
    pub accounts: u32,
    /// What it will write, where that is known.
    pub documents: Option<Documents>,
}

impl Forecast {
    /// The forecast of a scenario. `measured_logins` users besides are let in to time it; `steady`
    /// says how long a tier must be held at a turn rate.
    pub fn new(
        scenario: &Scenario,
        assumed: Assumed,
        measured_logins: u32,
        steady: impl Fn(usize, f64) -> Duration,
    ) -> Self {
        let load = &scenario.load;
        let think = Duration::from_nanos((load.think.distribution.mean() * 1_000.0) as u64);
        let mut tiers: Vec<TierForecast> = Vec::new();
        let (mut turns, mut shortest, mut longest) = (0.0, Duration::ZERO, Duration::ZERO);
        for (index, tier) in load.tiers.iter().enumerate() {
            // Nobody turns faster than in a millisecond.
            let turn = if think.is_zero() { assumed.turn.max(Duration::from_millis(1)) } else { assumed.turn };
            let wish = Translation { users: tier.users, think, turn, rate: tier.rate };
            let rate = wish.turns_per_second();
            let Times { settle, arrive, steady: least, steady_max } = tier.times;
            let held = steady(index, rate).clamp(least, steady_max.max(least));
            let before = tiers.last().map_or(0.0, |tier| tier.wish.turns_per_second());
            // Newcomers come evenly; the load goes on while the measured turns end.
            let whole = settle + held;
            turns += f64::midpoint(before, rate) * arrive.as_secs_f64();
            turns += rate * (whole.saturating_sub(arrive) + assumed.turn).as_secs_f64();
            shortest += whole + assumed.turn;
            longest += settle + steady_max.max(least) + scenario.timeouts.turn;
            tiers.push(TierForecast { wish, streams_peak: peak(&wish), steady: held });
        }
        if let Arrivals::Open { process: Process::Offsets(all) } = &load.arrivals {
            turns = all.len() as f64;
        }
        let users = scenario.peak();
        let (accounts, made) = match &scenario.target {
            Target::LibreChat { accounts: Accounts::Registration, .. } => (users, users),
            Target::LibreChat { .. } => (users, 0),
            _ => (0, 0),
        };
        let sign_in = (f64::from(accounts) + f64::from(made) + f64::from(measured_logins)) / scenario.login_rate;
        let sign_in = Duration::try_from_secs_f64(sign_in).unwrap_or(Duration::MAX);
        let (most, whole) = (scenario.guards.max_duration.unwrap_or(Duration::MAX), 1.0 - load.cancel_share);
        // Users begin conversations as they end them, but for the last, which is cut short.
        let conversations = (turns / load.prompts.mean_turns(load.turns)).max(if load.arrivals.is_closed() {
            f64::from(users).min(turns)
        } else {
            0.0
        });
        let documents = matches!(scenario.target, Target::LibreChat { .. }).then_some(Documents {
            messages: 2.0 * turns,
            conversations,
            transactions: 2.0 * turns,
            sessions: accounts,
            accounts: made,
        });
        Self {
            sign_in,
            duration: (sign_in.saturating_add(shortest.min(most)), sign_in.saturating_add(longest.min(most))),
            turns,
            tokens: turns * (whole * assumed.tokens + (1.0 - whole) * assumed.tokens.min(CANCELLED_TOKENS)),
            conversations,
            users,
            accounts,
            documents,
            tiers,
        }
    }
}

/// Each user is in a turn with the same probability, independently of the others.
fn peak(wish: &Translation) -> u64 {
    if wish.rate.is_some() {
        // Streams of turns that come at random, each of which lasts as long as it lasts, are Poisson distributed.
        return Poisson::new(wish.streams()).map_or(0, |streams| streams.inverse_cdf(0.999)).min(u64::from(wish.users));
    }
    let share = wish.streams() / f64::from(wish.users.max(1));
    Binomial::new(share.clamp(0.0, 1.0), u64::from(wish.users)).map_or(0, |in_flight| in_flight.inverse_cdf(0.999))
}
