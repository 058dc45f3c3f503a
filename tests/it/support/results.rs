//! Results without a run: simulated turns through the tool's own recorder and verdicts. For tests
//! of verdicts and reports, and for the bench that renders.

// By its path, for the bench has this file by its own.
#[path = "results_load.rs"]
mod loads;
#[path = "results_probed.rs"]
mod probed;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use capacity_check::clock::{MILLISECOND, Nanos, SECOND};
use capacity_check::grade::Verdict;
use capacity_check::metric::Metric;
use capacity_check::record::{
    Arrival, Example, Finding, Flaw, Flaws, Joined, Outcome, Parts, Reading, Recorder, Relay, Stages, Step, Steps,
    TierRecord, TierTrace, TimelinePoint, Turn, Window, Wire,
};
use capacity_check::result::{
    Calibration, Capacity, Counts, End, GeneratorResult, Machine, Reason, RunResult, SCHEMA_VERSION, TargetInfo,
    TierGenerator, TierResult, Tool, TraceResult, failed_metrics, metrics, steps_of, tier_trace,
};
use capacity_check::scenario::{Budget, Role, Tier, Times, default_budgets};
use capacity_check::verdict::judge;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// An ordinary tier with budgets.
pub(crate) fn tier_of(users: u32, budgets: Vec<Budget>) -> Tier {
    Tier { users, rate: None, role: Role::Step, times: Times::default(), expect: None, budgets }
}

