//! Reports: functions of the result alone. Nothing is computed here, only formatted.

mod terminal;

pub use terminal::{summary, tier_table};
