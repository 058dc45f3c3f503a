//! What was seen beside the users: a section for each kind of thing that was watched.

use super::quantity;
use super::section::{FOREIGN, NAME};
use super::view::{Block, Group, Section};
use super::{database, sizing, usage, words};
use crate::lang::Texts;
use crate::result::{Event, EventKind, Gap, Missing, Probe, Probes, RunResult, Watched};
use crate::secret::escaped;

/// The most gaps, events or reasons of one thing that are listed.
const LISTED: usize = 20;
/// The most things that a terminal has a line for, and the most lines of what was not seen.
const THINGS: usize = 12;
const UNSEEN: usize = 5;
/// The most facts of one thing.
const FACTS: usize = 16;

/// The sections; one without blocks is none.
pub(super) fn sections(result: &RunResult, texts: &Texts) -> Vec<Section> {
    let Some(probes) = &result.probes else { return Vec::new() };
    let section = |id, title, things: Vec<Block>, more: Vec<Block>| {
        let blocks = things.into_iter().chain(more).collect();
        Section { id, title, blocks }
    };
    let of = |probe| things(probes, probe, texts);
    vec![
        section("sizing", texts.get("section-sizing"), sizing::blocks(probes, texts), Vec::new()),
        section("mongo", texts.get("section-mongo"), of(Probe::Mongo), database::mongo(probes, texts)),
        section("redis", texts.get("section-redis"), of(Probe::Redis), database::redis(probes, texts)),
        section("process", texts.get("section-process"), of(Probe::Process), sizing::processes(probes, texts)),
        section("health", texts.get("section-health"), of(Probe::Health), Vec::new()),
        section("prometheus", texts.get("section-prometheus"), of(Probe::Prometheus), Vec::new()),
    ]
}

/// The kind under which a probe is shown: a control group is the processes in it.
pub(super) fn shown_with(probe: Probe) -> Probe {
    if probe == Probe::Cgroup { Probe::Process } else { probe }
}

fn things(probes: &Probes, probe: Probe, texts: &Texts) -> Vec<Block> {
    let watched: Vec<&Watched> = probes.watched.iter().filter(|watched| shown_with(watched.probe) == probe).collect();
    let mut blocks = Vec::new();
    if watched.iter().flat_map(|watched| &watched.series).any(|series| !series.points.is_empty()) {
        blocks.push(Block::Charts(Group::Watch(probe)));
    }
    for watched in watched {
        blocks.extend(thing(watched, texts));
    }
    blocks
}

fn thing(watched: &Watched, texts: &Texts) -> Vec<Block> {
    let mut blocks = vec![Block::Text(headed(watched, texts))];
    blocks.extend(usage::tables(watched, texts));
    let mut lines = listed(gaps(watched, texts), LISTED, texts);
    lines.extend(events(watched, texts));
    lines.extend(listed(missing(watched, texts), LISTED, texts));
    if watched.left_out > 0 {
        lines.push(texts.with("watch-left-out", &[("count", &words::number(watched.left_out))]));
    }
    if !lines.is_empty() {
        blocks.push(Block::List(lines));
    }
    blocks
}

/// Its name with what does not change.
fn headed(watched: &Watched, texts: &Texts) -> String {
    let name = usage::name(watched, texts);
    let fact = |(fact, value): &(String, String)| format!("{} {}", escaped(fact, NAME), escaped(value, NAME));
    let facts: Vec<String> = watched.facts.iter().take(FACTS).map(fact).collect();
    if facts.is_empty() {
        return texts.with("watch-name", &[("name", &name)]);
    }
    texts.with("watch-facts", &[("name", &name), ("facts", &facts.join(", "))])
}

/// The first of some lines, and how many more there are.
fn listed(mut lines: Vec<String>, most: usize, texts: &Texts) -> Vec<String> {
    let more = lines.len().saturating_sub(most);
    if more > 0 {
        lines.truncate(most);
        lines.push(texts.with("watch-more", &[("count", &words::number(more as u64))]));
    }
    lines
}

