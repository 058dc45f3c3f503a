//! Conversations as JSONL: one a line, as `{"turns": ["..", ".."]}`.

use serde::Deserialize;

use super::{Found, refusal};

/// A line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) turns: Vec<String>,
}

/// Reads a text; `name` stands before its problems.
pub(super) fn read<'n>(name: &'n str, text: &str) -> Found<'n> {
    let mut found = Found::new(name);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Line>(line) {
            Ok(Line { turns }) if turns.is_empty() => found.problem(index + 1, "has no turns"),
            Ok(Line { turns }) => match turns.iter().find_map(|turn| refusal(turn)) {
                Some(why) => found.problem(index + 1, why),
                None => found.conversations.push(turns),
            },
            Err(error) => {
                let what = format!("{error}; a line is like {{\"turns\": [\"..\", \"..\"]}}");
                found.problem(index + 1, &what);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_its_line() {
        let lines = [
            r#"{"turns":["a"]}"#,
            "",
            r#"{"turns":[]}"#,
            "x",
            r#"{"turns":["a","[[cc:r:1:1]]"]}"#,
            r#"{"turns":[" "]}"#,
        ];
        let error = read("own.jsonl", &lines.join("\n")).settled().unwrap_err().to_string();
        for part in [
            "own.jsonl:3: has no turns",
            "own.jsonl:4: expected value",
            "own.jsonl:5: contains `[[cc:`",
            "own.jsonl:6: has an empty turn",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(read("own.jsonl", "\n").settled().unwrap_err().to_string(), "own.jsonl: has no conversation");
    }
}
