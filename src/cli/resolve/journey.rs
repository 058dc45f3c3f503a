//! What users do, step by step.

use mock_llm::distribution::{Distribution, Unit, Written};

use super::load::share;
use super::{LONGEST, Problems};
use crate::cli::overlay::Wish;
use crate::scenario::file::{Do, Framing, Profile, RiskSection, SseSection, StepSection, UserJourneySection};
use crate::scenario::{Journey, JourneyStep, Risk, Turns};

/// The most journeys, and the most steps of one.
const MOST: usize = 100;

/// The journeys of a scenario.
pub(super) fn journeys(wish: &Wish, problems: &mut Problems<'_>) -> Vec<Journey> {
    let sections = &wish.file.journeys;
    if sections.len() > MOST {
        problems.add("journeys", format!("should be at most {MOST}"));
    }
    let weights: f64 = sections.iter().map(|section| section.weight.unwrap_or(1.0)).sum();
    let can_draw = weights > 0.0 && weights.is_finite();
    if !sections.is_empty() && !can_draw {
        problems.add("journeys", "the weights should not all be 0");
    }
    for (index, section) in sections.iter().enumerate() {
        if sections[..index].iter().any(|before| before.name == section.name) {
            problems.add(&format!("journeys[{index}].name"), "another journey has this name");
        }
    }
    sections.iter().enumerate().map(|(index, section)| journey(wish, index, section, problems)).collect()
}

fn journey(wish: &Wish, index: usize, section: &UserJourneySection, problems: &mut Problems<'_>) -> Journey {
    let path = format!("journeys[{index}]");
    let weight = section.weight.unwrap_or(1.0);
    if !(weight >= 0.0 && weight.is_finite()) {
        problems.add(&format!("{path}.weight"), "should be 0 or more");
    }
    if section.name.is_empty() || section.name.len() > 60 {
        problems.add(&format!("{path}.name"), "should have from 1 to 60 characters");
    }
    if section.steps.is_empty() || section.steps.len() > MOST {
        problems.add(&format!("{path}.steps"), format!("should be from 1 to {MOST}"));
    }
    if !section.steps.iter().any(|step| step.what == Do::Turns) {
        problems.add(&format!("{path}.steps"), "should have turns among them");
    }
    let endless = section.steps.iter().position(|step| step.what == Do::Turns && step.count.is_none());
    if let Some(at) = endless.filter(|at| at + 1 < section.steps.len()) {
        problems.add(&format!("{path}.steps[{at}]"), "goes on for ever, so what follows is never done: say its count");
    }
    let steps = section.steps.iter().enumerate();
    let steps = steps.map(|(at, step)| one(wish, &format!("{path}.steps[{at}]"), step, problems)).collect();
    Journey { name: section.name.clone(), weight, steps }
}

fn one(wish: &Wish, path: &str, step: &StepSection, problems: &mut Problems<'_>) -> JourneyStep {
    can(wish, path, step, problems);
    let of_turns = [
        ("count", step.count.is_some()),
        ("think", step.think.is_some()),
        ("abort", step.abort.is_some()),
        ("reload", step.reload.is_some()),
        ("drop", step.drop.is_some()),
    ];
    if step.what != Do::Turns {
        for (name, _) in of_turns.into_iter().filter(|(_, given)| *given) {
            problems.add(&format!("{path}.{name}"), "is for turns");
        }
    }
    if step.what != Do::Leave && step.away.is_some() {
        problems.add(&format!("{path}.away"), "is for leaving");
    }
    match step.what {
        Do::Login => JourneyStep::Login,
        Do::Page => JourneyStep::Page,
        Do::History => JourneyStep::History,
        Do::Turns => JourneyStep::Turns(turns(path, step, problems)),
        Do::Leave => {
            let usual = wish.file.journey.think.as_deref().unwrap_or("lognormal 15s 45s");
            let away = duration(&format!("{path}.away"), step.away.as_deref().unwrap_or(usual), problems);
            JourneyStep::Leave { away }
        }
    }
}

