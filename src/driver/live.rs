//! What a driver tells the shard's recorder while a turn is going on.

use std::cell::RefCell;

use crate::clock::Nanos;
use crate::record::{Outcome, Place, Recorder, Step};

/// A turn's line to its recorder; without a recorder nothing is told.
#[derive(Clone, Copy)]
pub struct Live<'a>(Option<(&'a RefCell<Recorder>, Place)>);

impl<'a> Live<'a> {
    /// Tells `recorder` about a turn that belongs to `place`.
    pub fn new(recorder: &'a RefCell<Recorder>, place: Place) -> Self {
        Self(Some((recorder, place)))
    }

    /// Tells nobody: for a turn before the run.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Tokens arrived, `lag` before they were read; `kernel` tells whose stamp says so.
    pub(super) fn arrival(self, tokens: u64, lag: Nanos, kernel: bool) {
        if let Some((recorder, place)) = self.0 {
            recorder.borrow_mut().arrival(place, tokens, lag, kernel);
        }
    }

    /// Something that is no turn was done as part of it, or failed.
    pub(super) fn step(self, step: Step, outcome: Outcome, took: Nanos) {
        if let Some((recorder, _)) = self.0 {
            recorder.borrow_mut().step(step, outcome, took, "");
        }
    }

    /// The first token arrived.
    pub(super) fn first_token(self, ttft: Nanos) {
        if let Some((recorder, _)) = self.0 {
            recorder.borrow_mut().first_token(ttft);
        }
    }
}