/// One simulated turn: time to first token, gaps and whether it failed.
pub(crate) struct Simulated {
    pub(crate) at: Nanos,
    pub(crate) ttft_us: u64,
    pub(crate) gaps_us: Vec<u32>,
    pub(crate) failed: Option<(Outcome, &'static str)>,
}

/// A turn that failed for no particular reason.
pub(crate) fn fails(it_does: bool) -> Option<(Outcome, &'static str)> {
    it_does.then_some((Outcome::HttpServer(500), "500 Internal Server Error"))
}

/// A median and a spread of the logarithm.
pub(crate) fn lognormal(rng: &mut impl Rng, median: f64, sigma: f64) -> f64 {
    let z: f64 = StandardNormal.sample(rng);
    median * (sigma * z).exp()
}

/// What a recorder makes of simulated turns of one tier.
pub(crate) fn recorded(steady: Duration, turns: &[Simulated]) -> TierRecord {
    let end = steady.as_nanos() as Nanos;
    let stages = Stages(vec![Window { ramp_from: 0, steady_from: 0, steady_to: Some(end) }]);
    let budgeted = [Metric::Ttft, Metric::Itl].into_iter().collect();
    let mut recorder = Recorder::new(Arc::new(RwLock::new(stages)), budgeted);
    for simulated in turns {
        let mut turn = Turn::new(simulated.at, simulated.at);
        turn.sent = Some(simulated.at + MILLISECOND / 4);
        turn.wire = Some(Wire::Http1);
        if let Some((outcome, detail)) = simulated.failed {
            (turn.outcome, turn.detail) = (outcome, detail.to_owned());
        } else {
            let latest = simulated.at + simulated.ttft_us as Nanos * 1_000;
            turn.first_token = Some(Arrival { latest, earliest: latest });
            turn.tokens = simulated.gaps_us.len() as u64 + 1;
            turn.arrive(latest, 1);
            let mut last = latest;
            for gap in &simulated.gaps_us {
                last += Nanos::from(*gap) * 1_000;
                turn.arrive(last, 1);
            }
            (turn.last_token, turn.ended, turn.outcome) = (Some(last), last, Outcome::Completed);
        }
        let place = recorder.begin(turn.intended);
        recorder.finish(place, &turn);
    }
    recorder.into_record().tiers.pop().unwrap_or_default()
}

/// A tier of simulated turns, not judged yet.
pub(crate) fn tier(users: u32, from_s: f64, steady: Duration, turns: &[Simulated]) -> TierResult {
    let record = recorded(steady, turns);
    TierResult {
        rate: None,
        role: Role::Step,
        users,
        expect: None,
        verdict: Verdict::Inconclusive,
        reasons: Vec::new(),
        complete: true,
        steady_from_s: from_s,
        steady_s: steady.as_secs_f64(),
        counts: Counts::from(&record.totals),
        turns_per_s: turns.len() as f64 / steady.as_secs_f64(),
        streams: turns.iter().map(busy_s).sum::<f64>() / steady.as_secs_f64(),
        metrics: metrics(&record),
        failed_metrics: failed_metrics(&record),
        trace: None,
        findings: Vec::new(),
        law: None,
        drift: BTreeMap::new(),
        budgets: Vec::new(),
        generator: TierGenerator {
            cpu_cores: 0.1,
            cpu_share: 0.1,
            rss_bytes: 24 << 20,
            fds: 20 + u64::from(users),
            first_tokens: record.first_tokens,
            first_tokens_bounded: record.first_tokens_bounded,
            first_tokens_wide: 0,
            arrivals: record.arrivals,
            user_space_stamps: 0,
        },
        examples: record.examples,
    }
}

fn busy_s(turn: &Simulated) -> f64 {
    let micros = turn.ttft_us + turn.gaps_us.iter().map(|gap| u64::from(*gap)).sum::<u64>();
    if turn.failed.is_some() { 0.1 } else { micros as f64 / 1e6 }
}

/// A result of tiers, not judged yet.
pub(crate) fn result(tiers: Vec<TierResult>) -> RunResult {
    let mut totals = tiers.first().map_or_else(|| Counts::from(&Default::default()), |tier| tier.counts.clone());
    for tier in tiers.iter().skip(1) {
        totals.intended += tier.counts.intended;
        totals.started += tier.counts.started;
        totals.dropped += tier.counts.dropped;
        totals.told_to_wait += tier.counts.told_to_wait;
        totals.waited += tier.counts.waited;
        totals.errors += tier.counts.errors;
        totals.tokens += tier.counts.tokens;
        for (outcome, count) in &tier.counts.outcomes {
            *totals.outcomes.entry(outcome.clone()).or_default() += count;
        }
        for (wire, turns) in &tier.counts.wires {
            *totals.wires.entry(wire.clone()).or_default() += turns;
        }
    }
    RunResult {
        asked_rate: None,
        recovery: None,
        journeys: BTreeMap::new(),
        schema_version: SCHEMA_VERSION,
        tool: Tool { name: "capacity-check".to_owned(), version: "0.1.0".to_owned() },
        scenario: serde_json::json!({ "name": "simulated", "seed": 1, "fail_on_warn": false, "load": { "turns": 4 } }),
        target: TargetInfo {
            kind: "librechat".to_owned(),
            url: "https://chat.staging.internal/".to_owned(),
            endpoint: Some("Mock".to_owned()),
            model: "mock-fast".to_owned(),
            mock: true,
            insecure: false,
            reached: None,
        },
        started_at: "2026-11-22T12:00:00.000000Z".to_owned(),
        duration_s: tiers.last().map_or(0.0, |tier| tier.steady_from_s + tier.steady_s + 2.0),
        comparable: true,
        asked: 0,
        verdict: Verdict::Inconclusive,
        reasons: Vec::new(),
        end: End::Finished,
        capacity: Capacity::default(),
        timeline: timeline(&tiers),
        tiers,
        totals,
        generator: GeneratorResult {
            shards: 1,
            cores: 2,
            fd_limit: 20_000,
            ports: 28_232,
            peak_rss_bytes: 40 << 20,
            clock_steps: 0,
            calibration: None,
            machine: Some(Machine {
                system: "Linux 6.18".to_owned(),
                cpu: "A simulated CPU".to_owned(),
                memory_bytes: 8 << 30,
            }),
        },
        trace: None,
        probes: None,
        steps: Default::default(),
    }
}

/// A second by second account that fits the tiers: users rise in the 20 s before each.
fn timeline(tiers: &[TierResult]) -> Vec<TimelinePoint> {
    let end = tiers.last().map_or(0.0, |tier| tier.steady_from_s + tier.steady_s) as u64;
    let at = |t_s: u64| {
        let now = t_s as f64;
        let before = tiers.iter().rfind(|tier| tier.steady_from_s + tier.steady_s <= now);
        let tier = tiers.iter().find(|tier| now < tier.steady_from_s + tier.steady_s).or(tiers.last());
        let (from, to) = (before.map_or(0, |tier| tier.users), tier.map_or(0, |tier| tier.users));
        let risen = tier.map_or(1.0, |tier| 1.0 - ((tier.steady_from_s - now) / 20.0).clamp(0.0, 1.0));
        let rate = tier.map_or(0.0, |tier| tier.turns_per_s);
        let share = tier.map_or(0.0, |tier| tier.counts.errors as f64 / tier.counts.started.max(1) as f64);
        let ttft = tier.and_then(|tier| tier.metrics.get(&Metric::Ttft)).filter(|metric| metric.count > 0);
        let wave = 1.0 + 0.2 * (now / 7.0).sin();
        TimelinePoint {
            t_s,
            span_s: 1,
            users: from as u64 + ((to - from.min(to)) as f64 * risen) as u64,
            in_flight: tier.map_or(0, |tier| (tier.streams * wave) as u64),
            turns: (rate * wave) as u64,
            tokens: (rate * wave * 50.0) as u64,
            errors: (rate * share * wave * 2.0) as u64,
            ttft_p50_us: ttft.map(|metric| (metric.p50_us as f64 * wave) as u64),
            ttft_p95_us: ttft.map(|metric| (metric.p95_us as f64 * wave) as u64),
        }
    };
    (1..=end).map(at).collect()
}

/// Turns that come evenly, each with a first token around `ttft_us` and ten gaps around 20 ms.
pub(crate) fn turns(seed: u64, steady: Duration, rate: f64, ttft_us: f64) -> Vec<Simulated> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = (steady.as_secs_f64() * rate) as u64;
    (0..count)
        .map(|number| Simulated {
            at: (number as f64 / rate * SECOND as f64) as Nanos,
            ttft_us: lognormal(&mut rng, ttft_us, 0.3) as u64,
            gaps_us: (0..10).map(|_| lognormal(&mut rng, 20_000.0, 0.2) as u32).collect(),
            failed: None,
        })
        .collect()
}

