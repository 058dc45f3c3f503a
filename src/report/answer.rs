//! The first screen: the verdict in one sentence, and the answers to three people's questions.

use super::arrival;
use super::claim::Claim;
use super::load::{Form, Load};
use super::reason::sentence;
use super::words;
use crate::analysis::generator_causes;
use crate::lang::Texts;
use crate::result::{BudgetResult, Capacity, Reason, Role, RunResult, TierResult, Verdict};

/// A response is called buffered where more of the replies came as good as at once.
const BUFFERED: f64 = 0.1;

/// The verdict in one sentence.
pub(super) fn headline(result: &RunResult, texts: &Texts) -> String {
    if let Some(turns) = result.totals.outcomes.get("leaked").filter(|turns| **turns > 0) {
        return texts.with("headline-leaked", &[("turns", &words::number(*turns))]);
    }
    let who = who(result, texts);
    let named = |tier: &TierResult| Load::of(tier).name(texts, Form::Concurrent);
    let asked = result.asked_tier();
    if let Some(asked) = asked.filter(|tier| tier.verdict != Verdict::Pass && result.verdict == Verdict::Pass) {
        let verdict = words::verdict(texts, asked.verdict);
        return texts.with("headline-expected", &[("load", &named(asked)), ("who", &who), ("verdict", &verdict)]);
    }
    // The tier that was asked for speaks first; then the others whose expectations count.
    let own = asked.map_or(Verdict::Inconclusive, |tier| tier.verdict);
    if own != result.verdict
        && let Some(missed) = missed(result)
            .find(|tier| (tier.verdict == Verdict::Inconclusive) == (result.verdict == Verdict::Inconclusive))
    {
        let key = if result.verdict == Verdict::Inconclusive { "headline-tier-undecided" } else { "headline-missed" };
        return texts.with(key, &[("load", &named(missed)), ("who", &who)]);
    }
    Claim::of(result, texts).verdict(result.verdict, &who, texts)
}

/// The questions, each with its answer: the manager's, the engineer's, the CI owner's.
pub(super) fn answers(result: &RunResult, texts: &Texts) -> Vec<(String, String)> {
    vec![
        (Claim::of(result, texts).question(texts), open(result, texts)),
        (texts.get("question-limit"), limit(result, texts)),
        (texts.get("question-budget"), budgets(result, texts)),
    ]
}

fn who(result: &RunResult, texts: &Texts) -> String {
    texts.get(if result.target.kind == "embedded" { "who-embedded" } else { "who-own" })
}

/// The first tier that did not pass, for which the capacity is below it.
pub(super) fn not_passed(result: &RunResult) -> Option<&TierResult> {
    let Capacity { not_passed, rate_not_passed, .. } = result.capacity;
    let mut rising = result.tiers.iter().filter(|tier| tier.role != Role::Recovery);
    rising.find(|tier| Some(tier.users) == not_passed && tier.rate == rate_not_passed)
}

/// The tiers whose expectations were not met.
fn missed(result: &RunResult) -> impl Iterator<Item = &TierResult> {
    result.tiers.iter().filter(|tier| tier.expect.is_some_and(|expected| !tier.verdict.meets(expected)))
}

/// Whether a tier gates the run: it was asked for, or carries an expectation that it does not meet.
pub(super) fn gates(result: &RunResult, tier: &TierResult) -> bool {
    match tier.expect {
        Some(expected) => !(tier.verdict.meets(expected) && tier.complete),
        None => result.is_about(tier.role, tier.users, tier.rate),
    }
}

/// Whether a tier proves nothing, whatever its budgets measured.
pub(super) fn is_spoilt(tier: &TierResult, clock_steps: u64) -> bool {
    let cut = !tier.complete || tier.reasons.contains(&Reason::CutShort);
    tier.verdict == Verdict::Inconclusive && (cut || !generator_causes(tier, clock_steps).is_empty())
}

