//! Data goes one way: every `use crate::` is held against the table of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::sources;

/// The leaves: words and helpers that every module may use.
const LEAVES: [&str; 6] = ["clock", "metric", "secret", "exit", "grade", "lang"];

/// What a module may use besides itself and the leaves. `cli` may use everything.
fn table() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("clock", &[][..]),
        ("metric", &[]),
        ("secret", &[]),
        ("exit", &[]),
        ("grade", &[]),
        ("lang", &[]),
        ("scenario", &[]),
        ("plan", &["scenario"]),
        ("net", &[]),
        ("record", &[]),
        ("account", &[]),
        ("driver", &["scenario", "net", "record", "account", "trace"]),
        ("trace", &["scenario", "net", "record"]),
        ("probe", &["scenario", "net", "record"]),
        ("engine", &["scenario", "plan", "driver", "net", "record", "trace"]),
        ("result", &["record"]),
        ("analysis", &["result", "record", "scenario"]),
        ("verdict", &["result", "analysis", "scenario"]),
        ("report", &["result", "analysis", "verdict", "plan"]),
    ])
}

/// Every module that a text names after `crate::`.
fn named(text: &str) -> BTreeSet<String> {
    text.split("crate::")
        .skip(1)
        .flat_map(|rest| {
            let list = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(rest, |(list, _)| list);
            let whole =
                if rest.starts_with('{') { list } else { rest.split(|c: char| !is_word(c)).next().unwrap_or("") };
            whole
                .split(',')
                .map(|name| name.trim().split(|c: char| !is_word(c)).next().unwrap_or("").to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[test]
fn no_arrow_runs_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = table();
    let files = sources(&root);
    let mut seen = BTreeSet::new();
    for file in &files {
        let relative = file.strip_prefix(&root).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "main" | "lib" | "cli") {
            continue;
        }
        seen.insert(module.to_owned());
        let allowed = table.get(module).unwrap_or_else(|| panic!("{module} is not in the table"));
        for used in named(&fs::read_to_string(file).expect("a source")) {
            let fine = used == module || LEAVES.contains(&used.as_str()) || allowed.contains(&used.as_str());
            assert!(fine, "{} uses crate::{used}, which {module} may not", relative.display());
        }
    }
    assert_eq!(seen, table.keys().map(|name| (*name).to_owned()).collect(), "a module of the table does not exist");
}

#[test]
fn the_reader_of_arrows_reads_all_forms() {
    let names = named("use crate::net::{a, b}; use crate::{plan::X, record}; fn f() { crate::engine::run() }");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["engine", "net", "plan", "record"]);
}

#[test]
fn files_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src", "mock-llm/src", "reference-chat/src"].iter().flat_map(|folder| sources(&root.join(folder))) {
        let lines = fs::read_to_string(&file).expect("a source").lines().count();
        assert!(lines <= 500, "{} has {lines} lines; a file is one idea", file.display());
    }
}