fn turns(path: &str, step: &StepSection, problems: &mut Problems<'_>) -> Turns {
    if step.count == Some(0) {
        problems.add(&format!("{path}.count"), "should be 1 or more");
    }
    let mut risk = |name: &str, section: &Option<RiskSection>| {
        let RiskSection { share: text, after } = section.as_ref()?;
        let share = share(&Some(text.clone()), &format!("{path}.{name}.share"), 0.0, problems);
        Some(Risk { share, after: duration(&format!("{path}.{name}.after"), after, problems) })
    };
    let (abort, reload, drop) = (risk("abort", &step.abort), risk("reload", &step.reload), risk("drop", &step.drop));
    let all: f64 = [&abort, &reload, &drop].into_iter().flatten().map(|risk| risk.share).sum();
    if all > 1.0 + 1e-9 {
        problems.add(path, "the shares of abort, reload and drop should be 100% at most together");
    }
    let think = step.think.as_deref().map(|text| duration(&format!("{path}.think"), text, problems));
    Turns { count: step.count, think, abort, reload, drop }
}

fn duration(path: &str, text: &str, problems: &mut Problems<'_>) -> Written {
    let found = problems.take(path, Distribution::parse(text, Unit::Duration));
    if found.as_ref().is_some_and(|found| found.mean() > LONGEST.as_micros() as f64) {
        problems.add(path, "is above 30 days");
    }
    Written::duration(found.unwrap_or(Distribution::Constant(0.0)))
}

/// Whether the protocol has what a step wants.
fn can(wish: &Wish, path: &str, step: &StepSection, problems: &mut Problems<'_>) {
    let target = &wish.file.target;
    let embedded = target.url.is_none();
    let profile = target.profile.unwrap_or(Profile::Openai);
    let librechat = embedded || profile == Profile::Librechat;
    let site = target.site.as_ref();
    let (login, page, history) = site
        .map_or((false, false, false), |site| (site.login.is_some(), !site.page.is_empty(), !site.history.is_empty()));
    let described = matches!(profile, Profile::Sse | Profile::Websocket | Profile::Socketio) && !embedded;
    let missing = match step.what {
        Do::Turns | Do::Leave => None,
        _ if librechat => None,
        Do::Login if described && !login => Some("wants [target.site] login"),
        Do::Page if described && !page => Some("wants [[target.site.page]]"),
        Do::History if described && !history => Some("wants [[target.site.history]]"),
        _ if described => None,
        Do::Login | Do::Page | Do::History => Some("the profile openai has nothing of the kind"),
    };
    if let Some(missing) = missing {
        problems.add(path, missing);
    }
    let resumes = librechat
        || match profile {
            Profile::Sse => target.sse.as_ref().is_some_and(|sse| takes_up(&sse.whole())),
            Profile::Websocket => target.websocket.as_ref().is_some_and(|socket| socket.resume.is_some()),
            Profile::Socketio | Profile::Openai | Profile::Librechat => false,
        };
    for (name, given) in [("reload", step.reload.is_some()), ("drop", step.drop.is_some())] {
        if given && !resumes {
            problems.add(&format!("{path}.{name}"), "this target has no way to take a reply up again");
        }
    }
}

/// Whether a stream that breaks off can be taken up again, as [`super::protocol`] resolves it.
fn takes_up(sse: &SseSection) -> bool {
    let opening = sse.stream.as_ref().or(sse.request.as_ref());
    let by_get = opening.is_some_and(|request| match &request.method {
        Some(method) => method.eq_ignore_ascii_case("GET"),
        None => request.body.is_none(),
    });
    match sse.resume {
        Some(true) => sse.stream.is_some() || by_get,
        Some(false) => false,
        None => by_get && sse.framing != Some(Framing::Lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_can_be_taken_up_where_its_stream_is_asked_for() {
        let one = "request = { path = \"/say\", body = \"{}\" }\n";
        let two = format!("{one}stream = {{ path = \"/stream\" }}\n");
        let posted = format!("{one}stream = {{ path = \"/stream\", method = \"post\" }}\n");
        for (text, takes) in [
            (one.to_owned(), false),
            ("request = { path = \"/say?text={{prompt}}\" }\n".to_owned(), true),
            (two.clone(), true),
            (format!("{two}resume = false\n"), false),
            (format!("{two}framing = \"lines\"\n"), false),
            (format!("{two}framing = \"lines\"\nresume = true\n"), true),
            (posted.clone(), false),
            (format!("{posted}resume = true\n"), true),
            ("preset = \"openai-responses\"\n".to_owned(), false),
        ] {
            let section: SseSection = toml::from_str(&text).unwrap();
            assert_eq!(takes_up(&section.whole()), takes, "{text}");
        }
    }
}
