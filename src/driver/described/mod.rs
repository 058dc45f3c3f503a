//! What the protocols that a scenario describes share: the values in their texts, what their messages mean, their
//! requests, what a client does besides turns, how a reply is read from what messages come by, and the sockets below.

pub(super) mod backoff;
pub(super) mod cookies;
pub(super) mod line;
pub(super) mod reading;
pub(super) mod request;
pub(super) mod rules;
pub(super) mod site;
pub(super) mod values;