/// The tiers of a run, with the default budgets.
pub(crate) fn planned(users: &[u32]) -> Vec<Tier> {
    users.iter().map(|users| tier_of(*users, default_budgets(false))).collect()
}

/// A tier of the same turns, found in the mock's journal: `before` microseconds before the LLM and ten more a token.
fn traced(mut tier: TierResult, seed: u64, turns: u64, before: f64) -> TierResult {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let stages = Stages(vec![Window { ramp_from: 0, steady_from: 0, steady_to: Some(120 * SECOND) }]);
    let metrics_kept = [Metric::TtftOverhead, Metric::TokenDelay].into_iter().collect();
    let mut recorder = Recorder::new(Arc::new(RwLock::new(stages)), metrics_kept);
    let mut trace = TierTrace::default();
    for number in 0..turns {
        let place = recorder.begin((number * 120 * SECOND as u64 / turns) as Nanos);
        let before_llm = lognormal(&mut rng, before, 0.4) as u64;
        let (llm_first, relay) = (lognormal(&mut rng, 200_000.0, 0.2) as u64, before_llm / 8);
        let parts = Parts {
            generator: 300,
            connect: 400,
            before_llm,
            llm_first,
            relay,
            llm: llm_first + 1_000_000,
            finalise: before_llm / 3,
        };
        let joined = Joined {
            marker: format!("cc:fixture:{}:{number}", number % u64::from(tier.users)),
            parts,
            counts: true,
            completed: true,
            stamped: true,
            delays: (0..50).map(|token| relay + token * 10).collect(),
            relay: Relay { turns: 1, tokens: 50, arrivals: 50, held_us: 12_250, ..Relay::default() },
            flaws: Flaws::default(),
        };
        recorder.traced(place, &joined);
        trace.take(&joined);
    }
    let record = recorder.into_record().tiers.pop().unwrap_or_default();
    tier.metrics.extend(metrics(&record));
    tier.trace = Some(tier_trace(&trace));
    tier
}

/// What the tracing of a whole run tells.
fn tracing(same_host: bool) -> TraceResult {
    let reading = |t_s: f64| Reading { t_s, offset_us: 1_204_300.0 + t_s * 12.0, uncertainty_us: 640.0 };
    TraceResult {
        white_space: "exact".to_owned(),
        same_host,
        offset_us: if same_host { 0.0 } else { 1_207_708.0 },
        drift_ppm: if same_host { 0.0 } else { 12.0 },
        uncertainty_us: if same_host { 0.0 } else { 410.0 },
        readings: if same_host { Vec::new() } else { (0..60).map(|number| reading(f64::from(number) * 5.0)).collect() },
        extra_llm_calls: 0,
        retries: 0,
        asides: 0,
        lost_entries: 0,
        missed: 0,
        unreadable: None,
    }
}

