//! A scenario from its text: every problem at once, each with its place and a hint.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use mock_llm::{kind, unknown};
use serde_json::Value;
use toml::de::DeTable;

use super::file::ScenarioFile;
use super::place::{Place, Places, join};

/// A scenario that was read, with the places of its keys.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// What is written.
    pub file: ScenarioFile,
    /// Where it stands.
    pub places: Places,
}

/// Something wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where, if that is known.
    pub place: Option<Place>,
    /// The path of the key; empty where the text is no TOML.
    pub path: String,
    /// What, and what would be right.
    pub message: String,
}

/// The JSON Schema of a scenario (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(ScenarioFile).to_value();
    bound(&mut schema);
    schema
}

/// Gives whole numbers the bounds of their types.
fn bound(part: &mut Value) {
    if part.get("format").and_then(Value::as_str) == Some("uint32") {
        part["maximum"] = Value::from(u32::MAX);
    }
    match part {
        Value::Object(entries) => entries.values_mut().for_each(bound),
        Value::Array(values) => values.iter_mut().for_each(bound),
        _ => {}
    }
}

/// Reads a TOML text.
///
/// # Errors
/// Every problem of its form, in the order of the text: what is no TOML, unknown keys, wrong types.
pub fn read(text: &str) -> Result<Written, Vec<Wrong>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let wrong = |error: &toml::de::Error| Wrong {
            place: error.span().map(|span| Place::of(text, span.start)),
            path: String::new(),
            message: error.message().to_owned(),
        };
        let mut problems: Vec<Wrong> = errors.iter().map(wrong).collect();
        problems.sort_by_key(|problem| problem.place);
        return Err(problems);
    }
    let places = Places::new(text, table.get_ref());
    let alone = |message: String| vec![Wrong { place: None, path: String::new(), message }];
    let tree: toml::Table = toml::from_str(text).map_err(|error| alone(error.to_string()))?;
    let tree = serde_json::to_value(tree).map_err(|error| alone(error.to_string()))?;
    let schema = schema();
    let validator: Validator = jsonschema::validator_for(&schema).map_err(|error| alone(error.to_string()))?;
    let mut problems = Vec::new();
    not_finite("", &tree, &places, &mut problems);
    for error in validator.iter_errors(&tree) {
        tell(&error, &schema, &places, &mut problems);
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.place);
        return Err(problems);
    }
    // The schema has let it pass; a number beyond the range of its type is left.
    let file = serde_json::from_value(tree).map_err(|error| alone(error.to_string()))?;
    Ok(Written { file, places })
}

/// TOML knows `nan` and `inf`, which JSON does not: they arrive as nothing.
fn not_finite(path: &str, tree: &Value, places: &Places, problems: &mut Vec<Wrong>) {
    match tree {
        Value::Null => {
            let message = "is no number to count with".to_owned();
            problems.push(Wrong { place: places.find(path), path: path.to_owned(), message });
        }
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| not_finite(&join(path, key), value, places, problems));
        }
        Value::Array(values) => {
            let below =
                |(index, value): (usize, &Value)| not_finite(&format!("{path}[{index}]"), value, places, problems);
            values.iter().enumerate().for_each(below);
        }
        _ => {}
    }
}

/// Puts one error of the validator into words.
fn tell(error: &ValidationError<'_>, schema: &Value, places: &Places, problems: &mut Vec<Wrong>) {
    let path = path_of(&error.instance_path().to_string());
    let mut add = |path: String, message: String| {
        problems.push(Wrong { place: places.find(&path), path, message });
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = properties(schema, &error.instance_path().to_string());
            for name in unexpected {
                add(join(&path, name), unknown("key", name, known.iter().map(String::as_str)));
            }
        }
        ValidationErrorKind::Type { kind: types } => {
            let is = kind(error.instance());
            add(path, format!("is {is}, but should be {}", wanted(types)));
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let value = error.instance().as_str().map_or_else(|| error.instance().to_string(), str::to_owned);
            add(path, unknown("value", &value, options.iter().copied()));
        }
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            // A closed set of words: schemars writes one `const` a word where the words have descriptions.
            let words: Vec<String> = context.iter().flatten().filter_map(constant).collect();
            match error.instance().as_str() {
                Some(value) if !words.is_empty() => {
                    add(path, unknown("value", value, words.iter().map(String::as_str)));
                }
                _ if !words.is_empty() => add(path, format!("should be one of {}", words.join(", "))),
                _ => context.iter().take(1).flatten().for_each(|error| tell(error, schema, places, problems)),
            }
        }
        ValidationErrorKind::Required { property } => {
            add(path, format!("`{}` is missing", property.as_str().unwrap_or_default()));
        }
        ValidationErrorKind::Minimum { limit } => {
            add(path, format!("is {}, but should be {limit} or more", error.instance()));
        }
        ValidationErrorKind::Maximum { limit } => {
            add(path, format!("is {}, but should be {limit} or less", error.instance()));
        }
        _ => add(path, error.to_string()),
    }
}

