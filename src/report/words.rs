//! Numbers with their units, and names of things, in the words of a catalogue.

use crate::lang::Texts;
use crate::metric::{Metric, SHARE};
use crate::result::{Flaw, Step, Verdict};
use crate::secret::escaped;

/// A whole number with its thousands apart.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration of so many microseconds.
pub(super) fn duration(micros: f64) -> String {
    let ms = micros / 1e3;
    match ms {
        0.0 => "0 ms".to_owned(),
        ms if ms < 0.9995 => format!("{:.0} µs", micros.max(1.0)),
        // The edges are those of rounding, so that nothing reads "1000 ms".
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_999.5 => format!("{} s", trimmed(&format!("{:.3}", ms / 1e3))),
        ms if ms < 99_995.0 => format!("{} s", trimmed(&format!("{:.2}", ms / 1e3))),
        ms => format!("{:.0} s", ms / 1e3),
    }
}

/// A decimal without the zeros at its end.
pub(super) fn trimmed(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

/// Seconds of the run, as minutes and seconds.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A share from 0 to 1.
pub(super) fn share(value: f64) -> String {
    let percent = value * 100.0;
    let text = match percent {
        percent if percent > 0.0 && percent < 0.01 => format!("{percent:.1e}"),
        percent if percent < 9.995 => format!("{percent:.2}"),
        percent if percent < 99.95 => format!("{percent:.1}"),
        percent => format!("{percent:.0}"),
    };
    format!("{} %", trimmed(&text))
}

/// One digit behind the point, none from 100 on.
pub(super) fn decimal(value: f64) -> String {
    if value >= 99.95 { number(value.round() as u64) } else { format!("{value:.1}") }
}

/// Bytes in MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", decimal(bytes as f64 / 1024.0 / 1024.0))
}

/// A budget's value with its unit.
pub(super) fn value(budget: &str, value: f64) -> String {
    match unit(budget) {
        Unit::Share => share(value),
        Unit::Millionths => share(value / SHARE),
        Unit::Turns => number(value as u64),
        Unit::Time => duration(value),
    }
}

/// What the values of a budget are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Time,
    Share,
    Millionths,
    Turns,
}

fn unit(budget: &str) -> Unit {
    let name = budget.split_once('.').map_or(budget, |(name, _)| name);
    match name {
        "error_rate" => Unit::Share,
        "corrupted" | "leaked" => Unit::Turns,
        name if name == Metric::OverheadShare.name() => Unit::Millionths,
        _ => Unit::Time,
    }
}

/// A value of a metric with its unit.
pub(super) fn of_metric(metric: Metric, recorded: u64) -> String {
    value(metric.name(), recorded as f64)
}

/// The difference of two values of a budget.
pub(super) fn difference(texts: &Texts, budget: &str, difference: f64) -> String {
    let points = match unit(budget) {
        Unit::Share => difference * 100.0,
        Unit::Millionths => difference / SHARE * 100.0,
        Unit::Turns | Unit::Time => return value(budget, difference),
    };
    texts.with("points", &[("points", trimmed(&format!("{points:.2}")))])
}

/// The same where it may be above every bound.
pub(super) fn open_value(texts: &Texts, budget: &str, value_or_none: Option<f64>) -> String {
    value_or_none.map_or_else(|| texts.get("unbounded"), |found| value(budget, found))
}

/// A budget's name, such as "TTFT p95".
pub(super) fn budget(texts: &Texts, name: &str) -> String {
    let (first, statistic) = name.split_once('.').unwrap_or((name, ""));
    let found = Metric::ALL.into_iter().find(|metric| metric.name() == first);
    let words = match found {
        Some(found) => metric(texts, found),
        None if first == "error_rate" => texts.get("metric-error-rate"),
        None if first == "corrupted" => texts.get("metric-corrupted"),
        None if first == "leaked" => texts.get("metric-leaked"),
        None => escaped(first, 40),
    };
    format!("{words} {}", escaped(statistic, 40)).trim_end().to_owned()
}