fn finding(flaw: Flaw, position: u64, got: &str) -> Finding {
    let expected = "ocean paper 사과 lamp ribbon cloud".to_owned();
    Finding { flaw, turn: "cc:fixture:7:3".to_owned(), position, expected, got: got.to_owned() }
}

/// Some replies are not what they should be, and a proxy holds them back.
fn spoil(result: &mut RunResult) {
    let tier = &mut result.tiers[1];
    tier.counts.flaws = Flaws { leaked: 16, lost: 5, doubled: 2, reordered: 1, altered: 3 };
    tier.counts.late_tokens = 9;
    *tier.counts.outcomes.entry("leaked".to_owned()).or_default() += 2;
    *tier.counts.outcomes.entry("corrupted".to_owned()).or_default() += 7;
    tier.counts.errors += 9;
    tier.findings = vec![
        finding(Flaw::Leaked, 24, "ocean paper 4r7gr0v hurdle exact"),
        finding(Flaw::Lost, 3, "ocean paper lamp ribbon"),
        finding(Flaw::Altered, 8, "ocean paper 사과# lamp"),
    ];
    if let Some(trace) = &mut tier.trace {
        trace.unjoined = 31;
        trace.relay.arrivals = trace.relay.turns;
        trace.relay.together = trace.relay.tokens / 2;
        trace.relay.buffered_turns = trace.relay.turns;
    }
    result.totals.flaws = tier.counts.flaws;
    result.totals.late_tokens = 9;
    result.totals.outcomes.clone_from(&tier.counts.outcomes);
    result.trace = Some(TraceResult {
        extra_llm_calls: 12,
        retries: 4,
        asides: 8,
        lost_entries: 3,
        unreadable: Some("the mock's admin listener does not answer".to_owned()),
        ..tracing(false)
    });
    result.generator.calibration = Some(calibration(20));
}

fn calibration(streams: u32) -> Calibration {
    Calibration {
        at: "2026-11-21T09:30:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        shards: 1,
        streams,
        tokens_per_s: 12_040.0,
        error_p50_us: 410,
        error_p99_us: -1_930,
    }
}

