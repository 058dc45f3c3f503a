//! How load arrives: from users or at moments of its own, in steps or in another shape.

use std::path::Path;
use std::time::Duration;

use super::Problems;
use super::load::Size;
use crate::cli::overlay::Wish;
use crate::plan::offsets;
use crate::scenario::{Arrivals, Process, Role, Shape, Times};

/// A crowd's deployment may take so long to be as usual again.
const RECOVERY: Duration = Duration::from_secs(30);
/// The largest file of moments that is read.
const LARGEST: u64 = 16 << 20;
/// The highest rate that makes sense.
const HIGHEST: f64 = 1e6;

/// Whether the tiers are steps.
pub(super) fn is_steps(wish: &Wish) -> bool {
    let load = &wish.file.load;
    load.linear.is_none() && load.spike.is_none() && load.soak.is_none()
}

/// What becomes of the tiers.
pub(super) fn shape(wish: &Wish, problems: &mut Problems<'_>) -> Shape {
    let load = &wish.file.load;
    let given = [
        ("load.linear", load.linear.is_some()),
        ("load.spike", load.spike.is_some()),
        ("load.soak", load.soak.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(path, _)| path).collect();
    if let [_, second, ..] = given.as_slice() {
        problems.add(second, "say one of linear, spike and soak");
    }
    if let (Some(path), Some(true)) = (given.first(), wish.file.quick) {
        problems
            .add(path, "has a length of its own, which a first look (--quick) does not shorten; leave one of them out");
    }
    if load.soak.is_some() && (load.steady.is_some() || load.steady_max.is_some()) {
        problems.add("load.steady", "is `hold` of [load.soak]");
    }
    let mut length = |path: &str, text: &str| {
        let found = problems.duration(path, Some(text), Duration::ZERO);
        if found.is_zero() {
            problems.add(path, "should be above 0, such as 10m");
        }
        found
    };
    if let Some(linear) = &load.linear {
        let over = length("load.linear.over", &linear.over);
        return Shape::Linear { over };
    }
    if let Some(spike) = &load.spike {
        let hold = length("load.spike.hold", &spike.hold);
        let within = problems.duration("load.spike.recover_within", spike.recover_within.as_deref(), RECOVERY);
        return Shape::Spike { hold, recover_within: within };
    }
    match &load.soak {
        Some(soak) => Shape::Soak { hold: length("load.soak.hold", &soak.hold) },
        None => Shape::Steps,
    }
}

/// Where turns come from: the process, the rates of the tiers, and the most users.
pub(super) fn arrivals(wish: &Wish, problems: &mut Problems<'_>) -> (Arrivals, Vec<f64>, u32) {
    let load = &wish.file.load;
    let Some(open) = &load.open else { return (Arrivals::Closed, Vec::new(), 0) };
    for (path, given) in [
        ("load.users", load.users.is_some()),
        ("load.tiers", load.tiers.is_some()),
        ("load.headcount", load.headcount.is_some()),
        ("load.active_share", load.active_share.is_some()),
        ("journey.think", wish.file.journey.think.is_some()),
    ] {
        if given {
            problems.add(path, "is for users who wait for answers; an open load has rates and max_users");
        }
    }
    if !wish.file.journeys.is_empty() {
        problems.add("journeys", "are for users who wait for answers; what comes to an open load is single turns");
    }
    let max_users = open.max_users.unwrap_or(0);
    if max_users == 0 {
        let message =
            "is missing: the most users at once; at least the turns a second times the seconds that a turn may take";
        problems.add("load.open.max_users", message);
    }
    let word = open.arrivals.as_deref().unwrap_or("poisson");
    let process = match word {
        "constant" => Process::Constant,
        "poisson" => Process::Poisson,
        file if file.ends_with(".txt") => match problems.take("load.open.arrivals", moments(Path::new(file))) {
            Some(process) => process,
            None => Process::Constant,
        },
        other => {
            let known = mock_llm::unknown("arrivals", other, ["poisson", "constant"].into_iter());
            problems.add("load.open.arrivals", format!("{known} (a file of moments ends in .txt)"));
            Process::Poisson
        }
    };
    let rates = match &process {
        Process::Offsets(all) => {
            if !open.rates.is_empty() {
                problems.add("load.open.rates", "the moments of the file say how many there are");
            }
            if !is_steps(wish) {
                problems.add("load.open.arrivals", "the moments of a file have a shape of their own");
            }
            let last = all.last().map_or(0.0, |last| *last as f64 / 1e9);
            vec![all.len() as f64 / last.max(1.0)]
        }
        _ => rates(wish, &open.rates, problems),
    };
    (Arrivals::Open { process }, rates, max_users)
}

fn rates(wish: &Wish, written: &[f64], problems: &mut Problems<'_>) -> Vec<f64> {
    let sections: Vec<f64> = wish.file.tiers.iter().filter_map(|tier| tier.rate).collect();
    let rates = if written.is_empty() { sections } else { written.to_vec() };
    if rates.is_empty() {
        problems.add("load.open.rates", "is missing: how many turns a second?");
    }
    if rates.iter().any(|rate| !(*rate > 0.0 && *rate <= HIGHEST)) {
        problems.add("load.open.rates", "a rate should be above 0 and at most a million turns a second");
    }
    if !rates.is_sorted_by(|before, after| before < after) {
        problems.add("load.open.rates", "the rates should rise");
    }
    rates
}

fn moments(path: &Path) -> Result<Process, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > LARGEST {
        return Err(format!("{} is larger than 16 MiB", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    offsets(&text).map(Process::Offsets).map_err(|error| format!("{}: {error}", path.display()))
}

/// The tiers that a shape makes of the users, or turns a second, that were asked for.
pub(super) fn sizes(
    wish: &Wish,
    shape: &Shape,
    amounts: Vec<f64>,
    usual: Times,
    arrivals: &Arrivals,
    max_users: u32,
    problems: &mut Problems<'_>,
) -> Vec<Size> {
    let closed = arrivals.is_closed();
    let size = |amount: f64, role, times| Size {
        users: if closed { amount as u32 } else { max_users },
        rate: (!closed).then_some(amount),
        role,
        times,
    };
    let Some(largest) = amounts.last().copied() else { return Vec::new() };
    if amounts.len() > 1 && *shape != Shape::Steps {
        problems.add(if closed { "load.tiers" } else { "load.open.rates" }, "should be one where the load has a shape");
    }
    let at_once = Times { arrive: Duration::ZERO, settle: Duration::ZERO, ..usual };
    let held = |length| Times { steady: length, steady_max: length, ..at_once };
    match *shape {
        Shape::Steps => {
            if let Arrivals::Open { process: Process::Offsets(all) } = arrivals {
                // Measured from the first moment to the last.
                let length = Duration::from_nanos(all.last().map_or(0, |last| *last as u64 + 1));
                return vec![size(largest, Role::Step, held(length))];
            }
            amounts.into_iter().map(|amount| size(amount, Role::Step, usual)).collect()
        }
        Shape::Linear { over } => {
            let from = wish.file.load.linear.as_ref().map_or(0.0, |linear| linear.from);
            begins(from, largest, closed, true, "load.linear.from", problems);
            let rise = size(largest, Role::Rise, Times { arrive: over, ..held(over) });
            let before = (from > 0.0).then(|| size(from, Role::Usual, usual));
            before.into_iter().chain([rise]).collect()
        }
        Shape::Spike { hold, recover_within } => {
            let from = wish.file.load.spike.as_ref().map_or(0.0, |spike| spike.from);
            begins(from, largest, closed, false, "load.spike.from", problems);
            let after = Times { settle: recover_within, ..at_once };
            vec![
                size(from, Role::Usual, usual),
                size(largest, Role::Spike, held(hold)),
                size(from, Role::Recovery, after),
            ]
        }
        Shape::Soak { hold } => {
            let times = Times { steady: hold, steady_max: hold, ..usual };
            vec![size(largest, Role::Soak, times)]
        }
    }
}

/// Whether a shape can begin with so many.
fn begins(from: f64, largest: f64, closed: bool, may_be_none: bool, path: &str, problems: &mut Problems<'_>) {
    let whole = !closed || from.fract() == 0.0;
    let enough = from > 0.0 || may_be_none && from == 0.0;
    if !(enough && whole && from < largest) {
        let what = if closed { "a whole number of users" } else { "turns a second" };
        let least = if may_be_none { "from 0" } else { "above 0" };
        problems.add(path, format!("should be {what} {least} and below the {largest} that were asked for"));
    }
}
