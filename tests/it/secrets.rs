//! Secrets are planted in every place that one can come from, the target repeats what it is sent,
//! and every artefact is searched.

use std::io::{Read, Write};
use std::path::Path;

use crate::support::chat::{Reference, SECRET};
use crate::support::{Mock, Ran, Server, load, tool};

/// How bearer tokens (their base64 of `{"alg":` or `{"typ":`) and refresh cookies begin. Fewer letters
/// stand in the base64 of a histogram by chance.
const TOKENS: [&str; 3] = ["eyJhbGciOi", "eyJ0eXAiOi", "refreshToken="];

/// All that a run has left and said.
fn artefacts(ran: &Ran) -> Vec<(String, String)> {
    let mut all = vec![("stdout".to_owned(), ran.stdout.clone()), ("stderr".to_owned(), ran.stderr.clone())];
    for file in std::fs::read_dir(ran.folder()).unwrap() {
        let path = file.unwrap().path();
        all.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
    }
    assert!(all.len() >= 7, "result, journal and three reports: {all:?}");
    all
}

fn nowhere(ran: &Ran, secrets: &[&str]) {
    for (name, text) in artefacts(ran) {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} stands in {name}");
        }
    }
}

fn scenario(folder: &Path, text: &str) -> String {
    let path = folder.join("scenario.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn what_the_target_repeats_is_redacted_in_every_artefact() {
    let _machine = load();
    // The first turn is answered; every later one is refused with all that came with it.
    let echo = Server::start(|mut stream, number| {
        let mut request = vec![0; 65_536];
        let read = stream.read(&mut request).unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..read]);
        let planted: String = request.lines().filter(|line| line.contains("planted")).collect();
        // Further in from turn to turn, so that every cut of a long text is met.
        let said = format!("{}{planted}", "x".repeat(number * 7 % 200));
        let (status, kind, body) = if number == 0 {
            let token = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a\"},\"finish_reason\":null}]}\n\n";
            let end = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
            ("200 OK", "text/event-stream", format!("{token}{end}"))
        } else {
            ("500 Internal Server Error", "text/plain", said)
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
    });
    let out = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(
        folder.path(),
        "[target]\napi_key_env = \"THE_KEY\"\nheaders_env = { X-Tenant = \"THE_TENANT\" }\nreal_model = true\n",
    );
    let output = tool()
        .env("THE_KEY", "planted-key-1")
        .env("THE_TENANT", "planted-tenant-2")
        .env("MOCK_LLM_ADMIN_TOKEN", "planted-admin-3")
        .env("JWT_SECRET", "planted-jwt-4")
        .args(["--scenario", &file, "--target", &echo.base, "--model", "m", "--header", "X-Session: planted-header-5"])
        .args(["--tiers", "3", "--quick", "--think", "100ms", "--abort-on", "never", "--no-progress", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let ran = Ran::of(output, out);
    assert!(ran.result().totals.outcomes["http_server_500"] > 0, "{ran}");
    let html = std::fs::read_to_string(ran.folder().join("report.html")).unwrap();
    assert!(
        html.contains("[redacted]"),
        "the examples are there, without the secrets: {:?}",
        ran.result().tiers[0].examples
    );
    nowhere(&ran, &["planted-"]);
    assert_eq!(ran.value()["scenario"]["headers"], serde_json::json!(["X-Tenant", "X-Session"]));
}

#[test]
fn accounts_and_their_tokens_stand_nowhere() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let reference = Reference::start(&mock, |_| {});
    let out = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("users.csv"),
        "id,email,username\n1,planted-a@x.test,a\n2,planted-b@x.test,b\n3,planted-c@x.test,c\n",
    )
    .unwrap();
    let text = format!(
        "[target]\nprofile = \"librechat\"\nurl = \"{}\"\nmock_admin = \"{}\"\n[accounts]\nfile = \"users.csv\"\n",
        reference.base, mock.admin
    );
    let file = scenario(folder.path(), &text);
    let output = tool()
        .env("JWT_SECRET", SECRET)
        .args(["--scenario", &file, "--tiers", "3", "--quick", "--think", "100ms", "--no-progress", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let ran = Ran::of(output, out);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.result().totals.outcomes["completed"] > 10, "{ran}");
    nowhere(&ran, &[&TOKENS[..], &[SECRET, "planted-"]].concat());

    // By password: the list is made by registration, and holds what must not be seen.
    let list = folder.path().join("made.csv");
    let made = tool()
        .args(["accounts", "create", "--count", "3", "--mark", "planted", "--target", &reference.base, "--out"])
        .arg(&list)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let text = std::fs::read_to_string(&list).unwrap();
    let passwords: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    assert!(passwords.len() == 3 && passwords.iter().all(|password| password.len() > 8), "{text}");
    let out = tempfile::tempdir().unwrap();
    let output = tool()
        .args(["--scenario", &file, "--accounts"])
        .arg(&list)
        .args(["--login-rate", "50", "--tiers", "3", "--quick", "--think", "100ms", "--no-progress", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let ran = Ran::of(output, out);
    assert!(ran.result().totals.outcomes["completed"] > 10, "{ran}");
    nowhere(&ran, &[&TOKENS[..], &passwords[..]].concat());
}