/// The word of an error that says that a value is not that word.
fn constant(error: &ValidationError<'_>) -> Option<String> {
    match error.kind() {
        ValidationErrorKind::Constant { expected_value } => expected_value.as_str().map(str::to_owned),
        _ => None,
    }
}

/// A JSON pointer as a path.
fn path_of(pointer: &str) -> String {
    segments(pointer).fold(String::new(), |path, segment| match segment.parse::<usize>() {
        Ok(index) if !path.is_empty() => format!("{path}[{index}]"),
        _ => join(&path, &segment),
    })
}

fn segments(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}

/// The keys that a schema knows at a JSON pointer.
fn properties(schema: &Value, pointer: &str) -> Vec<String> {
    let mut at = resolved(schema, schema);
    for segment in segments(pointer) {
        let below = at.get("properties").and_then(|properties| properties.get(&segment)).or_else(|| at.get("items"));
        at = below.map_or(&Value::Null, |below| resolved(schema, below));
    }
    at.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// A part of a schema, or what it refers to.
fn resolved<'s>(schema: &'s Value, mut part: &'s Value) -> &'s Value {
    while let Some(target) = part.get("$ref").and_then(Value::as_str) {
        part = schema.pointer(target.trim_start_matches('#')).unwrap_or(&Value::Null);
    }
    part
}

fn wanted(kind: &TypeKind) -> String {
    let word = |name: &str| match name {
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        _ => "",
    };
    let names: Vec<String> = match kind {
        TypeKind::Single(single) => vec![single.to_string()],
        TypeKind::Multiple(set) => set.iter().map(|single| single.to_string()).collect(),
    };
    let words: Vec<&str> = names.iter().map(|name| word(name)).filter(|word| !word.is_empty()).collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let wrong = read(text).unwrap_err();
        wrong
            .iter()
            .map(|wrong| {
                format!("{} {}: {}", wrong.place.map_or_else(String::new, |p| p.to_string()), wrong.path, wrong.message)
            })
            .collect()
    }

    #[test]
    fn every_problem_has_its_place_and_a_hint() {
        let text = "seed = \"x\"\n[load]\nusrs = 5\nramp = 3\n\n[target]\nprofile = \"librchat\"\n\
                    [[tiers]]\nusers = 5\nexpect = \"wran\"\n\
                    [budgets.ttft]\np59 = { pass = \"1s\" }\np95 = { warn = \"1s\" }\n[budgets]\nerror_rate = true\n";
        assert_eq!(
            problems(text),
            [
                "1:1 seed: is a text, but should be a whole number",
                "3:1 load.usrs: unknown key `usrs`; did you mean `users`?",
                "4:1 load.ramp: is a number, but should be a text",
                "7:1 target.profile: unknown value `librchat`; did you mean `librechat`?",
                "10:1 tiers[0].expect: unknown value `wran`; did you mean `warn`?",
                "12:1 budgets.ttft.p59: unknown key `p59`; did you mean `p50`?",
                "13:1 budgets.ttft.p95: `pass` is missing",
                "15:1 budgets.error_rate: is true or false, but should be a table",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_all_its_places() {
        let told = problems("a = \nb = 1\nc = [1,\n");
        assert!(told.len() >= 2 && told[0].starts_with("1:"), "{told:?}");
        assert!(problems("seed = -1\n")[0].contains("should be 0 or more"));
        assert!(problems("seed = 1\nseed = 2\n")[0].starts_with("2:1"));
        assert_eq!(
            problems("[load]\nusers = 5000000000\nshards = 1\n[accounts]\nlogin_rate = nan\n"),
            [
                "2:1 load.users: is 5000000000, but should be 4294967295 or less",
                "5:1 accounts.login_rate: is no number to count with"
            ]
        );
    }

    #[test]
    fn the_schema_knows_every_section() {
        let schema = schema();
        let known = properties(&schema, "");
        for name in ["target", "accounts", "journey", "load", "mock", "reference", "budgets", "guards", "output"] {
            assert!(known.contains(&name.to_owned()), "{name}");
        }
        assert!(properties(&schema, "/tiers/0/budgets/ttft").contains(&"p95".to_owned()));
    }
}
