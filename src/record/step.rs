//! What users do besides turns: being let in, loading the page.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::metric::new_histogram;
use super::outcome::{Outcome, OutcomeCounts};
use super::turn::Example;
use crate::clock::{Nanos, micros};

/// The examples that a step keeps.
const EXAMPLES: usize = 5;

/// Something that a user does besides turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// An account is made.
    Registration,
    /// The user is let in, before the first tier.
    Login,
    /// The calls of a client that is opened, before the first turn or again in the middle of one: from the first to
    /// the end of the last.
    PageLoad,
    /// A bearer token is renewed in the middle of the run, as part of a turn.
    Renewal,
    /// Earlier conversations are read.
    History,
    /// A turn is cancelled: from the cancel's sending to the turn's end.
    Cancel,
    /// A reply whose connection was lost, or whose page was loaded again, is taken up: from the loss, or the end of the
    /// page load, to the first event that comes on the new connection. The client's own pauses before it tries are in
    /// it: with LibreChat 200 ms before the first, and none after a page load. Where the reply ended meanwhile it is up
    /// to when it was read from its conversation.
    Resume,
    /// The user leaves.
    Leave,
}

/// How often a step was done, how it ended and how long it took where it succeeded.
#[derive(Debug, Clone)]
pub struct StepRecord {
    /// How it ended.
    pub outcomes: OutcomeCounts,
    /// Latencies of those that succeeded.
    pub latency: Histogram<u64>,
    /// A few of those that did not.
    pub examples: Vec<Example>,
}

impl Default for StepRecord {
    fn default() -> Self {
        Self { outcomes: OutcomeCounts::default(), latency: new_histogram(), examples: Vec::new() }
    }
}

/// All steps of a run.
#[derive(Debug, Clone, Default)]
pub struct Steps(BTreeMap<Step, StepRecord>);

impl Steps {
    /// One user did one step.
    pub fn record(&mut self, step: Step, outcome: Outcome, took: Nanos, detail: &str) {
        let record = self.0.entry(step).or_default();
        record.outcomes.add(outcome);
        if outcome == Outcome::Completed {
            record.latency.saturating_record(micros(took).max(1));
        } else if record.examples.len() < EXAMPLES {
            record.examples.push(Example { outcome: outcome.to_string(), detail: detail.to_owned() });
        }
    }

    /// Adds what another has recorded.
    pub fn merge(&mut self, other: Self) {
        for (step, theirs) in other.0 {
            let mine = self.0.entry(step).or_default();
            mine.outcomes.merge(&theirs.outcomes);
            mine.latency.add(&theirs.latency).expect("both histograms have the same bounds");
            let room = EXAMPLES - mine.examples.len().min(EXAMPLES);
            mine.examples.extend(theirs.examples.into_iter().take(room));
        }
    }

    /// One step, if anybody did it.
    pub fn get(&self, step: Step) -> Option<&StepRecord> {
        self.0.get(&step)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Step, &StepRecord)> {
        self.0.iter().map(|(step, record)| (*step, record))
    }
}
