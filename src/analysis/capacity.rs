//! The answer to "how many users does it carry?".

use crate::result::{Capacity, TierResult, Verdict};

/// The largest tier that passed, with every smaller one, and the smallest above it that did not.
pub fn capacity(tiers: &[TierResult]) -> Capacity {
    let passed = tiers.iter().take_while(|tier| tier.verdict == Verdict::Pass).count();
    Capacity {
        users: passed.checked_sub(1).map(|last| tiers[last].users),
        not_passed: tiers.get(passed).map(|tier| tier.users),
    }
}
