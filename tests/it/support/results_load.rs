//! Results of loads in other forms than steps of users: an open load, a crowd, a soak.

use std::collections::BTreeMap;
use std::time::Duration;

use capacity_check::analysis::loaded;
use capacity_check::clock::{MILLISECOND, SECOND};
use capacity_check::record::{Outcome, Step, Steps};
use capacity_check::result::{Reached, RunResult, TierResult, steps_of};
use capacity_check::scenario::{Role, Tier, default_budgets};
use capacity_check::verdict::judge;
use serde_json::{Value, json};

use super::{Simulated, result, tier, tier_of, turns};

/// The most users of the open load.
const MOST: u32 = 40;
/// How long the deployment may take to be as usual again after a crowd, in seconds.
const WITHIN_S: f64 = 30.0;

/// The results by name.
pub(super) fn samples() -> [(&'static str, RunResult); 3] {
    [("open", open()), ("spike", spike()), ("soak", soak())]
}

fn scenario(load: &Value) -> Value {
    json!({ "name": "simulated", "seed": 1, "fail_on_warn": false, "load": load })
}

/// Judges a result as a run with the default budgets in every tier, and says whether its load was steady.
fn judged(mut result: RunResult, within_s: Option<f64>) -> RunResult {
    let plan =
        |tier: &TierResult| Tier { rate: tier.rate, role: tier.role, ..tier_of(tier.users, default_budgets(false)) };
    let planned: Vec<Tier> = result.tiers.iter().map(plan).collect();
    judge(&mut result, &planned).expect("the histograms read back");
    loaded(&mut result, within_s).expect("the histograms read back");
    result
}

/// Three rates by way of a proxy, of which the last finds too few users, and was not steady.
fn open() -> RunResult {
    let steady = Duration::from_secs(120);
    let held = |seed, from_s, rate, ttft_us| TierResult {
        rate: Some(rate),
        ..tier(MOST, from_s, steady, &turns(seed, steady, rate, ttft_us))
    };
    let mut tiers =
        vec![held(21, 20.0, 2.5, 260_000.0), held(22, 162.0, 5.0, 290_000.0), held(23, 304.0, 10.0, 700_000.0)];
    tiers[2].counts.intended += 84;
    tiers[2].counts.dropped = 84;
    tiers[2].streams *= 1.4;
    let mut result = result(tiers);
    result.scenario = scenario(&json!({ "arrivals": { "kind": "open", "process": "poisson" } }));
    result.target.reached = Some(Reached {
        sni: Some("chat.example".to_owned()),
        client_cert: true,
        resolved: vec!["chat.staging.internal:443:10.0.0.7".to_owned()],
        proxy: Some("proxy.staging.internal:3128".to_owned()),
        source_addresses: vec!["10.0.1.4".to_owned(), "10.0.1.5".to_owned()],
    });
    judged(result, None)
}

/// A crowd of four times the usual users, of which some are told to come again later.
fn spike() -> RunResult {
    let (usual, hold) = (Duration::from_secs(120), Duration::from_secs(60));
    let mut crowd = turns(32, hold, 10.4, 4_200_000.0);
    for turn in crowd.iter_mut().step_by(40) {
        turn.failed = Some((Outcome::RateLimited, "429 Too Many Requests"));
    }
    let of =
        |role, users, from_s, steady, turns: &[Simulated]| TierResult { role, ..tier(users, from_s, steady, turns) };
    let mut tiers = vec![
        of(Role::Usual, 50, 20.0, usual, &turns(31, usual, 2.6, 260_000.0)),
        of(Role::Spike, 200, 142.0, hold, &crowd),
        of(Role::Recovery, 50, 204.0 + WITHIN_S, usual, &turns(33, usual, 2.6, 250_000.0)),
    ];
    (tiers[1].counts.told_to_wait, tiers[1].counts.waited) = (16, 14);
    let mut result = result(tiers);
    let shape = json!({ "kind": "spike", "hold_s": 60.0, "recover_within_s": WITHIN_S });
    result.scenario = scenario(&json!({ "turns": 4, "shape": shape }));
    // The crowd is gone at once, and what it has left behind is worked off in some seconds.
    for point in result.timeline.iter_mut().filter(|point| point.t_s > 204) {
        point.users = 50;
        let (p50, p95) = if point.t_s <= 215 { (900_000, 2_100_000) } else { (240_000, 420_000) };
        (point.ttft_p50_us, point.ttft_p95_us) = (Some(p50), Some(p95));
    }
    result.journeys = BTreeMap::from([("asks on and on".to_owned(), 151), ("reads | asks | leaves".to_owned(), 49)]);
    result.steps = steps_of(&journey_steps());
    judged(result, Some(WITHIN_S))
}

fn journey_steps() -> Steps {
    let mut steps = Steps::default();
    for number in 0..49 {
        steps.record(Step::History, Outcome::Completed, (30 + number) * MILLISECOND, "");
        steps.record(Step::Leave, Outcome::Completed, (9 + number % 7) * MILLISECOND, "");
    }
    steps.record(Step::Cancel, Outcome::Completed, 41 * MILLISECOND, "");
    steps.record(Step::Resume, Outcome::HttpServer(502), SECOND, "502 Bad Gateway");
    steps
}

/// The same users for ten minutes, in whose course the first token comes later and later.
fn soak() -> RunResult {
    let hold = Duration::from_secs(600);
    let mut slower = turns(41, hold, 2.6, 260_000.0);
    for turn in &mut slower {
        let share = turn.at as f64 / (600 * SECOND) as f64;
        turn.ttft_us = (turn.ttft_us as f64 * (1.0 + 0.4 * share)) as u64;
    }
    let mut result = result(vec![TierResult { role: Role::Soak, ..tier(50, 20.0, hold, &slower) }]);
    result.scenario = scenario(&json!({ "turns": 4, "shape": { "kind": "soak", "hold_s": 600.0 } }));
    judged(result, None)
}
