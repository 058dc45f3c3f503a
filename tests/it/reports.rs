//! Reports: golden files of every form in both languages, hostile strings, older versions, and the
//! catalogue of texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use capacity_check::lang::{Lang, Texts};
use capacity_check::report::{html, junit, markdown, terminal};
use capacity_check::result::{End, Gauge, Probes, Reached, Reason, RunResult, SCHEMA_VERSION, read};
use serde_json::Value;

use crate::support::results::samples;
use crate::support::{golden, root, sources, tool};

/// Every result that golden files are made of, with its name.
fn fixtures() -> Vec<(String, RunResult)> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(root().join("fixtures/results")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let load = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let result = read(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, result)
    };
    names.into_iter().map(load).collect()
}

fn forms(result: &RunResult, texts: &Texts) -> [(&'static str, String); 4] {
    [
        ("txt", terminal(result, texts, false)),
        ("md", markdown(result, texts)),
        ("html", html(result, texts)),
        ("xml", junit(result, texts)),
    ]
}

#[test]
fn every_form_in_both_languages_is_as_it_was() {
    for (name, result) in samples() {
        let text = serde_json::to_string_pretty(&result).unwrap() + "\n";
        golden::keep(&format!("fixtures/results/{name}.json"), &text);
    }
    let fixtures = fixtures();
    assert!(fixtures.len() >= 11, "{} results", fixtures.len());
    for (name, result) in &fixtures {
        for lang in Lang::ALL {
            let texts = Texts::new(lang);
            for ((extension, text), (_, again)) in forms(result, &texts).into_iter().zip(forms(result, &texts)) {
                assert_eq!(text, again, "two renders of {name} differ");
                golden::hold(&format!("fixtures/golden/{name}.{}.{extension}", lang.tag()), &text);
            }
        }
    }
}

#[test]
fn the_sample_is_what_its_result_says() {
    let result = read(&fs::read_to_string(root().join("reports/sample/result.json")).unwrap()).unwrap();
    assert!(result.comparable && result.target.kind == "embedded", "a real run");
    for (lang, folder) in [(Lang::En, "reports/sample"), (Lang::Ko, "reports/sample/ko")] {
        let texts = Texts::new(lang);
        golden::hold(&format!("{folder}/terminal.txt"), &(terminal(&result, &texts, false) + "\n"));
        golden::hold(&format!("{folder}/report.md"), &markdown(&result, &texts));
        golden::hold(&format!("{folder}/report.html"), &html(&result, &texts));
        golden::hold(&format!("{folder}/junit.xml"), &junit(&result, &texts));
    }
}

#[test]
fn older_versions_still_render() {
    let versions: BTreeSet<u64> = fs::read_dir(root().join("fixtures/results"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .map(|text| serde_json::from_str::<Value>(&text).unwrap()["schema_version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, (1..=u64::from(SCHEMA_VERSION)).collect(), "a result of each version is kept");
    let first = fixtures().into_iter().find(|(name, _)| name == "version-1").unwrap().1;
    assert_eq!((first.schema_version, first.asked), (SCHEMA_VERSION, 600));
    let text = terminal(&first, &Texts::new(Lang::En), false);
    assert!(text.contains("the generator started turns late: start lag p99 is 131 ms"), "{text}");
}

/// What a hostile target may say: markup of every form, and characters that reorder or hide.
const HOSTILE: &str = "<script>alert(1)</script> `code` | cell *bold* [link](http://evil.example) @everyone \
                       ]]> <!-- \u{1b}[31mred\u{7} \u{202e}drawkcab\u{200b} &amp; \" ' {{x}} ${y} \u{0}";

/// Whatever a store, a process or an endpoint may say.
fn hostile_probes(probes: &mut Probes) {
    let hostile = || HOSTILE.to_owned();
    for watched in &mut probes.watched {
        watched.name = hostile();
        watched.facts = vec![(hostile(), hostile())];
        for series in &mut watched.series {
            series.of = series.of.as_ref().map(|_| hostile());
        }
        if let Some(series) = watched.series.first_mut() {
            series.gauge = Gauge::Named(hostile());
        }
        for missing in &mut watched.missing {
            (missing.what, missing.why) = (hostile(), hostile());
        }
        watched.gaps.iter_mut().for_each(|gap| gap.why = hostile());
        watched.events.iter_mut().for_each(|event| event.detail = hostile());
    }
    probes.balance.iter_mut().for_each(|balance| balance.busiest = hostile());
    probes.growth.iter_mut().for_each(|growth| growth.of = hostile());
    if let Some(audit) = &mut probes.index_audit {
        (audit.database, audit.empty, audit.failed) = (hostile(), vec![hostile()], Some(hostile()));
        for finding in &mut audit.findings {
            (finding.query, finding.create_index) = (hostile(), hostile());
        }
    }
    for study in [&mut probes.mongo_pools, &mut probes.redis_pools].into_iter().flatten() {
        (study.refused, study.left_behind) = (Some(hostile()), Some(hostile()));
    }
}

#[test]
fn what_the_target_said_is_text_and_nothing_else() {
    let mut result = samples().into_iter().find(|(name, _)| *name == "outcomes").unwrap().1;
    result.target.url = HOSTILE.to_owned();
    result.target.model = HOSTILE.to_owned();
    result.target.endpoint = Some(HOSTILE.to_owned());
    result.target.reached = Some(Reached {
        sni: Some(HOSTILE.to_owned()),
        client_cert: true,
        resolved: vec![HOSTILE.to_owned()],
        proxy: Some(HOSTILE.to_owned()),
        source_addresses: vec![HOSTILE.to_owned()],
    });
    result.journeys.insert(HOSTILE.to_owned(), 3);
    result.started_at = HOSTILE.to_owned();
    result.tool.version = HOSTILE.to_owned();
    result.scenario = serde_json::json!({ "name": HOSTILE, HOSTILE: [HOSTILE] });
    let counts = result.tiers[1].counts.outcomes.clone();
    for (outcome, count) in counts {
        result.totals.outcomes.insert(outcome.clone(), count);
    }
    for example in &mut result.tiers[1].examples {
        example.detail = HOSTILE.to_owned();
    }
    result.target.kind = HOSTILE.to_owned();
    let leaked = samples().into_iter().find(|(name, _)| *name == "leaked").unwrap().1;
    (result.trace, result.tiers[1].trace) = (leaked.trace, leaked.tiers[1].trace.clone());
    (result.tiers[1].findings, result.generator.calibration) =
        (leaked.tiers[1].findings.clone(), leaked.generator.calibration);
    for finding in &mut result.tiers[1].findings {
        (finding.turn, finding.expected, finding.got) = (HOSTILE.to_owned(), HOSTILE.to_owned(), HOSTILE.to_owned());
    }
    for slow in result.tiers[1].trace.iter_mut().flat_map(|trace| &mut trace.slowest) {
        slow.turn = HOSTILE.to_owned();
    }
    if let Some(trace) = &mut result.trace {
        (trace.white_space, trace.unreadable) = (HOSTILE.to_owned(), Some(HOSTILE.to_owned()));
    }
    if let Some(calibration) = &mut result.generator.calibration {
        calibration.at = HOSTILE.to_owned();
    }
    result.probes = samples().into_iter().find(|(name, _)| *name == "probed").unwrap().1.probes;
    hostile_probes(result.probes.as_mut().unwrap());
    result.end = End::Guard(Reason::Banned { said: HOSTILE.to_owned() });
    result.reasons = vec![Reason::Banned { said: HOSTILE.to_owned() }];
    result.tiers[1].reasons = vec![Reason::Text { text: HOSTILE.to_owned() }];
    result.tiers[1].budgets[0].metric = HOSTILE.to_owned();
    result.tiers[1].budgets[0].reason = Reason::NothingMeasured { budget: HOSTILE.to_owned() };
    result.tiers[1].counts.outcomes.insert(HOSTILE.to_owned(), 3);
    result.totals.outcomes.insert(HOSTILE.to_owned(), 3);
    result.totals.wires.insert(HOSTILE.to_owned(), 3);
    for lang in Lang::ALL {
        let texts = Texts::new(lang);
        for (form, text) in forms(&result, &texts) {
            assert!(text.contains("alert(1)"), "{form}: what was said is shown");
            for c in ['\u{1b}', '\u{7}', '\u{202e}', '\u{200b}', '\u{0}'] {
                assert!(!text.contains(c), "{form} has {c:?} as it came");
            }
            let raw = match form {
                "html" | "xml" => text.contains("<script") || text.contains("<!-- "),
                // Within a code span markup is text; outside of one it must be escaped.
                "md" => {
                    let outside = outside_code(&text);
                    ["<script", "http://evil"].iter().any(|markup| outside.contains(markup))
                }
                _ => false,
            };
            assert!(!raw, "{form}: markup as it came");
        }
        let page = html(&result, &texts);
        assert!(!page.contains("href=") && !page.contains("src=") && !page.contains("onload"), "no remote asset");
        for line in markdown(&result, &texts).lines().filter(|line| line.starts_with('|')) {
            assert!(!outside_code(line).contains("@everyone"), "{line}");
        }
    }
    // JSON escapes by itself, and reads back as what was said.
    let text = serde_json::to_string_pretty(&result).unwrap();
    assert!(!text.contains('\u{1b}') && !text.contains('\u{0}'));
    assert_eq!(read(&text).unwrap().target.model, HOSTILE);
}

/// A Markdown text without its code spans.
fn outside_code(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(start) = rest.find('`') {
            let before = &rest[..start];
            // An escaped backtick opens nothing.
            if before.ends_with('\\') {
                out.push_str(&rest[..=start]);
                rest = &rest[start + 1..];
                continue;
            }
            out.push_str(before);
            let fence: String = rest[start..].chars().take_while(|c| *c == '`').collect();
            let inner = &rest[start + fence.len()..];
            rest = inner.find(&fence).map_or("", |end| &inner[end + fence.len()..]);
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

#[test]
fn three_people_find_their_answer_before_the_first_table() {
    let find = |name: &str| samples().into_iter().find(|(found, _)| *found == name).unwrap().1;
    let texts = Texts::new(Lang::En);
    let first_screen = |name: &str| {
        let text = markdown(&find(name), &texts);
        text.split("## Tiers").next().unwrap().replace('\\', "")
    };
    let fail = first_screen("fail");
    for part in [
        "No: the deployment does not carry 100 users.",
        "50 users: so many the deployment carries. 100 were too many. TTFT p95: ",
        "TTFT p95 at 100 users: ",
        "over the limit of 3 s",
    ] {
        assert!(fail.contains(part), "{part}: {fail}");
    }
    assert!(first_screen("pass").contains("Nearest to its bound is"), "{}", first_screen("pass"));
    assert!(first_screen("expected").contains("As expected: at 100 users the verdict on the deployment is"));
    assert!(first_screen("interrupted").contains("Unknown. The run was interrupted."));
    let spoilt = first_screen("inconclusive");
    assert!(spoilt.contains("The generator used 96 % of the cores of its shards"), "{spoilt}");
}

#[test]
fn every_load_is_asked_about_and_named_as_what_it_is() {
    let find = |name: &str| samples().into_iter().find(|(found, _)| *found == name).unwrap().1;
    let english = Texts::new(Lang::En);
    let said = |name: &str| terminal(&find(name), &english, false);
    let holds = |name: &str, parts: &[&str]| {
        let text = said(name);
        for part in parts {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
    };
    holds(
        "open",
        &[
            "this run cannot say whether the deployment carries 10 turns/s.",
            "Does it carry 10 turns/s?",
            "At least 5 turns/s: so many the deployment certainly carries. 10 turns/s were not decided.",
            "84 of 1,284 turns found no free user",
            "84 were dropped, for all 40 users were busy",
            "10 turns/s: there were 1.4",
        ],
    );
    holds(
        "spike",
        &[
            "Yes: the deployment comes back within 30 s after a crowd of 200 users.",
            "Does it come back within 30 s after a crowd of 200 users?",
            "Yes. Every budget held at 50 users (after the crowd).",
            "50 users: so many the deployment carries. 200 were too many.",
            "200 users (crowd): 16 rate_limited",
            "After 16 turns the deployment said",
        ],
    );
    holds(
        "soak",
        &[
            "Yes: the deployment carries 50 users for 10 min.",
            "50 users (soak): TTFT rose by",
            "in the course of 10 min",
        ],
    );
    let mut rise = find("pass");
    rise.scenario["load"]["shape"] = serde_json::json!({ "kind": "linear", "over_s": 600.0 });
    let text = terminal(&rise, &english, false);
    assert!(text.contains("Yes: the deployment carries a rise to 100 users."), "{text}");
    let korean = terminal(&find("spike"), &Texts::new(Lang::Ko), false);
    assert!(korean.contains("동시 사용자 200명의 급증 후 30초 안에"), "{korean}");
    // The most users of an open load are the size of no tier.
    assert!(!said("open").contains("40 users,") && said("pass").contains("100 users"));
    // Nothing stands against the size of a load where two tiers have the same.
    let (page, levels) = (html(&find("spike"), &english), html(&find("open"), &english));
    assert!(!page.contains("chart-ttft\"") && page.contains("chart-timeline"));
    assert!(levels.contains("chart-ttft\"") && levels.contains("turns a second (tiers)"));
    let suites = junit(&find("spike"), &english);
    assert!(suites.contains("capacity-check.50-usual") && suites.contains("capacity-check.50-recovery"), "{suites}");
    assert_eq!(suites.matches("<failure").count(), 0, "the crowd itself gates nothing: {suites}");
}

#[test]
fn junit_fails_what_gates_and_nothing_else() {
    let case =
        |name: &str| junit(&samples().into_iter().find(|(found, _)| *found == name).unwrap().1, &Texts::new(Lang::En));
    let count = |text: &str, what: &str| text.matches(what).count();
    let fail = case("fail");
    assert_eq!((count(&fail, "<failure"), count(&fail, "<error")), (2, 0), "the verdict and ttft.p95: {fail}");
    let expected = case("expected");
    assert_eq!((count(&expected, "<failure"), count(&expected, "<skipped")), (0, 1), "{expected}");
    assert_eq!(count(&case("pass"), "<failure") + count(&case("pass"), "<error"), 0);
    let spoilt = case("inconclusive");
    assert!(count(&spoilt, "<failure") == 0 && count(&spoilt, "<error") >= 2, "{spoilt}");
}

#[test]
fn the_report_command_renders_again_or_says_why_not() {
    let out = tempfile::tempdir().unwrap();
    let fixture = root().join("fixtures/results/fail.json");
    let report = |arguments: &[&str]| {
        let output = tool().arg("report").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let path = fixture.to_str().unwrap();
    let folder = out.path().to_str().unwrap();
    let (code, said, error) = report(&[path, "--format", "md,html,json,junit", "--out", folder, "--lang", "ko"]);
    assert_eq!(code, 0, "{error}");
    for (file, golden) in [("report.md", "md"), ("report.html", "html"), ("junit.xml", "xml")] {
        assert!(said.contains(file));
        let golden = fs::read(root().join(format!("fixtures/golden/fail.ko.{golden}"))).unwrap();
        assert_eq!(fs::read(out.path().join(file)).unwrap(), golden, "{file}");
    }
    assert_eq!(fs::read(out.path().join("result.json")).unwrap(), fs::read(&fixture).unwrap());
    // Beside the result, where nothing else is said; a result of this version is written as it is.
    let beside = out.path().join("result.json");
    assert_eq!(report(&[beside.to_str().unwrap(), "--format", "json"]).0, 0);
    let old = out.path().join("old");
    fs::create_dir(&old).unwrap();
    fs::copy(root().join("fixtures/results/version-1.json"), old.join("result.json")).unwrap();
    let (code, _, error) = report(&[old.join("result.json").to_str().unwrap(), "--format", "json"]);
    assert!(code == 2 && error.contains("would be written over"), "{error}");
    let (code, said, _) = report(&[path, "--lang", "en"]);
    assert!(code == 0 && said.contains("No: the deployment does not carry 100 users."), "{said}");

    let broken = out.path().join("broken.json");
    for (text, expected) in [("{", "it is no JSON"), ("{}", "has no schema_version"), ("{\"schema_version\":99}", "99")]
    {
        fs::write(&broken, text).unwrap();
        let (code, _, error) = report(&[broken.to_str().unwrap(), "--format", "md"]);
        assert!(code == 2 && error.contains(expected) && error.contains("broken.json"), "{error}");
    }
    let (code, _, error) = report(&["/nowhere.json"]);
    assert!(code == 2 && error.contains("cannot read /nowhere.json"), "{error}");
    let (code, _, error) = report(&[path, "--format", "md", "--out", "/proc/reports"]);
    assert!(code == 2 && error.contains("cannot make /proc/reports"), "{error}");
}

/// The messages of a catalogue with the variables of each.
fn catalogue(lang: Lang) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join(format!("locales/{}.ftl", lang.tag()))).unwrap();
    let mut messages = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("one line a message: {line}"));
        let variables = value.split("{ $").skip(1).map(|rest| rest.split(' ').next().unwrap().to_owned()).collect();
        assert!(messages.insert(key.to_owned(), variables).is_none(), "{key} stands twice");
    }
    messages
}

#[test]
fn every_text_is_there_in_both_languages_and_used() {
    let english = catalogue(Lang::En);
    assert_eq!(english, catalogue(Lang::Ko), "keys and variables are the same");
    let mut code = String::new();
    for file in sources(&root().join("src")) {
        code += &fs::read_to_string(file).unwrap();
    }
    for key in english.keys() {
        assert!(code.contains(&format!("\"{key}\"")), "{key} is not used");
    }
    // And every key that the code asks for by name is there; the others meet an assertion in debug
    // builds, such as those that golden files are made with.
    for call in ["texts.get(\"", "texts.with(\"", "say(texts, \""] {
        for rest in code.split(call).skip(1) {
            let key = rest.split('"').next().unwrap();
            assert!(english.contains_key(key), "{key} is in no catalogue");
        }
    }
}

#[test]
fn reports_have_no_text_of_their_own() {
    let mut files = Vec::new();
    for file in sources(&root().join("src/report")) {
        let code = fs::read_to_string(&file).unwrap();
        let code = code.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for literal in line.split('"').skip(1).step_by(2) {
                // Two words of letters in a row are a sentence; attributes of SVG and HTML are not.
                let words: Vec<&str> = literal.split(' ').filter(|word| !word.is_empty()).collect();
                let is_word = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_alphabetic());
                let sentence = words.windows(2).any(|pair| pair.iter().all(is_word));
                let markup = ["light dark", "mark s", "line s", "whisker s", "bar s"]
                    .iter()
                    .any(|known| literal.starts_with(known));
                if sentence && !markup {
                    files.push(format!("{}:{}: {literal}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(files.is_empty(), "texts belong into locales/: {files:#?}");
}
