//! Behaviour of the whole: the tool against real servers on loopback.

mod accounts;
mod arrows;
mod bad_input;
mod books;
mod deployment;
mod judging;
mod librechat;
mod mock;
mod outcomes;
mod recording;
mod result;
mod sse;
mod stamps;
mod stopping;
mod support;
mod tls;
mod transcripts;
