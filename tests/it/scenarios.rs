//! Scenario files: those that come with the tool, problems with their places, flags over the file,
//! budgets and expectations by tier, plans.

use std::path::Path;

use capacity_check::result::{End, RunResult, Verdict};
use serde_json::Value;

use crate::support::{Mock, Ran, golden, load, root, tool};

fn called(arguments: &[&str]) -> (i32, String, String) {
    let output = tool().args(arguments).current_dir(root()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a scenario with its reports in a folder of the test.
fn run_scenario(path: &Path, flags: &[&str]) -> Ran {
    let out = tempfile::tempdir().unwrap();
    let mut command = tool();
    command.arg("--scenario").arg(path).args(flags).arg("--no-progress").arg("--out").arg(out.path());
    let output = command.output().unwrap();
    Ran::of(output, out)
}

fn written(folder: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("my test.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_scenario_that_comes_with_the_tool_is_valid() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (code, said, error) = called(&["validate", "--scenario", path.to_str().unwrap()]);
        assert!(code == 0 && said.starts_with(&format!("{name}: no problem found")), "{name}: {said}{error}");
        let (code, said, error) = called(&["plan", "--scenario", path.to_str().unwrap()]);
        assert!(code == 0 && said.contains("Duration (min:s)"), "{name}: {said}{error}");
        names.push(name);
    }
    names.sort();
    let all = [
        "anthropic-messages",
        "arrivals-poisson",
        "browser-journey-librechat",
        "ci-smoke",
        "embedded-demo",
        "librechat-tiers",
        "librechat-watched",
        "openai-endpoint",
        "openai-responses",
        "soak-8h",
        "socketio-chat",
        "spike-recovery",
        "websocket-generic",
    ];
    assert_eq!(names, all);
}

#[test]
fn the_demo_is_the_default_spelled_out() {
    let (_, demo, _) = called(&["plan", "--scenario", "scenarios/embedded-demo.toml"]);
    let (_, default, _) = called(&["plan", "--users", "500"]);
    assert_eq!(demo, default);
    assert!(default.contains("Accounts needed: none."), "{default}");
}

#[test]
fn the_smoke_test_runs_and_passes() {
    let _machine = load();
    let ran = run_scenario(&root().join("scenarios/ci-smoke.toml"), &[]);
    let result = ran.result();
    assert!(result.tiers[0].budgets.iter().all(|budget| budget.verdict == Verdict::Pass), "{ran}");
    // On a machine whose cores are taken away the honest answer of the run is another one.
    assert!(matches!((ran.code, result.verdict), (0, Verdict::Pass) | (3, Verdict::Inconclusive)), "{ran}");
    assert!(result.duration_s < 30.0 && result.end == End::Finished);
    let folder = std::fs::read_link(ran.folder()).unwrap().to_string_lossy().into_owned();
    assert!(folder.ends_with("-ci-smoke"), "{folder}");
    let junit = std::fs::read_to_string(ran.folder().join("junit.xml")).unwrap();
    for part in ["name=\"ttft.p50\"", "name=\"turn.p50\"", "name=\"error_rate\"", "name=\"verdict\""] {
        assert!(junit.contains(part), "{part}: {junit}");
    }
}

#[test]
fn the_demo_runs_quickly_in_korean_and_is_the_default() {
    let _machine = load();
    let default = crate::support::run(&["--quick", "--tiers", "5", "--no-progress"]).value();
    let ran = run_scenario(&root().join("scenarios/embedded-demo.toml"), &["--quick", "--tiers", "5", "--lang", "ko"]);
    assert_eq!(ran.code, 0, "{ran}");
    let mut scenario = ran.value()["scenario"].clone();
    (scenario["name"], scenario["description"]) = ("embedded".into(), Value::Null);
    assert_eq!(scenario, default["scenario"], "every default is spelled out as it is");
    assert!(ran.stdout.contains("간이 실행") && ran.stdout.contains("report.html"), "{ran}");
    let page = std::fs::read_to_string(ran.folder().join("report.html")).unwrap();
    assert!(page.contains("<html lang=\"ko\">") && page.contains("내장 기준 배포"));
}

#[test]
fn secrets_in_the_place_of_names_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(
        &folder,
        "[target]\nurl = \"http://127.0.0.1:9\"\napi_key_env = \"sk-planted\"\n\
         headers_env = { Authorization = \"Bearer planted\" }\n[load]\nusers = 5\n[[tiers]]\nusers = 7\n",
    );
    let ran = run_scenario(&path, &["--budget", "ttfb.p95=1s"]);
    assert!(ran.code == 2 && !ran.stderr.contains("planted"), "{ran}");
    for expected in [
        ":3:1: target.api_key_env: should be the name of an environment variable",
        ":4:17: target.headers_env.Authorization: should be the name of an environment variable",
        ":8:1: tiers[0].users: is none of the tiers that [load] asks for",
        "\n  --budget: unknown metric `ttfb`",
    ] {
        assert!(ran.stderr.contains(expected), "{expected}: {ran}");
    }
}

#[test]
fn flags_take_the_place_of_what_the_file_asks_for() {
    let path = "scenarios/openai-endpoint.toml";
    for (flags, streams) in
        [(&["--users", "100"][..], "100"), (&["--tiers", "70"], "70"), (&["--active-share", "10%"], "80")]
    {
        let (code, said, error) = called(&[&["plan", "--scenario", path], flags].concat());
        assert!(code == 0 && said.contains(&format!(" {streams} ")), "{flags:?}: {said}{error}");
    }
    let (code, _, error) =
        called(&["validate", "--users", "5", "--profile", "librechat", "--target", "http://127.0.0.1:9"]);
    assert!(code == 2 && error.contains("--accounts: LibreChat wants a login for every user"), "{error}");
    let (_, said, _) = called(&["plan", "--users", "5", "--max-duration", "1m"]);
    assert!(said.contains("at most 1:04; 0:04 of it for logins"), "{said}");
}

#[test]
fn problems_have_line_and_column_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(
        &folder,
        "name = \"../evil\"\n[load]\nusers = 5\nramp = \"soon\"\n[journey]\nprompts = \"english\"\n\
         [budgets]\nttft.p95 = { pass = \"3s\", warn = \"1s\" }\n[mock.models.m]\nttft = 5\n\
         [[tiers]]\nusers = 5\nbudgets.itl.p95 = { pass = \"0s\" }\n[[tiers]]\nusers = 5\n\
         [target]\nendpoint = \"Mock\"\n[guards]\nabort_on = \"errors\"\n",
    );
    let (code, said, error) = called(&["validate", "--scenario", path.to_str().unwrap(), "--think", "often"]);
    assert_eq!((code, said.as_str()), (2, ""), "{error}");
    for expected in [
        "my test.toml:1:1: name: should be up to 100 letters",
        "my test.toml:4:1: load.ramp: `soon` is no duration",
        "my test.toml:6:1: journey.prompts: unknown set of prompts `english`; known: mixed, en, ko",
        "my test.toml:8:6: budgets.ttft.p95: `ttft.p95=3s,1s`: the pass bound is above the warn bound",
        "my test.toml:10:1: mock.models.m.ttft: is 5, but a duration needs a unit",
        "my test.toml:13:13: tiers[0].budgets.itl.p95: `itl.p95=0s,0s`: no number of turns",
        "my test.toml:15:1: tiers[1].users: another tier has as many users",
        "my test.toml:17:1: target.endpoint: wants a --target",
        "my test.toml:19:1: guards.abort_on: `errors` is no guard",
        "--think: `often` is no",
        "10 problem(s)",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // The same of a run, which then does nothing.
    let ran = run_scenario(&path, &[]);
    assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.contains("nothing was run"), "{ran}");
    let broken = written(&folder, "[load\nusers = 5\nusers\n");
    let (code, _, error) = called(&["validate", "--scenario", broken.to_str().unwrap()]);
    assert!(code == 2 && error.contains("my test.toml:1:"), "{error}");
    let (code, _, error) = called(&["--scenario", "/nowhere.toml"]);
    assert!(code == 2 && error.contains("--scenario: cannot read /nowhere.toml"), "{error}");
    let target =
        written(&folder, "[target]\nurl = \"https://chat.example.com\"\n[mock]\nseed = 2\n[load]\nusers = 1\n");
    let (_, _, error) = called(&["validate", "--scenario", target.to_str().unwrap()]);
    assert!(error.contains(":2:1: target.url: chat.example.com is a public host"), "{error}");
    assert!(error.contains(":3:2: mock: is for the embedded deployment"), "{error}");
    let (code, said, _) = called(&[
        "validate",
        "--scenario",
        written(
            &folder,
            "authorized = [\"chat.example.com\"]\n[target]\nurl = \"https://chat.example.com\"\n[load]\nusers = 1\n",
        )
        .to_str()
        .unwrap(),
    ]);
    assert!(code == 0 && said.contains("my-test: no problem found"), "{said}");
}

