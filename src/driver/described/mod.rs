//! What the protocols that a scenario describes share: the values in their texts, what their messages mean, their
//! requests, and what a client does besides turns.

pub(super) mod request;
pub(super) mod rules;
pub(super) mod site;
pub(super) mod values;
