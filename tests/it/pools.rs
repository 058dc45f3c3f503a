//! Active probes: pools tried on real stores, and nothing of it left behind.

use capacity_check::probe::{Demand, mongo_pools, redis_pools};
use capacity_check::record::PoolStudy;
use capacity_check::secret::Secret;

use crate::support::stores::{Mongod, Redis};
use crate::support::{quiet, runtime};

/// The ladder of MongoDB's pools.
const LADDER: [u32; 5] = [10, 50, 100, 200, 500];

fn tried(server: &Mongod, demand: Demand) -> PoolStudy {
    runtime().block_on(mongo_pools(&Secret::new(&server.uri), demand, "test", std::future::pending()))
}

/// Whether a size is within one step of the smallest that holds so many at once.
fn within_a_step(size: Option<u32>, at_once: f64) -> bool {
    let implied = LADDER.iter().position(|size| f64::from(*size) >= at_once).expect("on the ladder");
    let found = LADDER.iter().position(|step| Some(*step) == size);
    found.is_some_and(|found| found.abs_diff(implied) <= 1)
}

#[test]
fn the_smallest_pool_is_the_one_that_the_service_time_implies() {
    let _machine = quiet();
    let server = Mongod::start();
    let before = server.database_names();
    // A server whose look-ups take 40 ms each: 400 a second are 16 at once, and 64 at four times the load.
    server.fail(&["find"], 40, Some("capacity-check"));
    let study = tried(&server, Demand { operations_per_s: 400.0, concurrency: 16.0 });
    server.heal();
    assert_eq!((&study.refused, &study.left_behind), (&None, &None), "{study:?}");
    for smallest in &study.smallest {
        assert!(within_a_step(smallest.size, 16.0 * smallest.multiple), "{study:?}");
    }
    assert_eq!(study.smallest.len(), 3);
    // A pool of 10 cannot carry 16 at once, and says so by its wait.
    let small = study.trials.iter().find(|trial| trial.size == 10 && trial.multiple == 1.0).unwrap();
    assert!(small.wait_p99_us > 100_000 && (35_000..200_000).contains(&small.latency_p50_us), "{small:?}");
    // The server itself is quick: then an operation is held as long as the run's took.
    let study = tried(&server, Demand { operations_per_s: 200.0, concurrency: 4.0 });
    assert!(study.smallest.iter().all(|found| within_a_step(found.size, 4.0 * found.multiple)), "{study:?}");
    assert!((15_000..60_000).contains(&study.trials[0].latency_p50_us), "{study:?}");
    assert_eq!(server.database_names(), before, "nothing is left behind");
}

#[test]
fn what_would_take_too_much_is_refused_and_an_interrupt_leaves_nothing() {
    let _machine = quiet();
    let server = Mongod::start_with(&["--maxConns", "30"]);
    let before = server.database_names();
    let study = tried(&server, Demand { operations_per_s: 100.0, concurrency: 2.0 });
    assert!(study.trials.iter().all(|trial| trial.size == 10), "{study:?}");
    let study = tried(&server, Demand { operations_per_s: 100.0, concurrency: 60.0 });
    let refused = study.refused.as_ref().expect("a refusal");
    assert!(
        refused.contains("more than half of the") && study.smallest.iter().all(|found| found.size.is_none()),
        "{study:?}"
    );
    let study = tried(&server, Demand { operations_per_s: 0.0, concurrency: 0.0 });
    assert!(study.refused.is_some_and(|why| why.contains("hardly anything")));
    let study = runtime().block_on(async {
        let interrupted = tokio::time::sleep(std::time::Duration::from_millis(1_500));
        let demand = Demand { operations_per_s: 100.0, concurrency: 60.0 };
        mongo_pools(&Secret::new(&server.uri), demand, "cut", interrupted).await
    });
    assert_eq!(study.refused.as_deref(), Some("interrupted"));
    assert_eq!(server.database_names(), before, "nothing is left behind");
}

#[test]
fn connections_to_redis_are_tried_and_scratch_keys_removed() {
    let _machine = quiet();
    let server = Redis::start(&["--maxclients", "200"]);
    server.command(&["SET", "mine", "1"]);
    let url = Secret::new(&server.url);
    let demand = Demand { operations_per_s: 500.0, concurrency: 0.1 };
    let study = runtime().block_on(redis_pools(&url, demand, "test", std::future::pending()));
    assert_eq!((&study.refused, &study.left_behind), (&None, &None), "{study:?}");
    assert!(study.headroom.is_some_and(|free| (150.0..200.0).contains(&free)), "{study:?}");
    assert_eq!(study.smallest.len(), 3);
    assert!(study.trials.iter().any(|trial| trial.pipeline == 5) && study.trials.iter().all(|trial| trial.errors == 0));
    // So few commands that a single one that never ran would be the 99th percentile.
    let few = Demand { operations_per_s: 60.0, concurrency: 0.01 };
    let study = runtime().block_on(redis_pools(&url, few, "few", std::future::pending()));
    assert!(study.smallest.iter().all(|found| found.size.is_some_and(|size| size <= 3)), "{study:?}");
    assert!(study.refused.as_ref().is_some_and(|why| why.contains("too few to tell")), "fives of them: {study:?}");
    let study = runtime().block_on(async {
        let interrupted = tokio::time::sleep(std::time::Duration::from_millis(800));
        redis_pools(&url, demand, "cut", interrupted).await
    });
    assert_eq!(study.refused.as_deref(), Some("interrupted"));
    assert_eq!(server.keys(), ["mine"], "nothing is left behind");
}
