//! The mock's wall clock, and the host whose it is.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::journal::unix_us;
use crate::script::stable_hash;

/// The mock's clocks at one moment, as `/admin/clock` tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The wall clock in Unix microseconds.
    pub unix_us: u64,
    /// Microseconds since the mock started, by its monotonic clock.
    pub monotonic_us: u64,
    /// Whose clock it is: equal texts are one clock. See [`host`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
}

/// A clock that is wrong on purpose, so that whoever corrects for it can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wrong {
    /// So far ahead of the host's, in microseconds.
    pub offset_us: i64,
    /// Running so much faster, in millionths.
    pub skew_ppm: f64,
}

/// The wall clock that journal and clock endpoint read.
#[derive(Debug)]
pub(crate) struct WallClock {
    wrong: Wrong,
    started: Instant,
    host: Option<String>,
}

impl WallClock {
    pub(crate) fn new(wrong: Wrong) -> Self {
        // A wrong clock is nobody else's.
        let host = if wrong == Wrong::default() { host() } else { None };
        Self { wrong, started: Instant::now(), host }
    }

    /// Now, in Unix microseconds.
    pub(crate) fn unix_us(&self) -> u64 {
        if self.wrong == Wrong::default() {
            return unix_us();
        }
        let gained = self.started.elapsed().as_secs_f64() * self.wrong.skew_ppm;
        unix_us().saturating_add_signed(self.wrong.offset_us + gained as i64)
    }

    /// Both clocks now.
    pub(crate) fn now(&self) -> Clock {
        let monotonic_us = self.started.elapsed().as_micros() as u64;
        Clock { unix_us: self.unix_us(), monotonic_us, host: self.host.clone() }
    }
}

/// Names the running kernel, whose wall clock all its processes share, those in containers among
/// them: a hash of Linux's boot id. `None` where there is none.
pub fn host() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{:016x}", stable_hash(&[b"host", boot.trim().as_bytes()])))
}
