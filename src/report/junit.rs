//! The report as JUnit XML: a suite a tier, a case a budget, as CI systems read it.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::load::{Form, Load};
use super::reason::sentence;
use super::section::NAME;
use super::{answer, words};
use crate::lang::Texts;
use crate::result::{BudgetResult, End, RunResult, TierResult, Verdict};
use crate::secret::escaped;

/// The result as JUnit XML. A case fails where its budget gates the run and failed, or only warned
/// where warnings fail; what could not be decided is an error, and so is a run that was stopped;
/// what does not gate (another tier than the one that was asked for, an expected failure, a quick
/// run) is skipped, with its verdict.
pub fn junit(result: &RunResult, texts: &Texts) -> String {
    let mut report = Report::new("capacity-check");
    let mut run = TestSuite::new(escaped(&result.target.kind, NAME));
    run.add_test_case(whole(result, texts));
    report.add_test_suite(run);
    for tier in &result.tiers {
        let mut suite = TestSuite::new(Load::of(tier).name(texts, Form::Users));
        let budgets = tier.budgets.iter().map(|budget| case(result, tier, budget, texts));
        suite.add_test_cases(budgets);
        suite.set_time(seconds(tier.steady_s));
        report.add_test_suite(suite);
    }
    report.to_string().unwrap_or_default()
}

/// The verdict of the run.
fn whole(result: &RunResult, texts: &Texts) -> TestCase {
    let status = match result.end {
        End::Finished => status(result.verdict, result.comparable, fails_on_warn(result)),
        // Stopped before its end, whatever it had shown by then.
        _ => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    let mut case =
        TestCase::new("verdict", told(status, answer::headline(result, texts), words::verdict(texts, result.verdict)));
    case.set_classname("capacity-check").set_time(seconds(result.duration_s));
    case
}

fn case(result: &RunResult, tier: &TierResult, budget: &BudgetResult, texts: &Texts) -> TestCase {
    let gates = result.comparable && answer::gates(result, tier);
    // What the generator spoiled, or what was cut short, proves nothing either way.
    let spoilt = answer::is_spoilt(tier, result.generator.clock_steps);
    let (verdict, reasons) = match spoilt {
        true => (Verdict::Inconclusive, &tier.reasons[..]),
        false => (budget.verdict, std::slice::from_ref(&budget.reason)),
    };
    // A missed expectation is no warning any more.
    let status = status(verdict, gates, fails_on_warn(result) || tier.expect.is_some());
    let message: Vec<String> = reasons.iter().map(|reason| sentence(texts, reason)).collect();
    let mut case =
        TestCase::new(escaped(&budget.metric, NAME), told(status, message.join(". "), words::verdict(texts, verdict)));
    case.set_classname(format!("capacity-check.{}", Load::of(tier).id()));
    case
}

fn fails_on_warn(result: &RunResult) -> bool {
    result.scenario["fail_on_warn"].as_bool().unwrap_or(false)
}

fn status(verdict: Verdict, gates: bool, fails_on_warn: bool) -> TestCaseStatus {
    match verdict {
        Verdict::Pass => TestCaseStatus::success(),
        _ if !gates => TestCaseStatus::skipped(),
        Verdict::Warn if !fails_on_warn => TestCaseStatus::success(),
        Verdict::Warn | Verdict::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Inconclusive => TestCaseStatus::non_success(NonSuccessKind::Error),
    }
}

/// A length that a file may have made up.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn told(mut status: TestCaseStatus, message: String, verdict: String) -> TestCaseStatus {
    if !matches!(status, TestCaseStatus::Success { .. }) {
        status.set_message(message).set_type(verdict);
    }
    status
}
