//! Behaviour of the whole: the tool against real servers on loopback.

mod accessibility;
mod accounts;
mod arrows;
mod bad_input;
mod books;
mod calibrate;
mod deployment;
mod judging;
mod librechat;
mod mock;
mod outcomes;
mod pools;
mod probes;
mod recording;
mod reports;
mod result;
mod scenarios;
mod secrets;
mod sse;
mod stamps;
mod stopping;
mod stored;
mod support;
mod tls;
mod tracing;
mod transcripts;
