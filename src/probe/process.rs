//! Processes of the server on this machine, by pid, port or control group (v2): what `/proc` and the group's files tell.

mod cgroup;
mod sockets;

use std::collections::{BTreeSet, HashMap};

use procfs::process::{LimitValue, Process, all_processes};

use super::{Moment, ProbeError, Rates};
use crate::record::{EventKind, Gauge, LimitSource, Watched};
use crate::scenario::{ProcessProbe, Which};
use crate::secret::escaped;
pub(super) use cgroup::Cgroup;
use sockets::Sockets;

/// How often descendants are looked for: every process of the machine is read for that.
const FAMILY_EVERY: u32 = 5;
/// Processes that have series of their own; the sums have all of them.
const SHOWN: usize = 12;

/// The watcher of processes.
pub(super) struct Processes {
    which: Which,
    family: Vec<i32>,
    looked: Option<u32>,
    rates: Rates,
    /// When each process began: a pid that comes again is another process.
    known: HashMap<i32, u64>,
    /// Those that have series of their own.
    shown: BTreeSet<i32>,
    sockets: Sockets,
}

/// What one process used.
#[derive(Debug, Default)]
struct Used {
    cores: Option<f64>,
    memory: f64,
    descriptors: Option<f64>,
    threads: f64,
    voluntary: Option<f64>,
    involuntary: Option<f64>,
}

impl Processes {
    pub(super) fn new(which: Which) -> Self {
        Self {
            which,
            family: Vec::new(),
            looked: None,
            rates: Rates::default(),
            known: HashMap::new(),
            shown: BTreeSet::new(),
            sockets: Sockets::default(),
        }
    }

    pub(super) fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        if self.family.is_empty() || self.looked.is_none_or(|looked| moment.second >= looked + FAMILY_EVERY) {
            self.looked = Some(moment.second);
            self.family = family(&self.which);
        }
        out.fact("processes", self.family.len().to_string());
        let mut seen = Vec::new();
        for pid in self.family.clone() {
            match self.one(pid, moment, out) {
                Some(used) => seen.push((pid, used)),
                None => {
                    self.family.retain(|known| *known != pid);
                    if self.known.remove(&pid).is_some() {
                        self.rates.forget_ending(&format!(" {pid}"));
                        out.event(moment.at_s, EventKind::Gone, format!("process {pid} has ended"));
                    }
                }
            }
        }
        if seen.is_empty() {
            return Err(ProbeError::failed(match self.which {
                Which::Port(port) => format!("nobody listens on port {port}, or the process is somebody else's"),
                _ => "the process is gone".to_owned(),
            }));
        }
        Self::sums(&seen, moment, out);
        self.sockets.look(&self.family, moment, &mut self.rates, out);
        Ok(())
    }

    /// One process; `None` where it is gone.
    fn one(&mut self, pid: i32, moment: Moment, out: &mut Watched) -> Option<Used> {
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        // Who has ended and was not waited for uses nothing any more.
        if stat.state == 'Z' {
            return None;
        }
        let name = escaped(&format!("{} {pid}", stat.comm), 60);
        if self.known.insert(pid, stat.starttime).is_some_and(|before| before != stat.starttime) {
            self.rates.forget();
            out.event(moment.at_s, EventKind::Restarted, name.clone());
        }
        let ticks = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let mut rate = |what: &str, value: f64| self.rates.per_second(&format!("{what} {pid}"), value, moment.at);
        let status = process.status().ok();
        let switches = |switches: Option<u64>| switches.map(|switches| switches as f64);
        let used = Used {
            cores: rate("cpu", ticks),
            memory: (stat.rss * procfs::page_size()) as f64,
            descriptors: process.fd_count().ok().map(|count| count as f64),
            threads: stat.num_threads as f64,
            voluntary: status
                .as_ref()
                .and_then(|status| switches(status.voluntary_ctxt_switches))
                .and_then(|value| rate("voluntary", value)),
            involuntary: status
                .as_ref()
                .and_then(|status| switches(status.nonvoluntary_ctxt_switches))
                .and_then(|value| rate("involuntary", value)),
        };
        if used.descriptors.is_none() {
            out.miss("file descriptors", "the process is somebody else's: run as its user or as root");
        }
        if self.shown.contains(&pid) || self.shown.len() < SHOWN {
            show(&name, &used, moment, out);
            if self.shown.insert(pid) {
                limit(&process, &name, out);
            }
        }
        Some(used)
    }

    fn sums(seen: &[(i32, Used)], moment: Moment, out: &mut Watched) {
        let mut put = |gauge: Gauge, of: &dyn Fn(&Used) -> Option<f64>| {
            let values: Vec<f64> = seen.iter().filter_map(|(_, used)| of(used)).collect();
            if !values.is_empty() {
                out.put(moment.second, gauge, None, values.iter().sum());
            }
        };
        put(Gauge::Cpu, &|used| used.cores);
        put(Gauge::Memory, &|used| Some(used.memory));
        put(Gauge::Descriptors, &|used| used.descriptors);
        put(Gauge::Threads, &|used| Some(used.threads));
        put(Gauge::SwitchesVoluntary, &|used| used.voluntary);
        put(Gauge::SwitchesInvoluntary, &|used| used.involuntary);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        out.limit(&Gauge::Cpu, None, cores, LimitSource::Server);
    }
}

