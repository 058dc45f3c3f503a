//! Behaviour of the whole: the tool against real servers on loopback.

mod arrows;
mod bad_input;
mod books;
mod mock;
mod outcomes;
mod result;
mod stamps;
mod stopping;
mod support;
mod tls;
