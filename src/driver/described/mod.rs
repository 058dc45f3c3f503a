//! What the protocols that a scenario describes share: the values in their texts, and what their messages mean.

pub(super) mod rules;
pub(super) mod values;