/// The series of one process.
fn show(name: &str, used: &Used, moment: Moment, out: &mut Watched) {
    let Used { cores, memory, descriptors, .. } = used;
    for (gauge, value) in [(Gauge::Cpu, *cores), (Gauge::Memory, Some(*memory)), (Gauge::Descriptors, *descriptors)] {
        if let Some(value) = value {
            out.put(moment.second, gauge, Some(name), value);
        }
    }
}

/// The most descriptors of one process, as it began.
fn limit(process: &Process, name: &str, out: &mut Watched) {
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        out.limit(&Gauge::Descriptors, Some(name), most as f64, LimitSource::Server);
    }
}

/// The processes that are meant, with all their descendants.
fn family(which: &Which) -> Vec<i32> {
    let mut parents = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        if let Ok(stat) = process.stat() {
            parents.insert(stat.pid, stat.ppid);
        }
    }
    let mut members: BTreeSet<i32> = roots(which, parents.keys().copied()).into_iter().collect();
    // A child's parent has a number, but not always a smaller one: so again, until nobody is added.
    loop {
        let before = members.len();
        let children: Vec<i32> =
            parents.iter().filter(|(_, parent)| members.contains(parent)).map(|(pid, _)| *pid).collect();
        members.extend(children);
        if members.len() == before {
            break;
        }
    }
    members.into_iter().filter(|pid| parents.contains_key(pid)).collect()
}

fn roots(which: &Which, all: impl Iterator<Item = i32>) -> Vec<i32> {
    match which {
        Which::Pid(pid) => vec![*pid as i32],
        Which::Port(port) => sockets::listeners(*port, all),
        Which::Cgroup(folder) => cgroup::members(folder),
    }
}

/// A number in the environment of the processes that are meant: summed up over those that have connections to one of
/// these ports, for a shell that starts a server hands its environment on and has none. Where no process has any, the
/// largest.
pub(super) fn environment(probes: &[ProcessProbe], name: &str, ports: &[u16]) -> Option<f64> {
    let of = |pid: i32| {
        let environment = Process::new(pid).ok()?.environ().ok()?;
        environment.get(std::ffi::OsStr::new(name))?.to_string_lossy().parse::<f64>().ok()
    };
    let pids: BTreeSet<i32> = probes.iter().flat_map(|probe| family(&probe.which)).collect();
    let all: Vec<(i32, f64)> = pids.into_iter().filter_map(|pid| Some((pid, of(pid)?))).collect();
    let connected = sockets::connected(ports, all.iter().map(|(pid, _)| *pid));
    let sum: f64 = all.iter().filter(|(pid, _)| connected.contains(pid)).map(|(_, number)| number).sum();
    if sum > 0.0 { Some(sum) } else { all.iter().map(|(_, number)| *number).reduce(f64::max) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, SECOND};
    use crate::record::Probe;

    #[test]
    fn this_process_is_seen_with_its_cpu_and_memory() {
        let which = Which::Pid(std::process::id());
        let mut processes = Processes::new(which);
        let mut out = Watched::new(Probe::Process, "me");
        let epoch = clock::monotonic();
        processes.look(Moment { at_s: 1.0, second: 1, at: epoch, epoch: 0 }, &mut out).unwrap();
        let until = epoch + SECOND / 5;
        while clock::monotonic() < until {
            std::hint::spin_loop();
        }
        processes.look(Moment { at_s: 2.0, second: 2, at: clock::monotonic(), epoch: 0 }, &mut out).unwrap();
        let last = |gauge| out.find(&gauge, None).map(|series| series.points.last().unwrap().mean);
        assert!(last(Gauge::Cpu).is_some_and(|cores| cores > 0.1), "{:?}", last(Gauge::Cpu));
        assert!(last(Gauge::Memory).is_some_and(|bytes| bytes > 1e6));
        assert!(last(Gauge::Descriptors).is_some_and(|count| count >= 3.0));
        assert!(out.series.iter().any(|series| series.gauge == Gauge::Descriptors && series.limit.is_some()));
    }

    #[test]
    fn who_is_gone_is_told() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let mut processes = Processes::new(Which::Pid(child.id()));
        let mut out = Watched::new(Probe::Process, "s");
        processes.look(Moment { at_s: 1.0, second: 1, at: 1, epoch: 0 }, &mut out).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let error = processes.look(Moment { at_s: 2.0, second: 2, at: 2, epoch: 0 }, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "the process is gone");
        assert_eq!(out.events[0].kind, EventKind::Gone);
    }
}
