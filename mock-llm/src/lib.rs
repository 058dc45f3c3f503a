//! The bundled mock LLM of capacity-check: it speaks OpenAI's chat completions and Responses, Anthropic's Messages and
//! Ollama's chat, deterministic by prompt and seed, with every token on an absolute schedule and every request in a
//! journal.
//!
//! [`serve`] runs it on two listeners: chat on the first; metrics, journal, behaviour and
//! clock on the second. [`cli::MockArgs`] is its command line.

mod admin;
mod api;
pub mod behaviour;
pub mod cli;
mod clock;
pub mod distribution;
mod format;
pub mod journal;
mod librechat;
mod metrics;
pub mod process;
pub mod receive;
mod schedule;
pub mod script;
mod section;
mod server;
mod socket;
mod state;
mod stream;

pub use clock::{Clock, Wrong, host};
pub use section::{Problem, kind, unknown};
pub use server::{Options, serve};
