//! What bad input gets: exit 2 with every problem at once, exit 4 with what was asked and what came back.

use std::io::Write;

use crate::support::chat::{Reference, SECRET};
use crate::support::{Mock, Ran, Server, listen, raw_exchange, read_request, run, tool, whole_request};

/// Nothing was run: no folder of a run, nothing on standard output.
fn nothing_ran(ran: &Ran) {
    assert_eq!(ran.stdout, "", "{ran}");
    assert_eq!(std::fs::read_dir(ran.out.path()).unwrap().count(), 0, "{ran}");
}

#[test]
fn every_problem_of_the_flags_at_once() {
    let ran = run(&[
        "--users",
        "0",
        "--budget",
        "ttfb.p95=1s,3s",
        "--budget",
        "ttft.p95=3s,1s",
        "--target",
        "https://chat.example.com",
        "--steady",
        "soon",
        "--think",
        "normal 1s 2s",
        "--abort-on",
        "errors",
        "--header",
        "no colon",
        "--turns",
        "0",
        "--ca-file",
        "/nonexistent.pem",
        "--stall-timeout",
        "0s",
    ]);
    assert_eq!(ran.code, 2, "{ran}");
    nothing_ran(&ran);
    for expected in [
        "--users: 0 users make no load",
        "--budget: unknown metric `ttfb`; did you mean `ttft`?",
        "--budget: `ttft.p95=3s,1s`: the pass bound is above the warn bound",
        "--target: chat.example.com is a public host",
        "--i-am-authorized-to-test chat.example.com",
        "--steady: `soon` is no duration",
        "--think: `normal 1s 2s` is no distribution",
        "--abort-on: `errors` is no guard",
        "--header: write it like 'Name: value'",
        "--turns: should be 1 or more",
        "--ca-file: cannot read /nonexistent.pem",
        "--stall-timeout: should be above 0",
        "11 problem(s)",
    ] {
        assert!(ran.stderr.contains(expected), "{expected}: {ran}");
    }
}

