//! Behaviour of the whole: the tool against real servers on loopback.

mod arrows;
mod bad_input;
mod books;
mod judging;
mod mock;
mod outcomes;
mod recording;
mod result;
mod sse;
mod stamps;
mod stopping;
mod support;
mod tls;
