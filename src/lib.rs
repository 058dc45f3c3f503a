//! capacity-check: how many users an LLM chat deployment carries, what runs out first, and what
//! must change.

pub mod clock;
pub mod driver;
pub mod net;
pub mod record;
pub mod secret;