#[test]
fn flags_override_the_file_and_files_are_found_beside_it() {
    let _machine = load();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.jsonl"), "{\"turns\":[\"only this\"]}\n").unwrap();
    let path = written(
        &folder,
        "[journey]\nprompts = \"own.jsonl\"\nthink = \"5s\"\n[load]\nramp = \"1s\"\nsteady = \"2s\"\nsteady_max = \"2s\"\n\
         [budgets]\nturn.p50 = { pass = \"9s\" }\n[[tiers]]\nusers = 2\nexpect = \"fail\"\nbudgets.ttft.p50 = { pass = \"1ms\" }\n\
         [[tiers]]\nusers = 4\n[verdict]\nfail_on = \"warn\"\n[output]\nformats = [\"junit\"]\nlang = \"ko\"\n",
    );
    let mock = Mock::start("[models.m]\nttft = \"60ms\"\ngap = \"1ms\"\ntokens = 3");
    let target = ["--target", &mock.api, "--mock-admin", &mock.admin];
    let flags = ["--think", "100ms", "--budget", "error_rate=30%", "--seed", "7", "--lang", "en"];
    let ran = run_scenario(&path, &[&target[..], &flags].concat());
    let value = ran.value();
    let scenario = &value["scenario"];
    assert_eq!(scenario["load"]["think"], "100ms");
    assert_eq!(scenario["load"]["prompts"]["conversations"], 1);
    assert_eq!((&scenario["seed"], &scenario["fail_on_warn"]), (&Value::from(7), &Value::from(true)));
    let budgets = |tier: usize| -> Vec<String> {
        let tier = value["tiers"][tier]["budgets"].as_array().unwrap();
        tier.iter().map(|budget| budget["metric"].as_str().unwrap().to_owned()).collect()
    };
    // Spoilt replies always count, where turns are traced.
    assert_eq!(budgets(0), ["ttft.p50", "turn.p50", "error_rate", "corrupted", "leaked"]);
    assert_eq!(budgets(1), ["turn.p50", "error_rate", "corrupted", "leaked"]);
    let result: RunResult = ran.result();
    assert_eq!(result.tiers[0].expect, Some(Verdict::Fail));
    let files: Vec<bool> = ["junit.xml", "report.html"].map(|name| ran.folder().join(name).exists()).to_vec();
    assert_eq!(files, [true, false]);
    assert!(ran.stdout.contains("Can it be opened to 4 users?"), "{ran}");
    // What the users said came from the file, and no conversation was longer.
    let turns = mock.turns();
    assert!(turns.len() > 10, "{}", turns.len());
}

