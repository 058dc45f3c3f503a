//! What one user does, resolved.

use std::time::Duration;

use mock_llm::distribution::Written;
use serde::Serialize;

/// A way through the deployment that some of the users follow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Journey {
    /// Its name.
    pub name: String,
    /// Its part among all journeys' weights.
    pub weight: f64,
    /// What is done, in order; after the last one it begins again.
    pub steps: Vec<JourneyStep>,
}

/// One step of a journey.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum JourneyStep {
    /// The user is let in; without this step the stored token of the sign-in is used.
    Login,
    /// The page is loaded.
    Page,
    /// Turns are spoken.
    Turns(Turns),
    /// Earlier conversations are read.
    History,
    /// The user leaves, and comes again after a while.
    Leave {
        /// Microseconds away.
        away: Written,
    },
}

/// Turns of a journey.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turns {
    /// How many; `None`: on and on.
    pub count: Option<u32>,
    /// Microseconds between a turn's end and the next one's intended start; `None`: as for all.
    pub think: Option<Written>,
    /// Turns that the user cancels in the middle of the reply.
    pub abort: Option<Risk>,
    /// Turns in whose middle the page is loaded again.
    pub reload: Option<Risk>,
    /// Turns in whose middle the connection is lost.
    pub drop: Option<Risk>,
}

/// Something that happens in the middle of a share of the turns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Risk {
    /// The share of turns, from 0 to 1.
    pub share: f64,
    /// Microseconds after the actual send.
    pub after: Written,
}

/// Something that a user does in the middle of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturb {
    /// What it is.
    pub what: Disturbance,
    /// When.
    pub after: After,
}

/// What a user does in the middle of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Cancels it.
    Cancel,
    /// Loads the page again and takes the reply up there.
    Reload,
    /// Loses the connection and takes the reply up on another.
    Drop,
}

/// When something happens in the middle of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// After so many tokens.
    Tokens(u64),
    /// So long after the actual send.
    Time(Duration),
}
