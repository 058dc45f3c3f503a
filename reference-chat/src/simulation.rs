//! The cost model in virtual time, for its tests: users in a closed loop, each with one turn at a
//! time, whose tokens wait in the same queues as those of the running deployment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};

use crate::queue::Queue;
use crate::settings::Costs;

/// The model behind it: 200 ms, 50 tokens at 20 ms.
const TTFT: Duration = Duration::from_millis(200);
const GAP: Duration = Duration::from_millis(20);
const TOKENS: u32 = 50;
/// What is looked at: after the first of it, when everything is in equilibrium.
const WARM_UP: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(120);

/// What a user waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Begin,
    Passed(u32),
    Asked,
    Token(u32),
    Relayed(u32),
}

/// Percentiles of a simulation.
struct Seen {
    ttft: Vec<Duration>,
    turn: Vec<Duration>,
}

struct User {
    worker: usize,
    began: Duration,
    asked: Duration,
}

/// `users` people with this think time before `workers` processes.
fn simulate(users: usize, workers: usize, think: Option<LogNormal<f64>>) -> Seen {
    let costs = Costs::default();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut loops = vec![Queue::default(); workers];
    let mut events = BinaryHeap::new();
    let mut people: Vec<User> = Vec::new();
    for number in 0..users {
        people.push(User { worker: 0, began: Duration::ZERO, asked: Duration::ZERO });
        let spread = if think.is_some() { 20_000 } else { 2_000 };
        events.push(Reverse((Duration::from_millis(random.random_range(0..spread)), number, Step::Begin)));
    }
    let mut seen = Seen { ttft: Vec::new(), turn: Vec::new() };
    let mut turns = 0;
    while let Some(Reverse((now, number, step))) = events.pop() {
        if now > END {
            break;
        }
        let user = &mut people[number];
        let mut take = |cost| loops[user.worker].take(now, cost);
        let next = match step {
            Step::Begin => {
                (user.began, user.worker) = (now, turns % workers);
                turns += 1;
                (loops[user.worker].take(now, costs.turn / costs.passes), Step::Passed(1))
            }
            Step::Passed(passes) if passes < costs.passes => {
                (take(costs.turn / costs.passes), Step::Passed(passes + 1))
            }
            Step::Passed(_) => (now + costs.fixed, Step::Asked),
            Step::Asked => {
                user.asked = now;
                (now + TTFT, Step::Token(0))
            }
            Step::Token(token) => (take(costs.token), Step::Relayed(token)),
            Step::Relayed(token) => {
                if token == 0 && now > WARM_UP {
                    seen.ttft.push(now - user.began);
                }
                if token + 1 < TOKENS {
                    (now.max(user.asked + TTFT + GAP * (token + 1)), Step::Token(token + 1))
                } else {
                    if now > WARM_UP {
                        seen.turn.push(now - user.began);
                    }
                    let pause = think.map_or(0.0, |think| think.sample(&mut random));
                    (now + Duration::from_secs_f64(pause), Step::Begin)
                }
            }
        };
        events.push(Reverse((next.0, number, next.1)));
    }
    seen.ttft.sort_unstable();
    seen.turn.sort_unstable();
    seen
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// LibreChat v0.8.7 on one process: streams at once, TTFT p50, turn p50, in milliseconds.
const MEASURED: [(usize, f64, f64); 4] =
    [(1, 258.0, 1_272.0), (10, 311.0, 1_346.0), (50, 1_139.0, 4_544.0), (100, 1_619.0, 6_959.0)];

#[test]
fn the_costs_are_those_of_the_measured_process() {
    for (streams, ttft, turn) in MEASURED {
        let seen = simulate(streams, 1, None);
        for (name, found, wanted) in
            [("TTFT", percentile(&seen.ttft, 50), ttft), ("turn", percentile(&seen.turn, 50), turn)]
        {
            assert!((found / wanted - 1.0).abs() < 0.20, "{streams} streams: {name} {found:.0} ms, measured {wanted}");
        }
    }
}

#[test]
fn one_process_carries_a_hundred_and_four_carry_five_hundred() {
    // The default think time: a median of 15 s, 45 s at the 95th percentile.
    let think = LogNormal::new(15_f64.ln(), 3_f64.ln() / 1.644_854).ok();
    for (users, workers, carried) in [(50, 1, true), (100, 1, true), (500, 1, false), (500, 4, true)] {
        let seen = simulate(users, workers, think);
        let ttft = percentile(&seen.ttft, 95);
        assert_eq!(ttft < 1_000.0, carried, "{users} users on {workers}: TTFT p95 {ttft:.0} ms");
        // Far from the bound on either side, so that the story does not hang on luck.
        assert!(!(600.0..3_000.0).contains(&ttft), "{users} users on {workers}: TTFT p95 {ttft:.0} ms");
    }
}