#[test]
fn a_plan_says_what_a_run_writes_and_needs() {
    let (code, said, error) = called(&["plan", "--scenario", "scenarios/librechat-tiers.toml", "--lang", "en"]);
    assert_eq!(code, 0, "{error}");
    // 1,000 users of one think time and turn: Little's law; logins at 5 a second take 200 s.
    for part in ["1,000", "3:20 of it for logins", "Accounts needed: 1,000", "1,000 sessions, 0 accounts", "Assumed: "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, said, _) = called(&["plan", "--scenario", "scenarios/librechat-tiers.toml", "--lang", "ko"]);
    assert!(said.contains("필요한 계정: 1,000개"), "{said}");
    let (_, said, _) = called(&["plan", "--users", "10", "--mock-config", "/dev/null", "--think", "0s"]);
    assert!(said.contains("10.0"), "everybody streams all the time: {said}");
}

#[test]
fn a_plan_comes_true() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"200ms\"\ngap = \"20ms\"\ntokens = 50");
    let flags = ["--tiers", "8", "--think", "1s", "--ramp", "2s", "--steady", "12s", "--steady-max", "12s"];
    let (_, said, _) = called(&[&["plan"][..], &flags].concat());
    let number = |before: &str| -> f64 {
        let rest = said.split(before).nth(1).unwrap_or_else(|| panic!("{before}: {said}"));
        rest.split(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    let (turns, tokens) = (number("Turns: about "), number("with "));
    let target = ["--target", &mock.api, "--mock-admin", &mock.admin, "--no-progress"];
    let ran = crate::support::run(&[&flags[..], &target].concat());
    let totals = ran.result().totals;
    let ratio = |planned: f64, found: u64| found as f64 / planned;
    assert!((0.75..1.25).contains(&ratio(turns, totals.started)), "{turns} planned, {} begun", totals.started);
    assert!((0.75..1.25).contains(&ratio(tokens, totals.tokens)), "{tokens} planned, {} came", totals.tokens);
}

#[test]
fn the_schemas_are_those_of_the_code() {
    let (code, scenario, _) = called(&["schema"]);
    assert_eq!(code, 0);
    golden::hold("fixtures/scenario.schema.json", &scenario);
    let (_, result, _) = called(&["schema", "--of", "result"]);
    golden::hold("fixtures/result.schema.json", &result);
    let schema: Value = serde_json::from_str(&scenario).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let demo = std::fs::read_to_string(root().join("scenarios/embedded-demo.toml")).unwrap();
    let demo: Value = serde_json::to_value(demo.parse::<toml::Table>().unwrap()).unwrap();
    assert!(validator.is_valid(&demo));
    assert!(schema["properties"]["load"].to_string().contains("How many users there are"), "descriptions are in it");
}