fn sentences(reasons: &[Reason], texts: &Texts) -> String {
    let sentences: Vec<String> = reasons.iter().map(|reason| format!("{}.", sentence(texts, reason))).collect();
    sentences.join(" ")
}

fn open(result: &RunResult, texts: &Texts) -> String {
    let Some(tier) = result.asked_tier() else {
        return format!("{} {}", texts.get("open-unknown"), sentences(&result.reasons, texts));
    };
    let answer = match tier.verdict {
        Verdict::Pass => texts.with("open-pass", &[("load", &Load::of(tier).name(texts, Form::Short))]),
        Verdict::Warn => texts.get("open-warn"),
        Verdict::Fail => texts.get("open-fail"),
        Verdict::Inconclusive => texts.get("open-unknown"),
    };
    let reasons: Vec<Reason> = result.reasons.iter().chain(&tier.reasons).cloned().collect();
    let parts = [Some(answer), Some(sentences(&reasons, texts)), arrival::recovery(result, texts)];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

fn limit(result: &RunResult, texts: &Texts) -> String {
    let Capacity { users, rate, .. } = result.capacity;
    let first = not_passed(result);
    let who = who(result, texts);
    let carried = users.map(|users| Load::new(users, rate, Role::Step).size(texts, Form::Short));
    let refuted = first.is_some_and(|tier| tier.verdict == Verdict::Fail);
    let text = match (&carried, first) {
        (Some(carried), None) => texts.with("capacity-open", &[("who", &who), ("load", carried)]),
        (Some(carried), Some(_)) if refuted => texts.with("capacity-carries", &[("who", &who), ("load", carried)]),
        (Some(carried), Some(_)) => texts.with("capacity-at-least", &[("who", &who), ("load", carried)]),
        (None, Some(_)) if refuted => texts.get("capacity-none"),
        (None, Some(_)) => texts.get("capacity-unknown"),
        (None, None) => texts.get("capacity-nothing"),
    };
    let rose = result.tiers.iter().any(|tier| tier.role == Role::Rise && tier.verdict == Verdict::Pass);
    let text = match (rose, &carried) {
        (true, None) => texts.get("capacity-rise"),
        (true, Some(_)) => format!("{text} {}", texts.get("capacity-rise")),
        (false, _) => text,
    };
    let Some(first) = first else { return text };
    let size = |tier: &TierResult| Load::of(tier).size(texts, Form::Bare);
    let key = match first.verdict {
        Verdict::Inconclusive => "capacity-undecided",
        Verdict::Warn => "capacity-warned",
        _ => "capacity-too-many",
    };
    let mut parts = vec![text, texts.with(key, &[("load", &size(first))]), sentences(&first.reasons, texts)];
    let is_larger = |tier: &TierResult| (tier.users, tier.rate) > (first.users, first.rate);
    let larger = result.tiers.iter().rfind(|tier| is_larger(tier) && tier.verdict == Verdict::Pass);
    parts.extend(larger.map(|tier| texts.with("capacity-larger", &[("load", &size(tier))])));
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// The budgets that did not pass in the tiers that gate the run, and by how much they missed.
fn budgets(result: &RunResult, texts: &Texts) -> String {
    let mut gating: Vec<&TierResult> = result.tiers.iter().filter(|tier| gates(result, tier)).collect();
    if gating.is_empty() {
        // Every expectation was met: then what was measured where it was asked.
        gating.extend(result.asked_tier());
    }
    gating.retain(|tier| !tier.budgets.is_empty());
    let Some(last) = gating.last() else { return texts.get("budget-none-judged") };
    let mut lines = Vec::new();
    for tier in &gating {
        let load = Load::of(tier).name(texts, Form::Short);
        let open = tier.budgets.iter().filter(|budget| budget.verdict != Verdict::Pass);
        lines.extend(open.map(|budget| miss(budget, &load, texts)));
    }
    let spoilt = gating.iter().any(|tier| is_spoilt(tier, result.generator.clock_steps));
    let failed = gating.iter().flat_map(|tier| &tier.budgets).any(|budget| budget.verdict == Verdict::Fail);
    match (spoilt, lines.is_empty(), failed) {
        (true, true, _) => texts.get("budget-spoilt-none"),
        (true, false, _) => format!("{} {}", texts.get("budget-spoilt"), lines.join(" ")),
        (false, false, false) => format!("{} {}", texts.get("budget-none-failed"), lines.join(" ")),
        (false, false, true) => lines.join(" "),
        (false, true, _) => nearest(last, texts),
    }
}

/// All budgets of a tier held: the one that is nearest to its bound.
fn nearest(tier: &TierResult, texts: &Texts) -> String {
    let load = Load::of(tier).name(texts, Form::Short);
    let used = |budget: &BudgetResult| budget.upper.unwrap_or(f64::INFINITY) / budget.pass;
    // Of what is counted nothing is near: there was none.
    let nearest = tier
        .budgets
        .iter()
        .filter(|budget| budget.upper.is_some())
        .max_by(|one, other| used(one).total_cmp(&used(other)));
    let Some(nearest) = nearest else { return String::new() };
    let upper = words::open_value(texts, &nearest.metric, nearest.upper);
    let pass = words::value(&nearest.metric, nearest.pass);
    let name = words::budget(texts, &nearest.metric);
    texts.with("budget-all-held", &[("load", &load), ("budget", &name), ("upper", &upper), ("pass", &pass)])
}

fn miss(budget: &BudgetResult, load: &str, texts: &Texts) -> String {
    let name = words::budget(texts, &budget.metric);
    let measured = words::open_value(texts, &budget.metric, budget.measured);
    let warn = words::value(&budget.metric, budget.warn);
    let pass = words::value(&budget.metric, budget.pass);
    let mut arguments = vec![("budget", name.as_str()), ("load", load), ("measured", measured.as_str())];
    match budget.verdict {
        Verdict::Fail => {
            arguments.push(("warn", &warn));
            if let Reason::Spoilt { .. } = budget.reason {
                return format!("{}.", sentence(texts, &budget.reason));
            }
            let over = budget.measured.map(|found| found - budget.warn).filter(|over| *over > 0.0);
            let Some(over) = over else { return texts.with("budget-failed-open", &arguments) };
            let times = words::share(over / budget.warn);
            let over = words::difference(texts, &budget.metric, over);
            arguments.extend([("over", over.as_str()), ("percent", times.as_str())]);
            texts.with("budget-failed", &arguments)
        }
        Verdict::Inconclusive => texts.with("budget-undecided", &arguments[..2]),
        _ => {
            arguments.extend([("pass", pass.as_str()), ("warn", warn.as_str())]);
            texts.with("budget-warned", &arguments)
        }
    }
}

/// What a reader must know before the numbers.
pub(super) fn notes(result: &RunResult, texts: &Texts) -> Vec<String> {
    let mut notes = Vec::new();
    if result.target.kind == "embedded" {
        notes.push(texts.get("note-embedded"));
    }
    if !result.comparable {
        notes.push(texts.get("note-quick"));
    }
    if !result.target.mock {
        notes.push(texts.get("note-real-model"));
    }
    if result.target.insecure {
        notes.push(texts.get("note-insecure"));
    }
    if result.totals.late_tokens > 0 {
        notes.push(texts.with("note-late", &[("words", &words::number(result.totals.late_tokens))]));
    }
    let relays = result.tiers.iter().filter_map(|tier| Some(&tier.trace.as_ref()?.relay));
    let (buffered, turns) = relays.fold((0, 0), |(b, t), relay| (b + relay.buffered_turns, t + relay.turns));
    if turns > 0 && buffered as f64 / turns as f64 > BUFFERED {
        let share = words::share(buffered as f64 / turns as f64);
        notes.push(texts.with("note-buffered", &[("share", &share)]));
    }
    notes
}
