//! Golden files: what something was, so that a change is seen. `UPDATE_GOLDEN=1` writes them anew.

use std::fs;

use super::root;

fn is_updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Holds a text against its file.
pub(crate) fn hold(path: &str, text: &str) {
    let file = root().join(path);
    if is_updating() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        return;
    }
    let before = fs::read_to_string(&file).unwrap_or_default();
    if before == text {
        return;
    }
    let first = before.lines().zip(text.lines()).find(|(before, now)| before != now);
    panic!(
        "{path} is not as it was; where that is right, run the tests with UPDATE_GOLDEN=1. First change: {first:#?}"
    );
}

/// Writes a file that others are made of, where golden files are written anew.
pub(crate) fn keep(path: &str, text: &str) {
    if is_updating() {
        hold(path, text);
    }
}
