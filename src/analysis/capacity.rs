//! The answer to "how many users does it carry?".

use crate::grade::Role;
use crate::result::{Capacity, TierResult, Verdict};

/// The largest tier that passed, with every smaller one, and the smallest above it that did not.
pub fn capacity(tiers: &[TierResult]) -> Capacity {
    // What is left of a crowd has the size of what was there before it.
    let rising: Vec<&TierResult> = tiers.iter().filter(|tier| tier.role != Role::Recovery).collect();
    // A rise that passes was never held at its end.
    let passed = rising.iter().take_while(|tier| tier.verdict == Verdict::Pass && tier.role != Role::Rise).count();
    let last = passed.checked_sub(1).map(|last| rising[last]);
    let next = rising.get(passed).filter(|tier| tier.verdict != Verdict::Pass);
    Capacity {
        users: last.map(|tier| tier.users),
        not_passed: next.map(|tier| tier.users),
        rate: last.and_then(|tier| tier.rate),
        rate_not_passed: next.and_then(|tier| tier.rate),
    }
}