/// The results that golden files are made of, by name.
pub(crate) fn samples() -> Vec<(&'static str, RunResult)> {
    let steady = Duration::from_secs(120);
    let calm = |seed, rate| turns(seed, steady, rate, 260_000.0);
    let first = || tier(50, 20.0, steady, &calm(1, 2.6));
    let second = |turns: &[Simulated]| tier(100, 162.0, steady, turns);
    let slow = turns(3, steady, 5.2, 4_200_000.0);
    let near = turns(4, steady, 5.2, 700_000.0);
    let few = turns(5, steady, 0.3, 260_000.0);
    let asked = planned(&[50, 100]);
    let in_advance = [50, 100].map(|users| tier_of(users, default_budgets(true)));
    let make = |tiers: Vec<TierResult>, planned: &[Tier], change: &dyn Fn(&mut RunResult)| {
        let mut result = result(tiers);
        change(&mut result);
        judge(&mut result, planned).expect("the histograms read back");
        result
    };
    let logins = |result: &mut RunResult| {
        let mut steps = Steps::default();
        for number in 0..20 {
            steps.record(Step::Login, Outcome::Completed, (90 + number) * MILLISECOND, "");
        }
        steps.record(Step::PageLoad, Outcome::HttpServer(502), SECOND, "502 Bad Gateway (GET /api/config)");
        result.steps = steps_of(&steps);
    };
    let mut expected = planned(&[50, 100]);
    (expected[0].expect, expected[1].expect) = (Some(Verdict::Pass), Some(Verdict::Fail));
    expected[1].budgets[0] = Budget::parse("ttft.p95=800ms,2s").expect("a budget");
    let mut all = vec![
        ("pass", make(vec![first(), second(&calm(2, 5.2))], &asked, &logins)),
        ("warn", make(vec![first(), second(&near)], &asked, &|_| {})),
        ("fail", make(vec![first(), second(&slow)], &asked, &|_| {})),
        (
            "traced",
            make(
                vec![traced(first(), 11, 312, 9_000.0), traced(second(&calm(2, 5.2)), 12, 624, 61_000.0)],
                &in_advance,
                &|result| {
                    result.trace = Some(tracing(true));
                    result.generator.calibration = Some(calibration(600));
                },
            ),
        ),
        (
            "leaked",
            make(
                vec![traced(first(), 11, 312, 9_000.0), traced(second(&calm(2, 5.2)), 12, 624, 61_000.0)],
                &in_advance,
                &spoil,
            ),
        ),
        (
            "probed",
            make(
                vec![traced(first(), 11, 312, 9_000.0), traced(second(&calm(2, 5.2)), 12, 624, 61_000.0)],
                &in_advance,
                &|result| {
                    result.trace = Some(tracing(true));
                    result.probes = Some(probed::probes());
                },
            ),
        ),
        ("expected", make(vec![first(), second(&slow)], &expected, &|_| {})),
        (
            "inconclusive",
            make(vec![tier(50, 20.0, steady, &few), second(&calm(6, 5.2))], &asked, &|result| {
                result.tiers[1].generator.cpu_share = 0.96;
            }),
        ),
        (
            "interrupted",
            make(vec![tier(50, 20.0, Duration::from_secs(11), &calm(7, 2.6)[..28])], &asked, &|result| {
                result.end = End::Interrupted;
                result.tiers[0].complete = false;
            }),
        ),
        (
            "outcomes",
            make(vec![first(), second(&every_outcome(calm(8, 8.0)))], &asked, &|result| {
                result.end = End::Guard(Reason::ErrorRate { share: 0.634, turns: 82, limit: 0.5 });
                (result.totals.resumes, result.totals.retries, result.totals.late_tokens) = (3, 7, 41);
                (result.target.mock, result.target.insecure) = (false, true);
                // An older run kept an example that this one would not.
                result.tiers[1].examples.push(Example { outcome: "other".to_owned(), detail: "x".to_owned() });
            }),
        ),
    ];
    all.extend(loads::samples());
    all
}

/// Half of the turns end in every way but success, one after the other.
fn every_outcome(mut turns: Vec<Simulated>) -> Vec<Simulated> {
    let all = [
        (Outcome::RateLimited, "429 Too Many Requests: {\"message\":\"slow down\"}"),
        (Outcome::Banned, "{\"type\":\"ban\"}"),
        (Outcome::ConnectRefused, "Connection refused (os error 111)"),
        (Outcome::ConnectTimeout, "no connection within 10 s"),
        (Outcome::Dns, "the name does not resolve"),
        (Outcome::Tls, "the certificate has expired"),
        (Outcome::HttpClient(404), "404 Not Found"),
        (Outcome::HttpServer(503), "503 Service Unavailable: <html><body>no upstream</body></html>"),
        (Outcome::Unauthorized, "401 Unauthorized"),
        (Outcome::ErrorEvent, "{\"error\":{\"message\":\"model overloaded | try *later*\"}}"),
        (Outcome::Truncated, "closed after 12 tokens"),
        (Outcome::Reset, "Connection reset by peer (os error 104)"),
        (Outcome::Stalled, "nothing for 30 s"),
        (Outcome::TimedOut, "longer than 120 s"),
        (Outcome::Protocol, "an event that is no JSON"),
        (Outcome::Aborted, "cancelled after 5 tokens"),
        (Outcome::Interrupted, "the run was stopped"),
    ];
    for (turn, failed) in turns.iter_mut().step_by(2).zip(all.into_iter().cycle()) {
        turn.failed = Some(failed);
    }
    turns
}

/// A run of 500 users over 30 minutes, whose blocks are joined to no more than 64.
#[allow(dead_code, reason = "the bench's")]
pub(crate) fn half_an_hour() -> RunResult {
    let steady = Duration::from_secs(30 * 60);
    let mut result = result(vec![tier(500, 20.0, steady, &turns(1, steady, 25.0, 300_000.0))]);
    judge(&mut result, &planned(&[500])).expect("the histograms read back");
    result
}
