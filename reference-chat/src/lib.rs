//! A chat deployment in LibreChat's shapes, for capacity-check: login, page load, two-step chat,
//! resume, abort, limiters and bans as v0.8.7 has them, v0.8.1's one step by a switch.
//!
//! It relays a real OpenAI-compatible model token by token. Its cost model is one Node process:
//! logins, turns and tokens take exclusive time on one of its event loops ([`Queue`]), and a turn
//! waits a fixed time besides. Everything is kept in memory, unless it is given a MongoDB or a Redis:
//! then it uses them as LibreChat does, operation by operation. It answers the question "how would
//! a deployment with these costs behave?", never "how does mine?".

mod accounts;
mod api;
mod app;
mod archive;
mod chats;
pub mod cli;
mod generation;
mod job;
pub mod jwt;
mod limits;
mod metrics;
mod plant;
mod queue;
mod server;
mod settings;
#[cfg(test)]
mod simulation;
mod store;
mod work;

pub use plant::Plant;
pub use queue::Queue;
pub use server::serve;
pub use settings::{Costs, Limit, Limits, Settings};
pub use store::{MongoSettings, Operations, RedisSettings, StoreError};
