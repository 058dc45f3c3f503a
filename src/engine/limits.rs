//! What a run needs of this machine, checked and raised before the ramp.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors beside those of the users.
const SPARE_FDS: u64 = 128;
/// Resident memory an open stream needs, with room to spare (`benches/cost` measures it).
const BYTES_A_STREAM: u64 = 64 << 10;

/// What was found and set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prepared {
    /// The limit of open descriptors in force now.
    pub fds: u64,
    /// Local ports that connections to one address may use, over all addresses that they come from.
    pub ports: u64,
}

/// What the machine does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LimitError {
    /// Too few descriptors, and no way to raise them.
    #[error(
        "{needed} open files are needed for {users} users, but the hard limit is {hard}; raise it with `ulimit -Hn {needed}` or LimitNOFILE, or ask for fewer users"
    )]
    Fds {
        /// Users at the peak.
        users: u32,
        /// Descriptors that they need.
        needed: u64,
        /// The hard limit.
        hard: u64,
    },
    /// Too few local ports.
    #[error(
        "{users} users need as many local ports, but ip_local_port_range has only {ports}; widen it with `sysctl net.ipv4.ip_local_port_range='1024 65535'`, name more addresses of this machine with --source-address, or ask for fewer users"
    )]
    Ports {
        /// Users at the peak.
        users: u32,
        /// Ports in the range, once for each address that connections come from.
        ports: u64,
    },
    /// Too little memory.
    #[error(
        "{users} users need about {needed_mib} MiB of memory, but only {available_mib} MiB are available; ask for fewer users"
    )]
    Memory {
        /// Users at the peak.
        users: u32,
        /// Memory that they need.
        needed_mib: u64,
        /// Memory that there is.
        available_mib: u64,
    },
}

/// Checks that the machine can carry so many users, and raises the descriptor limit if it must. Each of the source
/// addresses that were said has a range of local ports of its own; none were: the system takes one.
///
/// # Errors
/// Everything that is missing, with what would help.
pub fn prepare(users: u32, source_addresses: usize) -> Result<Prepared, Vec<LimitError>> {
    let mut missing = Vec::new();
    let needed = u64::from(users) + SPARE_FDS;
    let fds = raise_fds(needed).unwrap_or_else(|hard| {
        missing.push(LimitError::Fds { users, needed, hard });
        hard
    });
    let ports = ports() * source_addresses.max(1) as u64;
    if u64::from(users) > ports {
        missing.push(LimitError::Ports { users, ports });
    }
    let needed = u64::from(users) * BYTES_A_STREAM;
    if let Some(available) = available_memory()
        && needed > available
    {
        missing.push(LimitError::Memory { users, needed_mib: needed >> 20, available_mib: available >> 20 });
    }
    if missing.is_empty() { Ok(Prepared { fds, ports }) } else { Err(missing) }
}

/// Raises the soft limit as far as needed; `Err` has the hard limit where that is too low.
fn raise_fds(needed: u64) -> Result<u64, u64> {
    // A limit that cannot be read will not be in the way either.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(needed) };
    if soft >= needed {
        return Ok(soft);
    }
    if hard < needed {
        return Err(hard);
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map(|()| needed).map_err(|_| soft)
}

fn ports() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_whitespace().filter_map(|bound| bound.parse::<u64>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) => (high + 1).saturating_sub(low),
        _ => u64::from(u16::MAX),
    }
}

fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_users_fit_and_millions_do_not() {
        let prepared = prepare(10, 0).unwrap();
        assert!(prepared.fds >= 138 && prepared.ports > 10);
        let missing = prepare(4_000_000_000, 0).unwrap_err();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing[0].to_string().contains("ulimit -Hn"));
        assert!(missing[1].to_string().contains("ip_local_port_range"));
        assert!(missing[1].to_string().contains("--source-address"));
    }

    #[test]
    fn each_source_address_has_ports_of_its_own() {
        let one = prepare(10, 0).unwrap().ports;
        assert_eq!(prepare(10, 1).unwrap().ports, one);
        assert_eq!(prepare(10, 3).unwrap().ports, 3 * one);
    }
}
