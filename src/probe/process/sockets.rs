//! Sockets of the ports that processes listen on: their states, and what waits to be accepted.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};

use crate::probe::{Moment, Rates};
use crate::record::{EventKind, Gauge, Watched};

/// How often it is looked which ports there are.
const PORTS_EVERY: u32 = 10;
/// The kernel walks its whole table of sockets for `/proc/net/tcp`, some 5 ms however few there are: they are looked
/// at so rarely that it is no more than this a second.
const SHARE: Duration = Duration::from_millis(2);
const RAREST: u32 = 10;

/// The sockets of a family of processes.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    ports: HashSet<u16>,
    looked: Option<u32>,
    /// The second of the next look.
    next: u32,
}

impl Sockets {
    pub(super) fn look(&mut self, family: &[i32], moment: Moment, rates: &mut Rates, out: &mut Watched) {
        let Some(first) = family.first().and_then(|pid| Process::new(*pid).ok()) else { return };
        overflows(&first, moment, rates, out);
        if moment.second < self.next {
            return;
        }
        let began = Instant::now();
        let entries = entries(&first);
        let seconds = began.elapsed().as_secs_f64() / SHARE.as_secs_f64();
        self.next = moment.second + (seconds.ceil() as u32).clamp(1, RAREST);
        if self.looked.is_none_or(|looked| moment.second >= looked + PORTS_EVERY) {
            self.looked = Some(moment.second);
            let inodes: HashSet<u64> = family.iter().flat_map(|pid| inodes(*pid)).collect();
            let listens = entries.iter().filter(|entry| entry.state == TcpState::Listen);
            self.ports =
                listens.filter(|entry| inodes.contains(&entry.inode)).map(|entry| entry.local_address.port()).collect();
            let mut ports: Vec<u16> = self.ports.iter().copied().collect();
            ports.sort_unstable();
            if !ports.is_empty() {
                let ports: Vec<String> = ports.iter().take(8).map(u16::to_string).collect();
                out.fact("ports", ports.join(", "));
            }
        }
        self.count(&entries, moment, out);
    }

    fn count(&self, entries: &[TcpNetEntry], moment: Moment, out: &mut Watched) {
        if self.ports.is_empty() {
            return;
        }
        let ours: Vec<&TcpNetEntry> =
            entries.iter().filter(|entry| self.ports.contains(&entry.local_address.port())).collect();
        for (state, gauge) in [
            (TcpState::Established, Gauge::SocketsEstablished),
            (TcpState::TimeWait, Gauge::SocketsTimeWait),
            (TcpState::CloseWait, Gauge::SocketsCloseWait),
        ] {
            let count = ours.iter().filter(|entry| entry.state == state).count();
            out.put(moment.second, gauge, None, count as f64);
        }
        // Of a listening socket this queue is who waits to be accepted; how many may is not told here.
        let listening = ours.iter().filter(|entry| entry.state == TcpState::Listen);
        if let Some(longest) = listening.map(|entry| entry.rx_queue).max() {
            out.put(moment.second, Gauge::ListenQueue, None, f64::from(longest));
        }
    }
}

/// TCP sockets of a process' network namespace.
fn entries(process: &Process) -> Vec<TcpNetEntry> {
    let mut all = process.tcp().unwrap_or_default();
    all.extend(process.tcp6().unwrap_or_default());
    all
}

/// The sockets that a process has open.
fn inodes(pid: i32) -> Vec<u64> {
    let open = Process::new(pid).and_then(|process| process.fd());
    let socket = |target| match target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    };
    open.into_iter().flatten().flatten().filter_map(|descriptor| socket(descriptor.target)).collect()
}

/// The processes that listen on a port.
pub(super) fn listeners(port: u16, all: impl Iterator<Item = i32>) -> Vec<i32> {
    let Ok(own) = Process::myself() else { return Vec::new() };
    let listening: HashSet<u64> = entries(&own)
        .into_iter()
        .filter(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
        .map(|entry| entry.inode)
        .collect();
    if listening.is_empty() {
        return Vec::new();
    }
    all.filter(|pid| inodes(*pid).iter().any(|inode| listening.contains(inode))).collect()
}

/// Of these processes, those with a connection to one of these ports.
pub(super) fn connected(ports: &[u16], pids: impl Iterator<Item = i32>) -> HashSet<i32> {
    let has = |pid: &i32| {
        let Ok(process) = Process::new(*pid) else { return false };
        let own: HashSet<u64> = inodes(*pid).into_iter().collect();
        let mut there = entries(&process).into_iter().filter(|entry| ports.contains(&entry.remote_address.port()));
        there.any(|entry| entry.state == TcpState::Established && own.contains(&entry.inode))
    };
    pids.filter(has).collect()
}

/// Connections that the kernel threw away because a listen queue was full; it counts them for the whole namespace.
fn overflows(process: &Process, moment: Moment, rates: &mut Rates, out: &mut Watched) {
    let path = format!("/proc/{}/net/netstat", process.pid());
    let Some(count) = fs::read_to_string(path).ok().and_then(|text| listen_overflows(&text)) else { return };
    let Some(rate) = rates.per_second("overflows", count, moment.at) else { return };
    out.put(moment.second, Gauge::ListenOverflows, None, rate);
    if rate > 0.0 {
        out.event(moment.at_s, EventKind::ListenOverflow, format!("{rate:.0} connections a second"));
    }
}

/// `ListenOverflows` of `/proc/net/netstat`: a line of names, a line of numbers.
fn listen_overflows(text: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let index = names.split(' ').position(|name| name == "ListenOverflows")?;
    numbers.split(' ').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_are_read_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 42 43\nIpExt: X\nIpExt: 9\n";
        assert_eq!(listen_overflows(text), Some(42.0));
        assert_eq!(listen_overflows("TcpExt: A\n"), None);
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = std::process::id() as i32;
        assert_eq!(listeners(port, [1, me].into_iter()), [me]);
    }
}
