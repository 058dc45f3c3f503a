//! Reasons as sentences.

use super::load::{Form, Load};
use super::words;
use crate::analysis::CONFIDENCE;
use crate::lang::Texts;
use crate::result::{Reason, SampleUnit};
use crate::secret::escaped;

/// The longest foreign text in a sentence, in characters.
const FOREIGN: usize = 300;

/// A reason as a sentence without its full stop.
pub fn sentence(texts: &Texts, reason: &Reason) -> String {
    let confidence = words::share(CONFIDENCE);
    let confidence = confidence.as_str();
    match reason {
        Reason::Within { budget, measured, upper, pass } => {
            let [measured, upper, pass] = [*measured, *upper, *pass].map(|value| words::value(budget, value));
            let arguments = [
                ("budget", words::budget(texts, budget)),
                ("measured", measured),
                ("upper", upper),
                ("pass", pass),
                ("confidence", confidence.to_owned()),
            ];
            say(texts, "reason-within", &arguments)
        }
        Reason::Above { budget, measured, lower, warn } => {
            let arguments = [
                ("budget", words::budget(texts, budget)),
                ("measured", words::open_value(texts, budget, *measured)),
                ("lower", words::open_value(texts, budget, *lower)),
                ("warn", words::value(budget, *warn)),
                ("confidence", confidence.to_owned()),
            ];
            // Turns without one count as above every bound.
            match (measured, lower) {
                (None, None) => say(texts, "reason-above-open", &[&arguments[..1], &arguments[3..4]].concat()),
                _ => say(texts, "reason-above", &arguments),
            }
        }
        Reason::Undecided { budget, measured, lower, upper, pass, warn, more_seconds } => {
            let more = match more_seconds {
                Some(seconds) => texts.with("more-would-decide", &[("seconds", &words::number(*seconds))]),
                None if measured.is_some_and(|measured| measured < *pass || measured > *warn) => {
                    texts.get("more-would-take-too-long")
                }
                None => texts.get("more-would-not-decide"),
            };
            let arguments = [
                ("budget", words::budget(texts, budget)),
                ("measured", words::open_value(texts, budget, *measured)),
                ("lower", words::value(budget, *lower)),
                ("upper", words::open_value(texts, budget, *upper)),
                ("pass", words::value(budget, *pass)),
                ("warn", words::value(budget, *warn)),
                ("more", more),
            ];
            say(texts, "reason-undecided", &arguments)
        }
        Reason::TooFew { budget, samples, needed, unit, more_seconds } => {
            let unit = texts.get(match unit {
                SampleUnit::Turns => "unit-turns",
                SampleUnit::Blocks => "unit-blocks",
            });
            let key = if more_seconds.is_some() { "reason-too-few-more" } else { "reason-too-few" };
            let mut arguments = vec![
                ("budget", words::budget(texts, budget)),
                ("samples", words::number(*samples)),
                ("needed", words::number(*needed)),
                ("unit", unit),
            ];
            arguments.extend(more_seconds.map(|seconds| ("seconds", words::number(seconds))));
            say(texts, key, &arguments)
        }
        Reason::NothingMeasured { budget } => {
            say(texts, "reason-nothing-measured", &[("budget", words::budget(texts, budget))])
        }
        Reason::NoneSpoilt { budget } => say(texts, "reason-none-spoilt", &[("budget", words::budget(texts, budget))]),
        Reason::Spoilt { budget, turns } => {
            say(texts, "reason-spoilt", &[("budget", words::budget(texts, budget)), ("turns", words::number(*turns))])
        }
        Reason::Dropped { budget, turns, of } => {
            let arguments = [
                ("budget", words::budget(texts, budget)),
                ("turns", words::number(*turns)),
                ("of", words::number(*of)),
            ];
            say(texts, "reason-dropped", &arguments)
        }
        Reason::TraceIncomplete { budget, share } => {
            let arguments = [("budget", words::budget(texts, budget)), ("share", words::share(*share))];
            say(texts, "reason-trace-incomplete", &arguments)
        }
        other => of_run(texts, other),
    }
}

/// What is not about one budget.
fn of_run(texts: &Texts, reason: &Reason) -> String {
    let micros = |micros: &u64| words::duration(*micros as f64);
    match reason {
        Reason::CutShort => texts.get("reason-cut-short"),
        Reason::NoBudget => texts.get("reason-no-budget"),
        Reason::Interrupted => texts.get("reason-interrupted"),
        Reason::StartedLate { p99_us, limit_us } => {
            say(texts, "reason-started-late", &[("lag", micros(p99_us)), ("limit", micros(limit_us))])
        }
        Reason::ReadLate { share, limit_us } => {
            say(texts, "reason-read-late", &[("share", words::share(*share)), ("limit", micros(limit_us))])
        }
        Reason::GeneratorBusy { share, limit } => {
            say(texts, "reason-generator-busy", &[("share", words::share(*share)), ("limit", words::share(*limit))])
        }
        Reason::ClockStepped { steps } => say(texts, "reason-clock-stepped", &[("steps", words::number(*steps))]),
        Reason::ErrorRate { share, turns, limit } => {
            let arguments =
                [("share", words::share(*share)), ("turns", words::number(*turns)), ("limit", words::share(*limit))];
            say(texts, "reason-error-rate", &arguments)
        }
        Reason::MaxDuration { limit_s } => {
            say(texts, "reason-max-duration", &[("limit", words::duration(limit_s * 1e6))])
        }
        Reason::Banned { said } => say(texts, "reason-banned", &[("said", escaped(said, FOREIGN))]),
        Reason::NotReached { users, rate, role } => {
            let load = Load::new(*users, *rate, *role).name(texts, Form::Concurrent);
            say(texts, "reason-not-reached", &[("load", load)])
        }
        Reason::Text { text } => escaped(text, FOREIGN),
        // Those of budgets are put into words above.
        _ => String::new(),
    }
}

fn say(texts: &Texts, key: &str, arguments: &[(&str, String)]) -> String {
    let arguments: Vec<(&str, &str)> = arguments.iter().map(|(name, value)| (*name, value.as_str())).collect();
    texts.with(key, &arguments)
}
