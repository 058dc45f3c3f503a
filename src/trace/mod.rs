//! Tracing: a turn's reply is known in advance, and the mock tells when it sent each token of it.
//!
//! [`Check`] holds the text against its script as it arrives. [`Tracer`] reads the mock's journal while a run
//! goes on and finds the turns of users in it: where their time went, and how tokens came through.

mod admin;
mod align;
mod check;
mod join;
mod offset;
mod tracer;

pub use crate::scenario::WhiteSpace;
pub use admin::{MockAdmin, TraceError};
pub use check::Check;
pub use join::{Spoken, join};
pub use offset::Offset;
pub use tracer::{Tracer, Traces, Tracing};
