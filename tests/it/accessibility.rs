//! The HTML report in a real browser: axe-core finds nothing, in light and dark, wide and narrow,
//! and nothing is wider than the screen.
//!
//! `tests/run.sh` provides a headless Chromium and axe-core and names them in the environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::root;

/// Runs axe and writes what it found into the page, as base64 so that no markup gets in between.
const RUN: &str = "addEventListener('load', () => axe.run(document, {resultTypes: ['violations']}).then(
  r => ({dark: matchMedia('(prefers-color-scheme: dark)').matches, width: innerWidth,
         needed: document.documentElement.scrollWidth, scripts: document.scripts.length,
         ran: r.passes.concat(r.violations, r.incomplete).map(x => x.id),
         violations: r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' '))}),
  e => ({error: String(e)})).then(o => {
    const p = document.createElement('pre');
    p.textContent = 'FOUND' + btoa(unescape(encodeURIComponent(JSON.stringify(o)))) + 'END';
    document.body.appendChild(p);
  }));";

fn provided(variable: &str) -> PathBuf {
    let found = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    found.unwrap_or_else(|| panic!("{variable} names no file; tests/run.sh provides it"))
}

/// A page as axe sees it in a browser.
fn seen(page: &str, dark: bool, width: u32) -> Value {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(provided("CAPACITY_CHECK_AXE"), folder.path().join("axe.js")).unwrap();
    fs::write(folder.path().join("run.js"), RUN).unwrap();
    // Before the page's own policy, which forbids scripts to all that follows it.
    let scripts = "<head><script src=\"axe.js\"></script><script src=\"run.js\"></script>";
    assert!(page.contains("<head>"));
    fs::write(folder.path().join("page.html"), page.replacen("<head>", scripts, 1)).unwrap();
    let output = Command::new(provided("CAPACITY_CHECK_CHROMIUM"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("file://{}", folder.path().join("page.html").display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let found = dom.split("FOUND").nth(1).and_then(|rest| rest.split("END").next());
    let found = found.unwrap_or_else(|| panic!("axe did not end: {}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_slice(&STANDARD.decode(found).unwrap()).unwrap()
}

fn golden(name: &str) -> String {
    fs::read_to_string(Path::new(root()).join("fixtures/golden").join(name)).unwrap()
}

#[test]
fn axe_finds_nothing_in_any_report() {
    for (name, dark, width) in [
        ("fail.en.html", false, 1280),
        ("fail.ko.html", true, 1280),
        ("outcomes.en.html", true, 400),
        ("outcomes.ko.html", false, 400),
        ("pass.en.html", true, 1280),
        ("warn.en.html", false, 400),
        ("inconclusive.ko.html", true, 400),
        ("interrupted.en.html", false, 1280),
        ("probed.en.html", false, 1280),
        ("probed.ko.html", true, 400),
        ("version-1.en.html", false, 1280),
    ] {
        let seen = seen(&golden(name), dark, width);
        let at = format!("{name}, dark {dark}, {width} px");
        assert_eq!(seen["violations"], serde_json::json!([]), "{at}");
        assert_eq!((seen["dark"].as_bool(), seen["width"].as_u64()), (Some(dark), Some(u64::from(width))), "{at}");
        assert!(seen["needed"].as_u64() <= Some(u64::from(width)), "{at}: the page is wider than the screen: {seen}");
        assert!(seen["ran"].as_array().unwrap().iter().any(|rule| rule == "color-contrast"), "{at}");
        assert_eq!(seen["scripts"], 2, "{at}: the page has scripts of its own");
    }
}

#[test]
fn axe_would_find_something() {
    let page = golden("fail.en.html");
    let pale = page.replace("--ink: #1b1f24;", "--ink: #c8c8c8;");
    assert_ne!(pale, page);
    let found = seen(&pale, false, 1280)["violations"].to_string();
    assert!(found.contains("color-contrast"), "{found}");
}
