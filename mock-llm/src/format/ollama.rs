//! Ollama's chat (<https://docs.ollama.com/api/chat>): one JSON object a line, streamed unless told otherwise.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::frames::Stamp;
use super::{Asked, Closing, Envelope, Facts, Format, Message, Spoken, last_of_user};

pub(super) const MALFORMED_FRAME: &str = "{\"message\":{\"role\":\"assistant\",\"content\":\" half\n";
pub(super) const MALFORMED_BODY: &str = "{\"message\":{";

/// The parts of a request that the mock reads.
#[derive(Deserialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
    stream: Option<bool>,
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    /// Negative is without end.
    num_predict: Option<i64>,
}

pub(super) fn read(body: &[u8]) -> serde_json::Result<Asked> {
    let request: Request = serde_json::from_slice(body)?;
    let limit = request.options.and_then(|options| options.num_predict);
    Ok(Asked {
        format: Format::Ollama,
        prompt: last_of_user(&request.messages),
        model: request.model,
        stream: request.stream.unwrap_or(true),
        limit: limit.and_then(|limit| u64::try_from(limit).ok()),
        usage: true,
    })
}

pub(super) fn envelope(facts: &Facts) -> Envelope {
    Envelope {
        head: String::new(),
        before: format!("{{\"model\":{},\"created_at\":\"", json!(facts.model)),
        stamp: Stamp::Moment,
        between: "\",\"message\":{\"role\":\"assistant\",\"content\":\"".to_owned(),
        after: "\"},\"done\":false}\n",
    }
}

/// What ends a reply. Durations are nanoseconds.
#[derive(Serialize)]
struct Last<'a> {
    model: &'a str,
    created_at: String,
    message: Said<'a>,
    done: bool,
    done_reason: &'static str,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u64,
    prompt_eval_duration: u64,
    eval_count: u64,
    eval_duration: u64,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    content: &'a str,
}

fn last(facts: &Facts, spoken: &Spoken, content: &str) -> String {
    let line = Last {
        model: &facts.model,
        created_at: humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string(),
        message: Said { role: "assistant", content },
        done: true,
        done_reason: if facts.cut { "length" } else { "stop" },
        total_duration: spoken.taken.as_nanos() as u64,
        load_duration: 0,
        prompt_eval_count: facts.prompt_tokens,
        prompt_eval_duration: spoken.ttft.as_nanos() as u64,
        eval_count: facts.tokens,
        eval_duration: spoken.taken.saturating_sub(spoken.ttft).as_nanos() as u64,
    };
    // Texts and numbers always make a JSON.
    serde_json::to_string(&line).unwrap_or_default()
}

pub(super) fn closing(facts: &Facts, spoken: &Spoken) -> Closing {
    Closing { rest: String::new(), terminal: last(facts, spoken, "") + "\n" }
}

pub(super) fn error_frame() -> String {
    format!("{}\n", error("planned error"))
}

pub(super) fn whole(facts: &Facts, spoken: &Spoken) -> String {
    last(facts, spoken, &spoken.text)
}

/// As of <https://docs.ollama.com/api/errors>.
pub(super) fn error(message: &str) -> Value {
    json!({ "error": message })
}

#[cfg(test)]
mod tests {
    use super::super::frames::sample::{WORDS, facts, scripted, spoken, tokens};
    use super::*;

    #[test]
    fn lines_say_the_script_and_the_last_one_counts() {
        let facts = facts(Format::Ollama, false);
        assert_eq!(envelope(&facts).head, "");
        let Closing { rest, terminal } = closing(&facts, &spoken(String::new()));
        assert_eq!(rest, "");
        let stream = tokens(&facts).0.concat() + &terminal;
        let lines: Vec<Value> = stream.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len() as u64, WORDS + 1);
        let text: String = lines.iter().map(|line| line["message"]["content"].as_str().expect("a text")).collect();
        assert_eq!(text, scripted());
        for (place, line) in lines.iter().enumerate() {
            assert_eq!((&line["model"], &line["message"]["role"]), (&json!("m"), &json!("assistant")));
            assert_eq!(line["done"], place as u64 == WORDS);
            let moment = line["created_at"].as_str().expect("a text");
            assert!(humantime::parse_rfc3339(moment).is_ok() && moment.len() == 27, "{moment}");
        }
        let last = lines.last().expect("lines");
        assert_eq!(last["done_reason"], "stop");
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(3), &json!(WORDS)));
        assert_eq!(
            (&last["total_duration"], &last["prompt_eval_duration"], &last["eval_duration"]),
            (&json!(100_000_000), &json!(30_000_000), &json!(70_000_000))
        );
    }

    #[test]
    fn a_reply_that_the_limit_cut_says_so() {
        assert!(whole(&facts(Format::Ollama, true), &spoken(scripted())).contains("\"done_reason\":\"length\""));
    }

    #[test]
    fn an_error_inside_is_a_line() {
        assert_eq!(error_frame(), "{\"error\":\"planned error\"}\n");
    }
}
