//! A result from its file, whatever version has written it.

use serde_json::{Value, json};

use super::{RunResult, SCHEMA_VERSION};

/// Why a text is no result that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No JSON at all.
    #[error("it is no JSON: {0}")]
    Json(serde_json::Error),
    /// JSON of something else.
    #[error("it is no result of capacity-check: it has no schema_version")]
    Foreign,
    /// Made by a version that is yet to come.
    #[error(
        "it has schema version {found}, and this version of capacity-check reads up to {SCHEMA_VERSION}; use the newer one that has written it"
    )]
    Newer {
        /// What it says.
        found: u64,
    },
    /// A result that does not hold to its form.
    #[error("it does not hold to schema version {version}: {source}")]
    Form {
        /// What it says.
        version: u64,
        /// Where it does not.
        source: serde_json::Error,
    },
}

/// Reads a result of this version or an older one.
///
/// # Errors
/// What stands in the way.
pub fn read(text: &str) -> Result<RunResult, ReadError> {
    let mut value: Value = serde_json::from_str(text).map_err(ReadError::Json)?;
    let version = value.get("schema_version").and_then(Value::as_u64).ok_or(ReadError::Foreign)?;
    if version > u64::from(SCHEMA_VERSION) {
        return Err(ReadError::Newer { found: version });
    }
    if version < 2 {
        from_version_1(&mut value);
    }
    if version < 3 {
        from_version_2(&mut value);
    }
    serde_json::from_value(value).map_err(|source| ReadError::Form { version, source })
}

/// Version 1 had its reasons as English sentences, tiers as numbers, and did not say what was asked.
fn from_version_1(value: &mut Value) {
    value["schema_version"] = json!(2);
    if let Some(asked) = value["scenario"]["load"]["tiers"].as_array().and_then(|tiers| tiers.last()).cloned() {
        value["asked"] = asked;
    }
    // Those of tiers were repeated for the run, as "500 users: ..".
    let own = |text: &str| text.split_once(" users: ").is_none_or(|(users, _)| users.parse::<u32>().is_err());
    let reasons = value["reasons"].as_array().cloned().unwrap_or_default();
    let reasons = reasons.iter().filter(|reason| reason.as_str().is_some_and(own)).map(sentence);
    value["reasons"] = reasons.collect();
    if value["end"]["how"] == "guard" {
        rewrite(value.pointer_mut("/end/detail"));
    }
    for tier in value.get_mut("tiers").and_then(Value::as_array_mut).into_iter().flatten() {
        for reason in tier.get_mut("reasons").and_then(Value::as_array_mut).into_iter().flatten() {
            rewrite(Some(reason));
        }
        for budget in tier.get_mut("budgets").and_then(Value::as_array_mut).into_iter().flatten() {
            rewrite(budget.get_mut("reason"));
        }
    }
}

/// Version 2 called tokens that came late unseen.
fn from_version_2(value: &mut Value) {
    value["schema_version"] = json!(3);
    let rename = |counts: &mut Value| {
        if let Some(counts) = counts.as_object_mut()
            && let Some(late) = counts.remove("unseen_tokens")
        {
            counts.insert("late_tokens".to_owned(), late);
        }
    };
    value.get_mut("tiers").and_then(Value::as_array_mut).into_iter().flatten().for_each(rename);
    value.get_mut("totals").into_iter().for_each(rename);
}

fn rewrite(text: Option<&mut Value>) {
    if let Some(text) = text {
        *text = sentence(text);
    }
}

fn sentence(text: &Value) -> Value {
    json!({ "code": "text", "text": text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_result_is_said() {
        let error = |text: &str| read(text).unwrap_err().to_string();
        assert!(error("{").starts_with("it is no JSON: "));
        assert_eq!(error("{}"), "it is no result of capacity-check: it has no schema_version");
        assert!(error("{\"schema_version\": 99}").contains("schema version 99"));
        assert!(error("{\"schema_version\": 2}").contains("missing field"));
        assert!(error("{\"schema_version\": 3}").contains("missing field"));
        assert!(error("{\"schema_version\": 1}").contains("missing field"));
        // Whatever stands where a table should, it is told and no panic.
        for tiers in ["3", "[3]", "[{\"reasons\": 3, \"budgets\": [3]}]"] {
            let text = format!("{{\"schema_version\": 1, \"tiers\": {tiers}, \"end\": 3, \"scenario\": 3}}");
            assert!(error(&text).starts_with("it does not hold to schema version 1"), "{tiers}");
        }
    }
}
