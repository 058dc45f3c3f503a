//! Users, tiers, times and budgets.

use std::path::Path;
use std::time::Duration;

use mock_llm::distribution::{Distribution, Unit, Written};
use mock_llm::unknown;

use super::{LONGEST, Problems, journey, shape};
use crate::cli::overlay::Wish;
use crate::grade::Verdict;
use crate::scenario::file::{BudgetsSection, LoadSection, Text, TierSection};
use crate::scenario::{Budget, BudgetMetric, Load, Prompts, Role, Tier, Times, default_budgets, ladder, parse_share};

/// `traced` tells whether turns will be found in the journal of our mock.
pub(super) fn load(wish: &Wish, traced: bool, problems: &mut Problems<'_>) -> Load {
    let (section, journey) = (&wish.file.load, &wish.file.journey);
    let (ramp, steady, steady_max, think) = if wish.file.quick.unwrap_or(false) {
        (Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(8), "lognormal 2s 6s")
    } else {
        (Duration::from_secs(20), Duration::from_mins(1), Duration::from_mins(3), "lognormal 15s 45s")
    };
    let ramp = problems.duration("load.ramp", section.ramp.as_deref(), ramp);
    let steady = problems.duration("load.steady", section.steady.as_deref(), steady);
    // A steady phase longer than the default maximum was asked for in so many words.
    let steady_max = problems.duration("load.steady_max", section.steady_max.as_deref(), steady_max.max(steady));
    if steady.is_zero() {
        problems.add("load.steady", "should be above 0");
    }
    if steady_max < steady {
        problems.add("load.steady_max", "is below --steady");
    }
    let think = journey.think.as_deref().unwrap_or(think);
    let think = problems.take("journey.think", Distribution::parse(think, Unit::Duration));
    if think.as_ref().is_some_and(|think| think.mean() > LONGEST.as_micros() as f64) {
        problems.add("journey.think", "is above 30 days");
    }
    let cancel_share = share(&journey.cancel_share, "journey.cancel_share", 0.0, problems);
    let turns = journey.turns.unwrap_or(4);
    if turns == 0 {
        problems.add("journey.turns", "should be 1 or more");
    }
    let usual = Times { arrive: ramp, settle: ramp, steady, steady_max };
    let shape = shape::shape(wish, problems);
    let (arrivals, rates, max_users) = shape::arrivals(wish, problems);
    let amounts = if arrivals.is_closed() { closed(wish, problems) } else { rates };
    let sizes = shape::sizes(wish, &shape, amounts, usual, &arrivals, max_users, problems);
    Load {
        tiers: tiers(wish, traced, sizes, problems),
        shape,
        arrivals,
        ramp,
        steady,
        steady_max,
        think: Written::duration(think.unwrap_or(Distribution::Constant(0.0))),
        turns,
        prompts: prompts(journey.prompts.as_deref(), problems),
        cancel_share,
        journeys: journey::journeys(wish, problems),
        obey_retry_after: journey.obey_retry_after.unwrap_or(true),
    }
}

pub(super) fn share(text: &Option<Text>, path: &str, default: f64, problems: &mut Problems<'_>) -> f64 {
    text.as_ref().and_then(|text| problems.take(path, parse_share(&text.0))).unwrap_or(default)
}

/// A bundled set, a file that ends in `.jsonl` or `.csv`, or lengths alone.
fn prompts(name: Option<&str>, problems: &mut Problems<'_>) -> Prompts {
    let name = name.unwrap_or("mixed");
    let read = match (Prompts::bundled(name), name.strip_prefix("generated:")) {
        (Some(prompts), _) => Ok(prompts),
        (None, Some(lengths)) => Prompts::generated(lengths),
        (None, None) if Prompts::is_file(name) => Prompts::read(Path::new(name)).map_err(|error| error.to_string()),
        (None, None) => {
            let known = unknown("set of prompts", name, Prompts::BUNDLED.into_iter());
            Err(format!("{known} (a file of yours ends in .jsonl or .csv; or `generated: lognormal 40 400`, in words)"))
        }
    };
    let fallback = || Prompts::bundled("mixed").expect("it is bundled");
    problems.take("journey.prompts", read).unwrap_or_else(fallback)
}

/// A tier before its budgets: how large it is, what for, and for how long.
pub(super) struct Size {
    pub(super) users: u32,
    pub(super) rate: Option<f64>,
    pub(super) role: Role,
    pub(super) times: Times,
}

impl Size {
    /// Whether a section of the file describes this tier.
    fn is_of(&self, section: &TierSection) -> bool {
        match self.rate {
            Some(rate) => section.rate == Some(rate),
            None => section.users == Some(self.users),
        }
    }
}

