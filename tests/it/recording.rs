//! Recorders: shards merge to what one recorder would have, and every turn has its place.

use std::sync::{Arc, RwLock};

use capacity_check::clock::{MILLISECOND, Nanos, SECOND};
use capacity_check::metric::Metric;
use capacity_check::record::{Arrival, Batch, Outcome, Record, Recorder, Stages, Turn, Window};
use capacity_check::result::{BlockResult, failed_metrics, metrics};
use proptest::prelude::*;

fn recorder() -> Recorder {
    let stages = Stages(vec![
        Window { ramp_from: 0, steady_from: 10 * SECOND, steady_to: Some(40 * SECOND) },
        Window { ramp_from: 45 * SECOND, steady_from: 50 * SECOND, steady_to: Some(80 * SECOND) },
    ]);
    Recorder::new(Arc::new(RwLock::new(stages)), [Metric::Ttft, Metric::Itl].into_iter().collect())
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Completed),
        1 => Just(Outcome::Reset),
        1 => Just(Outcome::HttpServer(500)),
        1 => Just(Outcome::ConnectRefused),
        1 => Just(Outcome::Interrupted),
    ]
}

prop_compose! {
    fn turn()(
        intended in 0..90 * SECOND,
        lag in 0..50 * MILLISECOND,
        ttft in proptest::option::weighted(0.8, 1..5 * SECOND),
        width in 0..30 * MILLISECOND,
        gaps in proptest::collection::vec(1_u32..2_000_000, 0..20),
        outcome in outcome(),
    ) -> Turn {
        let started = intended + lag;
        let mut turn = Turn::new(intended, started);
        turn.sent = Some(started);
        turn.connect = (lag % 2 == 0).then_some(lag + 1);
        turn.first_token = ttft.map(|ttft| Arrival { latest: started + ttft, earliest: started + ttft - width.min(ttft) });
        if let Some(first) = turn.first_token {
            let sum: Nanos = gaps.iter().map(|gap| Nanos::from(*gap) * 1_000).sum();
            turn.last_token = Some(first.latest + sum);
            turn.tokens = gaps.len() as u64 + 1;
            turn.arrivals = batches(&gaps);
        }
        turn.ended = turn.last_token.unwrap_or(started) + MILLISECOND;
        turn.outcome = outcome;
        turn
    }
}

/// Arrivals of one token each, so far apart.
fn batches(gaps: &[u32]) -> Vec<Batch> {
    let mut after_us = 0;
    let rest = gaps.iter().map(|gap| {
        after_us += gap;
        Batch { after_us, tokens: 1 }
    });
    std::iter::once(Batch { after_us: 0, tokens: 1 }).chain(rest).collect()
}

fn record(turns: &[&Turn]) -> Record {
    let mut recorder = recorder();
    for turn in turns {
        let place = recorder.begin(turn.intended);
        recorder.finish(place, turn);
    }
    recorder.into_record()
}

/// Everything that a result takes of a record. Examples are the first that came, and differ.
fn seen(record: &Record) -> serde_json::Value {
    let tiers: Vec<_> = record
        .tiers
        .iter()
        .map(|tier| {
            let counts = capacity_check::result::Counts::from(&tier.totals);
            let firsts = (tier.first_tokens, tier.first_tokens_bounded, tier.first_tokens_wide);
            let mut measured = metrics(tier);
            // A block's histogram grows as needed, and its text tells how far it has grown.
            let blocks: Vec<_> =
                measured.values_mut().flat_map(|metric| std::mem::take(&mut metric.blocks)).map(counted).collect();
            serde_json::json!([counts, measured, blocks, failed_metrics(tier), firsts])
        })
        .collect();
    serde_json::json!([tiers, capacity_check::result::Counts::from(&record.totals())])
}

/// A block by its values and how often each was recorded.
fn counted(block: BlockResult) -> (u64, u64, Vec<(u64, u64)>) {
    let histogram = block.decode().expect("it reads back");
    let values = histogram.iter().flat_map(|histogram| histogram.iter_recorded());
    (block.count, block.above, values.map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn merged_shards_equal_one_recorder(turns in proptest::collection::vec((turn(), 0_usize..4), 1..120)) {
        let all: Vec<&Turn> = turns.iter().map(|(turn, _)| turn).collect();
        let one = record(&all);
        let mut merged = Record::default();
        for shard in 0..4 {
            let part: Vec<&Turn> = turns.iter().filter(|(_, of)| *of == shard).map(|(turn, _)| turn).collect();
            merged.merge(record(&part));
        }
        prop_assert_eq!(seen(&merged), seen(&one));
        prop_assert!(one.totals().is_balanced());
        prop_assert_eq!(one.totals().started, turns.len() as u64);
        // No turn without a first token, whatever the reason but our own stop, is forgotten.
        for (tier, record) in one.tiers.iter().enumerate() {
            let of_tier = all.iter().filter(|turn| {
                let from = if tier == 0 { 10 } else { 50 } * SECOND;
                (from..from + 30 * SECOND).contains(&turn.intended)
            });
            let without = of_tier.filter(|turn| turn.first_token.is_none() && turn.outcome != Outcome::Interrupted).count();
            prop_assert_eq!(record.above(Metric::Ttft), without as u64);
        }
    }
}