fn gaps(watched: &Watched, texts: &Texts) -> Vec<String> {
    let line = |gap: &Gap| {
        let (from, why) = (words::clock(gap.from_s), escaped(&gap.why, FOREIGN));
        match gap.to_s {
            Some(to_s) => texts.with("watch-gap", &[("from", &from), ("to", &words::clock(to_s)), ("why", &why)]),
            None => texts.with("watch-gap-open", &[("from", &from), ("why", &why)]),
        }
    };
    watched.gaps.iter().map(line).collect()
}

fn missing(watched: &Watched, texts: &Texts) -> Vec<String> {
    let line = |missing: &Missing| {
        let (what, why) = (escaped(&missing.what, NAME), escaped(&missing.why, FOREIGN));
        texts.with("watch-missing", &[("what", &what), ("why", &why)])
    };
    watched.missing.iter().map(line).collect()
}

/// What happened, by kind, so that the many of one kind do not hide the one of another.
fn events(watched: &Watched, texts: &Texts) -> Vec<String> {
    let mut sorted: Vec<&Event> = watched.events.iter().collect();
    sorted.sort_by(|one, other| one.kind.cmp(&other.kind).then(one.t_s.total_cmp(&other.t_s)));
    let kinds: Vec<&[&Event]> = sorted.chunk_by(|one, next| one.kind == next.kind).collect();
    let each = (LISTED / kinds.len().max(1)).max(1);
    let mut lines = Vec::new();
    for same in kinds {
        lines.extend(same.iter().take(each).map(|event| told(event, texts)));
        if let Some(first) = same.first().filter(|_| same.len() > each) {
            let more = words::number((same.len() - each) as u64);
            let what = quantity::event(texts, first.kind);
            lines.push(texts.with("watch-more-events", &[("count", &more), ("event", &what)]));
        }
    }
    lines
}

fn told(event: &Event, texts: &Texts) -> String {
    let (when, what) = (words::clock(event.t_s), quantity::event(texts, event.kind));
    if event.detail.is_empty() {
        return texts.with("watch-event", &[("when", &when), ("event", &what)]);
    }
    let detail = escaped(&event.detail, FOREIGN);
    texts.with("watch-event-detail", &[("when", &when), ("event", &what), ("detail", &detail)])
}

/// How often each kind of thing happened, in the order of kinds.
pub(super) fn happened(watched: &Watched, texts: &Texts) -> Vec<String> {
    let mut kinds: Vec<EventKind> = watched.events.iter().map(|event| event.kind).collect();
    kinds.sort_unstable();
    let same = kinds.chunk_by(|one, next| one == next);
    same.map(|same| format!("{} ({})", quantity::event(texts, same[0]), words::number(same.len() as u64))).collect()
}

/// What a terminal says: a line for each thing, what was not seen, indexes and pools.
pub(super) fn lines(result: &RunResult, texts: &Texts) -> Vec<String> {
    let Some(probes) = &result.probes else { return Vec::new() };
    let things = probes.watched.iter().filter_map(|watched| usage::line(watched, texts)).collect();
    let mut lines = listed(things, THINGS, texts);
    let mut unseen = Vec::new();
    for watched in &probes.watched {
        let name = usage::name(watched, texts);
        let said = gaps(watched, texts).into_iter().chain(missing(watched, texts));
        unseen.extend(said.map(|said| format!("{name}: {said}")));
    }
    lines.extend(listed(unseen, UNSEEN, texts));
    lines.extend(database::lines(probes, texts));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::Lang;

    #[test]
    fn many_events_of_one_kind_do_not_hide_another() {
        let texts = Texts::new(Lang::En);
        let mut watched = Watched::new(Probe::Redis, "127.0.0.1:6379");
        for second in 0..50 {
            watched.event(f64::from(second), EventKind::Slow, "KEYS *");
        }
        watched.event(60.0, EventKind::Failover, "");
        let lines = events(&watched, &texts);
        assert_eq!(lines.len(), 12, "one failover, ten that were slow, and how many more: {lines:#?}");
        assert!(lines[0].starts_with("1:00") && lines[11].contains("40"), "{lines:#?}");
        assert_eq!(happened(&watched, &texts).len(), 2);
    }
}
