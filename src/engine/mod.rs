//! The life of a run: shards carry users, the controller leads them through the tiers.

mod control;
mod generator;
mod limits;
mod pool;
mod shard;
mod user;

use std::time::Duration;

use crate::clock::Nanos;
use crate::record::{Delta, Record, TimelinePoint, Window};

pub use control::{Patience, Settings, asked, run};
pub use generator::{GeneratorSample, TierUsage};
pub use limits::{LimitError, Prepared, prepare};

/// What the controller tells while a run goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A stage of a tier begins.
    Stage {
        /// The tier's number, from 0.
        tier: usize,
        /// Its users.
        users: u32,
        /// What begins.
        stage: Stage,
        /// How long it is planned to take, in nanoseconds.
        length: Nanos,
    },
    /// A second is over on every shard.
    Second {
        /// Seconds since the run began.
        t_s: u64,
        /// What happened in it.
        delta: &'a Delta,
    },
    /// The run is being stopped before its end.
    Stopping(&'a Stop),
}

/// A stage of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// New users come.
    Ramp,
    /// The users are there and are measured.
    Steady,
    /// The measured turns come to their end, under the same load.
    Drain,
}

impl Stage {
    /// The word, in the run journal and in live progress.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Steady => "steady",
            Self::Drain => "drain",
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// Every tier was run.
    Finished,
    /// The user asked for it.
    Interrupted,
    /// A guard was tripped.
    Guard(Tripped),
}

/// Which guard was tripped, and by what.
#[derive(Debug, Clone, PartialEq)]
pub enum Tripped {
    /// This share of the last turns failed, which is above the limit.
    ErrorRate {
        /// The share.
        share: f64,
        /// The turns.
        turns: u64,
        /// The limit.
        limit: f64,
    },
    /// The run has taken as long as it may.
    MaxDuration(Duration),
    /// The deployment has banned users or address, and said this.
    Banned(String),
}

/// A request to stop from outside, such as Ctrl-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupt {
    /// Let open turns end, then stop.
    Drain,
    /// Stop at once.
    Now,
}

/// How one tier went.
#[derive(Debug, Clone)]
pub struct TierRun {
    /// Its users.
    pub users: u32,
    /// Its stages on the run's clock.
    pub window: Window,
    /// Whether its steady phase was run to the end.
    pub complete: bool,
    /// What the generator used during the steady phase.
    pub usage: TierUsage,
}

/// What a run has produced.
#[derive(Debug)]
pub struct Output {
    /// Everything recorded, all shards merged.
    pub record: Record,
    /// The tiers that were begun.
    pub tiers: Vec<TierRun>,
    /// A point a second.
    pub timeline: Vec<TimelinePoint>,
    /// Why it ended.
    pub stop: Stop,
    /// Steps of the wall clock that were seen.
    pub clock_steps: u64,
    /// The most resident memory of this process, in bytes.
    pub peak_rss_bytes: u64,
}