#[test]
fn problems_one_by_one() {
    for (flags, expected) in [
        (&["--tiers", "50,20"][..], "the tiers should rise"),
        (&["--tiers", "0,20"], "a tier should have 1 user or more"),
        (&["--headcount", "100", "--active-share", "250%"], "--active-share: `250%` is no share"),
        (&["--users", "5", "--steady", "9s", "--steady-max", "3s"], "--steady-max: is below --steady"),
        (&["--users", "5", "--target", "http://user:hunter2@127.0.0.1"], "carries a user name or password"),
        (&["--users", "5", "--target", "ftp://127.0.0.1"], "should begin with http://"),
        (&["--users", "5", "--mock-config", "/nonexistent.toml"], "--mock-config: cannot read"),
        (&["--users", "5", "--prompts", "/nonexistent.csv"], "--prompts: cannot read /nonexistent.csv"),
        (&["--users", "5", "--prompts", "generated: 200ms"], "--prompts: `200ms` is no number"),
        (&["--users", "5", "--prompts", "own.txt"], "a file of yours ends in .jsonl or .csv"),
        (&["--users", "5", "--shards", "0"], "--shards: should be 1 or more"),
        (&["--users", "5", "--max-duration", "0s"], "--max-duration: should be above 0"),
        (&[], "--users: is missing"),
        (&["--users", "many"], "invalid value 'many'"),
        (&["--usres", "5"], "unexpected argument '--usres'"),
        (&["--users", "5", "--tiers", "5"], "cannot be used with"),
    ] {
        let ran = run(flags);
        assert_eq!(ran.code, 2, "{flags:?}: {ran}");
        assert!(ran.stderr.contains(expected), "{flags:?}: {ran}");
        assert!(!ran.stderr.contains("hunter2"), "{ran}");
        nothing_ran(&ran);
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    let output = tool().args(["--users", "5", "--out", "/proc/reports"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("--out: cannot write to /proc/reports"), "{stderr}");
}

#[test]
fn help_has_groups_and_examples() {
    let ran = tool().arg("--help").output().unwrap();
    assert_eq!(ran.status.code(), Some(0));
    let text = String::from_utf8_lossy(&ran.stdout);
    for heading in ["Load:", "Target:", "Verdict:", "Safety:", "Output:", "Examples:", "Exit codes:"] {
        assert!(text.contains(heading), "{heading}: {text}");
    }
}

/// A preflight that fails: exit 4, what was asked, what came back, what to check.
fn preflight(flags: &[&str], expected: &[&str]) {
    let ran = run(&[&["--users", "5"], flags].concat());
    assert_eq!(ran.code, 4, "{flags:?}: {ran}");
    for expected in expected {
        assert!(ran.stderr.contains(expected), "{expected}: {ran}");
    }
    nothing_ran(&ran);
}

#[test]
fn a_target_that_is_not_there() {
    let closed = format!("http://{}", listen().local_addr().unwrap());
    preflight(&["--target", &closed], &["asked GET", "/v1/models", "refuses the connection", "is the server running"]);
    preflight(&["--target", &closed, "--model", "m"], &["asked POST", "connect_refused", "and the port right?"]);
    preflight(&["--target", "http://no-such-host.test", "--model", "m"], &["dns", "does not resolve", "--target"]);
    preflight(
        &["--target", &closed.replace("http", "https"), "--mock-admin", &closed, "--model", "m"],
        &["the mock's admin listener at", "does not answer"],
    );
}

#[test]
fn a_target_that_refuses() {
    let mock = Mock::start("api_key = \"right\"\n[models.m]\nttft = \"5ms\"\ntokens = 2");
    preflight(
        &["--target", &mock.api, "--model", "m"],
        &["unauthorized", "401", "Incorrect API key", "CAPACITY_CHECK_API_KEY"],
    );
    preflight(&["--target", &mock.api], &["asked GET", "401", "CAPACITY_CHECK_API_KEY"]);
    let open = Mock::start("[models.m]\nttft = \"5ms\"\ntokens = 2");
    preflight(&["--target", &open.api, "--model", "gpt-9"], &["http_client_404", "does not exist", "--model"]);
    preflight(&["--target", &format!("{}/wrong/path", open.api)], &["asked GET", "404", "end in /v1"]);
    preflight(&["--target", &open.api.replace("http://", "https://"), "--model", "m"], &["tls", "instead of https"]);
}

#[test]
fn a_web_page_instead_of_a_stream_is_shown_escaped() {
    let web = Server::start(|mut stream, _| {
        let page = format!("<!doctype html>\x1b]0;owned\x07{}", "x".repeat(5_000));
        if read_request(&stream) {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    preflight(
        &["--target", &web.base, "--model", "m"],
        &["text/html", "<!doctype html>\\u{1b}]0;owned\\u{7}", "wrong path or port"],
    );
    let ran = run(&["--users", "5", "--target", &web.base]);
    assert!(ran.stderr.contains("<!doctype html>") && !ran.stderr.contains('\x1b'), "{ran}");
    assert!(ran.stderr.lines().all(|line| line.chars().count() < 400), "{ran}");
}

#[test]
fn a_model_that_is_not_ours_is_not_loaded() {
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 2");
    let other = Mock::start("[models.m]");
    preflight(&["--target", &mock.api], &["--mock-admin", "--real-model", "spend somebody's tokens"]);
    preflight(
        &["--target", &mock.api, "--mock-admin", &other.admin],
        &["the turn is not in the journal", "--real-model"],
    );
    preflight(&["--target", &mock.api, "--mock-admin", &mock.api], &["404", "admin listener of mock-llm"]);
    assert_eq!(mock.turns().len(), 0, "nothing but preflights reached the model");
    let ran = run(&["--users", "5", "--quick", "--target", &mock.api, "--real-model", "--no-progress"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains("not our mock LLM"), "{ran}");
}

#[test]
fn a_broken_mock_file_is_told_whole() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"sead = 1\n[models.m]\nttft = 5\n").unwrap();
    let path = file.path().to_str().unwrap();
    let ran = run(&["--users", "5", "--mock-config", path]);
    assert_eq!(ran.code, 2, "{ran}");
    nothing_ran(&ran);
    for expected in ["unknown key `sead`; did you mean `seed`?", "models.m.ttft: is 5, but a duration needs a unit"] {
        assert!(ran.stderr.contains(expected), "{expected}: {ran}");
    }
    let output = tool().args(["mock-llm", "--fault", "rest=0.1", "--fault", "much", "--gap", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    for expected in ["did you mean `reset`?", "`much` should be FAULT=P", "mock-fast.gap"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_target_that_repeats_the_key_is_not_quoted() {
    let echo = Server::start(|mut stream, _| {
        if read_request(&stream) {
            let body = "{\"error\":\"Invalid key. Received=sk-hunter2\"}";
            let _ = write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    for model in [&["--model", "m"][..], &[]] {
        let out = tempfile::tempdir().unwrap();
        let mut command = tool();
        command.env("CAPACITY_CHECK_API_KEY", "sk-hunter2").args(["--users", "5", "--target", &echo.base]).args(model);
        let output = command.arg("--out").arg(out.path()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(stderr.contains("Received=[redacted]") && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn problems_of_a_librechat_run_at_once() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "id,email,username\n1,a@x.test,a\n").unwrap();
    let accounts = list.path().to_str().unwrap();
    let target = ["--profile", "librechat", "--target", "http://127.0.0.1:9"];
    let few = run(&[&target[..], &["--users", "20", "--accounts", accounts, "--login-rate", "0"]].concat());
    assert_eq!(few.code, 2, "{few}");
    nothing_ran(&few);
    for expected in [
        "has 1 accounts, but 20 users want one each",
        "id,email,username want the deployment's JWT_SECRET in the environment",
        "--login-rate: should be above 0",
    ] {
        assert!(few.stderr.contains(expected), "{expected}: {few}");
    }
    let none = run(&[&target[..], &["--users", "20"]].concat());
    assert!(none.code == 2 && none.stderr.contains("--accounts: LibreChat wants a login for every user"), "{none}");
    let other = run(&["--users", "2", "--target", "http://127.0.0.1:9", "--endpoint", "Mock", "--register"]);
    assert!(other.stderr.contains("--endpoint: is for --profile librechat"), "{other}");
    assert!(other.stderr.contains("--register: is for --profile librechat"), "{other}");
    let workers = run(&["--users", "2", "--reference-workers", "0"]);
    assert!(workers.code == 2 && workers.stderr.contains("--reference-workers: should be from 1 to 256"), "{workers}");
}

#[test]
fn a_deployment_that_cannot_be_tested_says_why() {
    let mock = Mock::start("[models.m]");
    let reference = Reference::start(&mock, |_| {});
    let list = tempfile::NamedTempFile::new().unwrap();
    let accounts = list.path().to_str().unwrap();
    let own = ["--profile", "librechat", "--target", &reference.base, "--accounts", accounts, "--users", "1"];
    let with = |flags: &[&str]| run(&[&own[..], flags].concat());

    std::fs::write(list.path(), "email,password\na@x.test,a-secret-password\n").unwrap();
    let stranger = with(&["--mock-admin", &mock.admin]);
    assert_eq!(stranger.code, 4, "{stranger}");
    for expected in ["login failed", "a@x.test", "Email does not exist", "the account in the list"] {
        assert!(stranger.stderr.contains(expected), "{expected}: {stranger}");
    }
    assert!(!stranger.stderr.contains("a-secret-password"), "{stranger}");

    let claims = reference_chat::jwt::Claims {
        id: "1".to_owned(),
        username: "a".to_owned(),
        provider: "local".to_owned(),
        email: "a@x.test".to_owned(),
        iat: 0,
        exp: u64::MAX,
    };
    std::fs::write(list.path(), format!("token\n{}\n", reference_chat::jwt::sign(&claims, SECRET))).unwrap();
    let no_such = with(&["--mock-admin", &mock.admin, "--endpoint", "Nobody"]);
    assert_eq!(no_such.code, 4, "{no_such}");
    for expected in ["none has --endpoint Nobody", "Mock / m", "--print-librechat-yaml"] {
        assert!(no_such.stderr.contains(expected), "{expected}: {no_such}");
    }
    // Another mock's journal does not have the turn: the model might be anybody's.
    let elsewhere = Mock::start("[models.m]");
    let unseen = with(&["--mock-admin", &elsewhere.admin]);
    assert!(unseen.code == 4 && unseen.stderr.contains("say --real-model"), "{unseen}");
    let other_models = Mock::start("[models.other]");
    let unfit = with(&["--mock-admin", &other_models.admin]);
    assert!(unfit.code == 4 && unfit.stderr.contains("none has a model that the mock serves (other)"), "{unfit}");

    let page = Server::start(|mut stream, _| {
        if read_request(&stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>");
        }
    });
    let own = ["--profile", "librechat", "--target", &page.base, "--accounts", accounts, "--users", "1"];
    let html = run(&[&own[..], &["--mock-admin", &mock.admin]].concat());
    assert!(html.code == 4 && html.stderr.contains("/api/endpoints is no table"), "{html}");
    let nobody = format!("http://{}", listen().local_addr().unwrap());
    let own = ["--profile", "librechat", "--target", &nobody, "--accounts", accounts, "--users", "1"];
    let refused = run(&[&own[..], &["--mock-admin", &mock.admin]].concat());
    assert!(refused.code == 4 && refused.stderr.contains("is the server running"), "{refused}");
}

#[test]
fn a_deployment_that_adds_to_what_users_say_is_told_before_the_run() {
    let mock = Mock::start("[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = 5");
    let api = mock.api.clone();
    let gateway = Server::start(move |mut stream, _| {
        let Some((first, body)) = whole_request(&stream) else { return };
        let words: Vec<&str> = first.split_whitespace().collect();
        let rewritten = body.replace("]]\"", "]] Answer briefly.\"");
        let (head, answer) = raw_exchange(&api, words[0], words[1], "application/json", &rewritten);
        let _ = write!(stream, "{head}\r\n\r\n{answer}");
    });
    let flags = ["--target", &gateway.base, "--mock-admin", &mock.admin, "--users", "5", "--quick", "--no-progress"];
    let ran = run(&flags);
    assert!(ran.code == 4 && ran.stderr.contains("adds to what users say"), "{ran}");
}