/// A metric's name.
pub(super) fn metric(texts: &Texts, metric: Metric) -> String {
    texts.get(match metric {
        Metric::Ttft => "metric-ttft",
        Metric::TtftFromSend => "metric-ttft-from-send",
        Metric::Itl => "metric-itl",
        Metric::Tpot => "metric-tpot",
        Metric::Turn => "metric-turn",
        Metric::Connect => "metric-connect",
        Metric::Tls => "metric-tls",
        Metric::ReceiveLag => "metric-receive-lag",
        Metric::StartLag => "metric-start-lag",
        Metric::LoopDelay => "metric-loop-delay",
        Metric::FirstTokenWidth => "metric-first-token-width",
        Metric::BeforeLlm => "metric-before-llm",
        Metric::TtftOverhead => "metric-ttft-overhead",
        Metric::TokenDelay => "metric-token-delay",
        Metric::Finalise => "metric-finalise",
        Metric::OverheadShare => "metric-overhead-share",
    })
}

/// A verdict's word.
pub(super) fn verdict(texts: &Texts, verdict: Verdict) -> String {
    texts.get(match verdict {
        Verdict::Pass => "verdict-pass",
        Verdict::Warn => "verdict-warn",
        Verdict::Inconclusive => "verdict-inconclusive",
        Verdict::Fail => "verdict-fail",
    })
}

/// A mark beside the word, so that a verdict is told not by colour alone.
pub(super) fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✔",
        Verdict::Warn => "!",
        Verdict::Inconclusive => "?",
        Verdict::Fail => "✘",
    }
}

/// A flaw's name.
pub(super) fn flaw(texts: &Texts, flaw: Flaw) -> String {
    texts.get(match flaw {
        Flaw::Leaked => "flaw-leaked",
        Flaw::Lost => "flaw-lost",
        Flaw::Doubled => "flaw-doubled",
        Flaw::Reordered => "flaw-reordered",
        Flaw::Altered => "flaw-altered",
    })
}

/// A step's name.
pub(super) fn step(texts: &Texts, step: Step) -> String {
    texts.get(match step {
        Step::Registration => "step-registration",
        Step::Login => "step-login",
        Step::PageLoad => "step-page-load",
        Step::Renewal => "step-renewal",
        Step::History => "step-history",
        Step::Cancel => "step-cancel",
        Step::Resume => "step-resume",
        Step::Leave => "step-leave",
    })
}

/// What an outcome means.
pub(super) fn outcome(texts: &Texts, name: &str) -> String {
    if let Some(status) = name.strip_prefix("http_client_") {
        return texts.with("outcome-http-client", &[("status", &escaped(status, 40))]);
    }
    if let Some(status) = name.strip_prefix("http_server_") {
        return texts.with("outcome-http-server", &[("status", &escaped(status, 40))]);
    }
    texts.get(match name {
        "completed" => "outcome-completed",
        "rate_limited" => "outcome-rate-limited",
        "banned" => "outcome-banned",
        "connect_refused" => "outcome-connect-refused",
        "connect_timeout" => "outcome-connect-timeout",
        "dns" => "outcome-dns",
        "tls" => "outcome-tls",
        "unauthorized" => "outcome-unauthorized",
        "error_event" => "outcome-error-event",
        "truncated" => "outcome-truncated",
        "reset" => "outcome-reset",
        "stalled" => "outcome-stalled",
        "timed_out" => "outcome-timed-out",
        "protocol" => "outcome-protocol",
        "corrupted" => "outcome-corrupted",
        "leaked" => "outcome-leaked",
        "aborted" => "outcome-aborted",
        "interrupted" => "outcome-interrupted",
        _ => "outcome-other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [400.0, 9_940.0, 412_300.0, 1_000_000.0, 3_004_000.0, 38_041_000.0, 120_000_000.0].map(duration),
            ["400 µs", "9.9 ms", "412 ms", "1 s", "3.004 s", "38.04 s", "120 s"]
        );
        assert_eq!([0.0, 0.0034, 0.05, 0.634].map(share), ["0 %", "0.34 %", "5 %", "63.4 %"]);
        assert_eq!([9_960.0, 999_600.0, 99_996_000.0].map(duration), ["10 ms", "1 s", "100 s"]);
        assert_eq!([0.09996, 0.9996, 8.099].map(share), ["10 %", "100 %", "810 %"]);
        assert_eq!(
            (clock(75.4), decimal(3.04), decimal(1_234.5)),
            ("1:15".to_owned(), "3.0".to_owned(), "1,235".to_owned())
        );
    }
}
