//! What the generator itself uses: CPU, memory, descriptors of this process.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::clock::{self, Nanos};

/// The usage of this process up to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorSample {
    at: Nanos,
    cpu: Nanos,
}

/// What the generator used between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TierUsage {
    /// CPU time over wall time: 1 is one core.
    pub cpu_cores: f64,
    /// Resident memory at the end, in bytes.
    pub rss_bytes: u64,
    /// Open file descriptors at the end.
    pub fds: u64,
}

impl GeneratorSample {
    /// Usage up to now.
    pub fn now() -> Self {
        let cpu = getrusage(UsageWho::RUSAGE_SELF)
            .map_or(0, |usage| (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) * 1_000);
        Self { at: clock::monotonic(), cpu }
    }

    /// Usage since `self`.
    pub fn usage(&self) -> TierUsage {
        let now = Self::now();
        let wall = (now.at - self.at).max(1);
        TierUsage {
            cpu_cores: (now.cpu - self.cpu) as f64 / wall as f64,
            rss_bytes: rss_bytes(),
            fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        }
    }
}

fn rss_bytes() -> u64 {
    status("VmRSS:")
}

/// The most resident memory that this process ever had, in bytes.
pub(super) fn peak_rss_bytes() -> u64 {
    status("VmHWM:")
}

/// A memory line of `/proc/self/status`, in bytes; 0 where it cannot be read.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_is_seen() {
        let before = GeneratorSample::now();
        let mut sum = 0_u64;
        while before.usage().cpu_cores < 0.01 || sum == 0 {
            sum = sum.wrapping_add((0..100_000_u64).fold(0, |sum, n| sum ^ n.wrapping_mul(31)) | 1);
        }
        let usage = before.usage();
        assert!(usage.rss_bytes > 1 << 20 && usage.fds >= 3);
        assert!(peak_rss_bytes() >= usage.rss_bytes / 2);
    }
}
