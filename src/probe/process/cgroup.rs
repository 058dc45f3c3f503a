//! A control group of version 2: what its files tell, whatever runs in it. Its root is configurable, so that a tree of
//! files can stand in for it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::probe::{Moment, ProbeError, Rates};
use crate::record::{EventKind, Gauge, LimitSource, Watched};

/// The watcher of a control group.
pub(in crate::probe) struct Cgroup {
    folder: PathBuf,
    rates: Rates,
    kills: Option<f64>,
}

impl Cgroup {
    pub(in crate::probe) fn new(folder: PathBuf) -> Self {
        Self { folder, rates: Rates::default(), kills: None }
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(file)).ok()
    }

    /// A file of one number; `max` is none.
    fn number(&self, file: &str) -> Option<f64> {
        self.read(file)?.trim().parse().ok()
    }

    pub(in crate::probe) fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        let Some(cpu) = self.read("cpu.stat") else {
            let folder = self.folder.display();
            return Err(ProbeError::failed(format!(
                "{folder} has no cpu.stat: no control group of version 2, or gone"
            )));
        };
        let second = moment.second;
        if let Some(cores) = self.rates.per_second("cpu", keyed(&cpu, "usage_usec").unwrap_or(0.0) / 1e6, moment.at) {
            out.put(second, Gauge::Cpu, None, cores);
        }
        // Of the periods in which it might run: throttled time sums up over cores and is no share of anything.
        let periods = keyed(&cpu, "nr_throttled").zip(keyed(&cpu, "nr_periods"));
        if let Some(share) =
            periods.and_then(|(throttled, all)| self.rates.mean("throttled", throttled, all, moment.at))
        {
            out.put(second, Gauge::Throttled, None, share);
        }
        for (file, gauge) in [("memory.current", Gauge::Memory), ("pids.current", Gauge::Processes)] {
            match self.number(file) {
                Some(value) => out.put(second, gauge, None, value),
                None => out.miss(file, "the group has no such file: its controller is not switched on"),
            }
        }
        self.limits(out);
        self.killed(moment, out);
        let members = members(&self.folder);
        out.fact("processes", members.len().to_string());
        Ok(())
    }

    fn limits(&self, out: &mut Watched) {
        if let Some(cores) = self.read("cpu.max").as_deref().and_then(cores) {
            out.limit(&Gauge::Cpu, None, cores, LimitSource::Server);
        }
        for (file, gauge) in [("memory.max", Gauge::Memory), ("pids.max", Gauge::Processes)] {
            if let Some(most) = self.number(file) {
                out.limit(&gauge, None, most, LimitSource::Server);
            }
        }
    }

    fn killed(&mut self, moment: Moment, out: &mut Watched) {
        let Some(kills) = self.read("memory.events").as_deref().and_then(|text| keyed(text, "oom_kill")) else {
            return;
        };
        // Those before the first look were killed before the run.
        let before = self.kills.replace(kills).unwrap_or(kills);
        if kills > before {
            out.event(moment.at_s, EventKind::OutOfMemory, format!("{} processes killed", kills - before));
        }
    }
}

/// A number of a file of lines `NAME NUMBER`.
fn keyed(text: &str, name: &str) -> Option<f64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(known, _)| *known == name)?.1.trim().parse().ok()
}

/// `cpu.max` in cores: `QUOTA PERIOD`, or `max PERIOD` for none.
fn cores(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The processes of a group and of the groups below it.
pub(super) fn members(folder: &Path) -> Vec<i32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        all.extend(members(&entry.path()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::record::Probe;

    #[test]
    fn a_tree_of_files_is_read_as_a_control_group() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 1000000\nuser_usec 1\nnr_periods 100\nnr_throttled 10\n");
        write("cpu.max", "150000 100000\n");
        write("memory.current", "1048576\n");
        write("memory.max", "max\n");
        write("memory.events", "oom 0\noom_kill 1\n");
        write("cgroup.procs", "11\n12\n");
        fs::create_dir(root.path().join("worker")).unwrap();
        write("worker/cgroup.procs", "13\n");
        let mut group = Cgroup::new(root.path().to_owned());
        let mut out = Watched::new(Probe::Cgroup, "shop");
        group.look(Moment { at_s: 1.0, second: 1, at: SECOND, epoch: 0 }, &mut out).unwrap();
        write("cpu.stat", "usage_usec 2500000\nnr_periods 110\nnr_throttled 15\n");
        write("memory.events", "oom_kill 3\n");
        group.look(Moment { at_s: 2.0, second: 2, at: 2 * SECOND, epoch: 0 }, &mut out).unwrap();
        let find = |gauge: Gauge| out.find(&gauge, None).unwrap();
        assert_eq!((find(Gauge::Cpu).points[0].mean, find(Gauge::Cpu).limit.unwrap().value), (1.5, 1.5));
        assert_eq!(find(Gauge::Throttled).points[0].mean, 0.5);
        assert_eq!((find(Gauge::Memory).points.len(), find(Gauge::Memory).limit), (2, None));
        assert_eq!(out.fact_of("processes"), Some("3"));
        assert_eq!(out.events[0].detail, "2 processes killed");
        assert_eq!((out.missing[0].what.as_str(), out.missing.len()), ("pids.current", 1));
        fs::remove_file(root.path().join("cpu.stat")).unwrap();
        assert!(group.look(Moment { at_s: 3.0, second: 3, at: 3 * SECOND, epoch: 0 }, &mut out).is_err());
    }
}
