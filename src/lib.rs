//! capacity-check: how many users an LLM chat deployment carries, what runs out first, and what
//! must change.

pub mod account;
pub mod analysis;
pub mod cli;
pub mod clock;
pub mod driver;
pub mod engine;
pub mod exit;
pub mod grade;
pub mod lang;
pub mod metric;
pub mod net;
pub mod plan;
pub mod probe;
pub mod record;
pub mod report;
pub mod result;
pub mod scenario;
pub mod secret;
pub mod trace;
pub mod verdict;