fn tiers(wish: &Wish, traced: bool, sizes: Vec<Size>, problems: &mut Problems<'_>) -> Vec<Tier> {
    let sections = &wish.file.tiers;
    for (index, section) in sections.iter().enumerate() {
        match (section.users, section.rate) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => problems.add(&format!("tiers[{index}]"), "say users, or rate with [load.open]"),
        }
        let is_same = |before: &TierSection| before.users == section.users && before.rate == section.rate;
        if sections[..index].iter().any(is_same) {
            problems.add(&format!("tiers[{index}].users"), "another tier has as many users");
        }
    }
    let common = budgets(wish, traced, problems);
    // Where flags say how many, tiers of the file may be left out; where the file says it, none is.
    let typed = wish.is_typed(&["load.users", "load.tiers", "load.headcount", "load.open.rates"]);
    for (index, section) in sections.iter().enumerate() {
        if !typed && !sizes.iter().any(|size| size.is_of(section)) {
            problems.add(&format!("tiers[{index}].users"), "is none of the tiers that [load] asks for");
        }
    }
    // Each problem of a budget once, not once a tier.
    let own: Vec<Vec<Budget>> = (0..sections.len())
        .map(|index| written(&sections[index].budgets, &format!("tiers[{index}].budgets"), problems))
        .collect();
    let typed: Vec<Budget> = wish.budgets.iter().filter_map(|text| Budget::parse(text).ok()).collect();
    let tier = |size: Size| {
        let index = sections.iter().position(|section| size.is_of(section));
        let mut budgets = common.clone();
        override_with(&mut budgets, index.map_or(&[], |index| &own[index]));
        override_with(&mut budgets, &typed);
        budgets.sort_by_key(|budget| budget.metric);
        let expect = index.and_then(|index| sections[index].expect).map(Verdict::from);
        let Size { users, rate, role, times } = size;
        Tier { users, rate, role, times, expect, budgets }
    };
    sizes.into_iter().map(tier).collect()
}

/// How many users the tiers of a closed load have.
fn closed(wish: &Wish, problems: &mut Problems<'_>) -> Vec<f64> {
    users_of(wish, problems).into_iter().map(f64::from).collect()
}

fn users_of(wish: &Wish, problems: &mut Problems<'_>) -> Vec<u32> {
    let LoadSection { users, tiers, headcount, active_share, .. } = &wish.file.load;
    let given = [users.is_some(), tiers.is_some(), headcount.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        problems.add("load.users", "say one of users, tiers and headcount");
    }
    if active_share.is_some() && headcount.is_none() {
        problems.add("load.active_share", "is for --headcount (load.headcount)");
    }
    let sections: Vec<u32> = wish.file.tiers.iter().filter_map(|tier| tier.users).collect();
    let listed = match tiers {
        Some(tiers) => Some(("load.tiers", tiers.clone())),
        None if given == [false; 3] && !sections.is_empty() => Some(("tiers", sections)),
        None => None,
    };
    if let Some((path, tiers)) = listed {
        if tiers.is_empty() || tiers.contains(&0) {
            problems.add(path, "a tier should have 1 user or more");
        }
        if !tiers.is_sorted_by(|before, after| before < after) {
            problems.add(path, "the tiers should rise, since users carry over from one to the next");
        }
        return tiers;
    }
    let (path, users) = match (users, headcount) {
        (Some(users), _) => ("load.users", *users),
        (None, Some(headcount)) => {
            let share = share(active_share, "load.active_share", 1.0, problems);
            ("load.headcount", (f64::from(*headcount) * share).round() as u32)
        }
        (None, None) => {
            let missing =
                "is missing: how many users? (or --tiers, or --headcount with --active-share, or a --scenario)";
            problems.add("load.users", missing);
            return Vec::new();
        }
    };
    if users == 0 {
        problems.add(path, "0 users make no load; ask for 1 or more");
    }
    // Only steps have smaller ones before them.
    if shape::is_steps(wish) { ladder(users) } else { vec![users] }
}

/// The budgets for every tier: those that were written, or the default ones; the last of a metric
/// and statistic counts. Those of the error rate and of spoilt replies always stand: latencies of turns
/// that completed say nothing about a target that breaks most of them off.
fn budgets(wish: &Wish, traced: bool, problems: &mut Problems<'_>) -> Vec<Budget> {
    let mut budgets = default_budgets(traced);
    let written = written(&wish.file.budgets, "budgets", problems);
    let typed = wish.budgets.iter().filter_map(|text| problems.take("--budget", Budget::parse(text)));
    let given: Vec<Budget> = written.into_iter().chain(typed).collect();
    if !given.is_empty() || !wish.budgets.is_empty() {
        budgets.retain(|budget| !matches!(budget.metric, BudgetMetric::Latency(..)));
    }
    override_with(&mut budgets, &given);
    budgets
}

fn override_with(budgets: &mut Vec<Budget>, others: &[Budget]) {
    for other in others {
        budgets.retain(|kept| kept.metric != other.metric);
        budgets.push(*other);
    }
}

fn written(section: &BudgetsSection, path: &str, problems: &mut Problems<'_>) -> Vec<Budget> {
    let read = |(key, text): (String, String)| problems.take(&format!("{path}.{key}"), Budget::parse(&text));
    section.written().into_iter().filter_map(read).collect()
}
