//! The APIs of the mock LLM, each read whole by a client that is not ours: the text is the script of the marker, the
//! journal has the turn, and what goes wrong has each API's own form.

use std::time::Duration;

use eventsource_stream::Eventsource;
use futures_util::{StreamExt, stream};
use mock_llm::journal::{Call, TurnOutcome};
use mock_llm::script::Script;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Mock, raw_exchange, runtime, until};

/// The mock of most tests.
const FAST: &str = "[models.m]\nttft = \"1ms\"\ngap = \"1ms\"\ntokens = 20";
const TOKENS: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Chat,
    Responses,
    Messages,
    Ollama,
}

const ALL: [Api; 4] = [Api::Chat, Api::Responses, Api::Messages, Api::Ollama];

/// What came back; `status` is 0 where not even a head did.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    /// Whether the connection ended before the body did.
    broken: bool,
}

impl Api {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }

    /// A marker of this API's own.
    fn marker(self) -> String {
        format!("cc:formats:{self:?}:0")
    }

    /// A request whose last user message ends with the marker, in parts where the API has them.
    fn request(self, stream: bool) -> Value {
        let prompt = format!("two words [[{}]]", self.marker());
        let before = json!({ "role": "user", "content": "before" });
        let talk = |content: Value| json!([before, { "role": "user", "content": content }]);
        match self {
            Self::Chat => json!({ "model": "m", "stream": stream, "messages": talk(json!(prompt)) }),
            Self::Responses => {
                let parts = json!([{ "type": "input_text", "text": prompt }]);
                json!({ "model": "m", "stream": stream, "input": talk(parts) })
            }
            Self::Messages => {
                let parts = json!([{ "type": "text", "text": prompt }]);
                json!({ "model": "m", "stream": stream, "max_tokens": 1_000, "messages": talk(parts) })
            }
            // Streaming is what it does when nothing is said.
            Self::Ollama if stream => json!({ "model": "m", "messages": talk(json!(prompt)) }),
            Self::Ollama => json!({ "model": "m", "stream": false, "messages": talk(json!(prompt)) }),
        }
    }

    /// The named pieces of a stream that are JSON, in order; Ollama's and chat completions' have no names.
    fn pieces(self, body: &str) -> Vec<(String, Value)> {
        let named: Vec<(String, String)> = match self {
            Self::Ollama => body.lines().map(|line| (String::new(), line.to_owned())).collect(),
            _ => events(body),
        };
        named.into_iter().filter_map(|(name, data)| Some((name, serde_json::from_str(&data).ok()?))).collect()
    }

    /// What the tokens of a stream say, each for itself.
    fn tokens(self, body: &str) -> Vec<String> {
        let token = |(name, data): &(String, Value)| {
            let text = match self {
                Self::Chat => data["choices"][0]["delta"]["content"].as_str(),
                Self::Responses if name == "response.output_text.delta" => data["delta"].as_str(),
                Self::Messages if name == "content_block_delta" => data["delta"]["text"].as_str(),
                Self::Ollama => data["message"]["content"].as_str(),
                Self::Responses | Self::Messages => None,
            };
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        self.pieces(body).iter().filter_map(token).collect()
    }

    /// Whether a stream ends with what tells that it is whole.
    fn is_whole(self, body: &str) -> bool {
        let pieces = self.pieces(body);
        let (name, data) = pieces.last().expect("a stream");
        match self {
            Self::Chat => body.ends_with("\n\ndata: [DONE]\n\n"),
            Self::Responses => name == "response.completed" && !body.contains("[DONE]"),
            Self::Messages => name == "message_stop",
            Self::Ollama => data["done"] == true && body.ends_with('\n'),
        }
    }

    /// The text of a reply that is not streamed.
    fn whole_text(self, value: &Value) -> &Value {
        match self {
            Self::Chat => &value["choices"][0]["message"]["content"],
            Self::Responses => &value["output"][0]["content"][0]["text"],
            Self::Messages => &value["content"][0]["text"],
            Self::Ollama => &value["message"]["content"],
        }
    }
}

/// Server-sent events, with a message of no name as `message`.
fn events(body: &str) -> Vec<(String, String)> {
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = vec![Ok(body.as_bytes().to_vec())];
    let events = stream::iter(pieces).eventsource().map(|event| {
        let event = event.expect("an event");
        (event.event, event.data)
    });
    runtime().block_on(events.collect())
}

fn ask(mock: &Mock, api: Api, body: &Value, headers: &[(&'static str, &str)], patience: Duration) -> Answer {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = capacity_check::net::client_config(&capacity_check::net::TlsSettings::default()).unwrap();
    let client = capacity_check::net::shared_client(&tls).unwrap();
    runtime().block_on(async {
        let mut request = client.post(format!("{}{}", mock.api, api.path())).json(body).timeout(patience);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = Answer { status: 0, headers: HeaderMap::new(), body: String::new(), broken: true };
        let Ok(mut response) = request.send().await else { return answer };
        answer.status = response.status().as_u16();
        answer.headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Ok(piece) = response.chunk().await {
            let Some(piece) = piece else {
                answer.broken = false;
                break;
            };
            bytes.extend_from_slice(&piece);
        }
        answer.body = String::from_utf8(bytes).expect("UTF-8");
        answer
    })
}

fn asked(mock: &Mock, api: Api, stream: bool) -> Answer {
    ask(mock, api, &api.request(stream), &[], Duration::from_secs(10))
}

/// The reply to a marker, word by word.
fn scripted(marker: &str) -> Vec<String> {
    let mut script = Script::traced(marker).of_length(TOKENS as u64);
    let mut words = Vec::new();
    for _ in 0..TOKENS {
        let mut word = " ".to_owned();
        script.write_word(&mut word);
        words.push(word);
    }
    words
}

/// An answer that is an error: OpenAI's code, Anthropic's type, a part of Ollama's text.
fn is_refused(api: Api, answer: &Answer, status: u16, [openai, anthropic, ollama]: [&str; 3]) {
    assert_eq!(answer.status, status, "{api:?}: {}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json");
    let value: Value = serde_json::from_str(&answer.body).expect("JSON");
    match api {
        Api::Chat | Api::Responses => assert_eq!(value["error"]["code"], openai),
        Api::Messages => {
            assert_eq!(value["type"], "error");
            assert_eq!(value["error"]["type"], anthropic);
        }
        Api::Ollama => assert!(value["error"].as_str().expect("a text").contains(ollama), "{value}"),
    }
}

#[test]
fn every_api_streams_the_script_of_the_marker_and_the_journal_has_the_turn() {
    let mock = Mock::start(FAST);
    for api in ALL {
        let answer = asked(&mock, api, true);
        assert_eq!((answer.status, answer.broken), (200, false), "{api:?}");
        let kind = if api == Api::Ollama { "application/x-ndjson" } else { "text/event-stream" };
        assert_eq!(answer.headers["content-type"], kind);
        assert_eq!(api.tokens(&answer.body), scripted(&api.marker()), "{api:?}");
        assert!(api.is_whole(&answer.body), "{}", answer.body);
    }
    until("the journal has all", || mock.turns().len() == ALL.len());
    for api in ALL {
        let turns = mock.turns();
        let turn = turns.iter().find(|turn| turn.marker == Some(api.marker())).expect("the turn");
        assert_eq!((turn.outcome, turn.call, turn.stream), (TurnOutcome::Completed, Some(Call::Turn), true));
        assert_eq!((turn.model.as_str(), turn.tokens), ("m", TOKENS as u64));
        assert_eq!(turn.sends_us.as_ref().map(Vec::len), Some(TOKENS));
    }
}

#[test]
fn each_token_is_a_chunk_of_its_own() {
    let mock = Mock::start(FAST);
    for api in ALL {
        let (_, body) = raw_exchange(&mock.api, "POST", api.path(), "application/json", &api.request(true).to_string());
        let (mut rest, mut chunks) = (body.as_str(), Vec::new());
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).expect("a size");
            let (chunk, after) = after.split_at(size);
            chunks.extend((size > 0).then_some(chunk));
            rest = after.strip_prefix("\r\n").expect("a chunk's end");
        }
        // Ollama has nothing to say before the first token.
        let heads = usize::from(api != Api::Ollama);
        assert_eq!(chunks.len(), heads + TOKENS + 1, "{api:?}");
        let tokens = &chunks[heads..heads + TOKENS];
        for (chunk, word) in tokens.iter().zip(scripted(&api.marker())) {
            assert!(chunk.contains(&format!("\"{word}\"")), "{api:?}: {word} in {chunk}");
        }
    }
}

#[test]
fn every_api_answers_whole_where_it_is_asked_to() {
    let mock = Mock::start(FAST);
    for api in ALL {
        let answer = asked(&mock, api, false);
        assert_eq!((answer.status, answer.broken), (200, false), "{api:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
        let value: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(*api.whole_text(&value), *scripted(&api.marker()).concat(), "{api:?}");
        let turns = mock.turns();
        let turn = turns.iter().find(|turn| turn.marker == Some(api.marker())).expect("the turn");
        assert_eq!((turn.outcome, turn.stream), (TurnOutcome::Completed, false));
        assert_eq!(turn.tokens, TOKENS as u64);
    }
}

#[test]
fn usage_and_ends_are_told_as_each_api_tells_them() {
    let mock = Mock::start(FAST);
    let last = |api: Api, also: Value| {
        let mut request = api.request(true);
        request.as_object_mut().unwrap().extend(also.as_object().unwrap().clone());
        let answer = ask(&mock, api, &request, &[], Duration::from_secs(10));
        api.pieces(&answer.body)
    };
    // The prompt has three words, the marker among them.
    let pieces = last(Api::Responses, json!({}));
    let (name, data) = &pieces[pieces.len() - 1];
    assert_eq!(name, "response.completed");
    assert_eq!(data["response"]["usage"]["input_tokens"], 3);
    assert_eq!(data["response"]["usage"]["output_tokens"], TOKENS);
    assert_eq!(*Api::Responses.whole_text(&data["response"]), *scripted(&Api::Responses.marker()).concat());
    for (number, (_, data)) in pieces.iter().enumerate() {
        assert_eq!(data["sequence_number"], number);
    }
    let pieces = last(Api::Responses, json!({ "max_output_tokens": 4 }));
    assert_eq!(pieces[pieces.len() - 1].0, "response.incomplete");

    let pieces = last(Api::Messages, json!({ "max_tokens": 4 }));
    let names: Vec<&str> = pieces.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(names[7..], ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(pieces[0].1["message"]["usage"]["input_tokens"], 3);
    assert_eq!(pieces[8].1["usage"]["output_tokens"], 4);
    assert_eq!(pieces[8].1["delta"]["stop_reason"], "max_tokens");

    let pieces = last(Api::Ollama, json!({ "options": { "num_predict": 4 } }));
    assert_eq!(pieces.len(), 5);
    let data = &pieces[4].1;
    assert_eq!((&data["done_reason"], &data["eval_count"]), (&json!("length"), &json!(4)));
    assert_eq!(data["prompt_eval_count"], 3);
    let nanoseconds = |name: &str| data[name].as_u64().expect("a number");
    assert_eq!(nanoseconds("prompt_eval_duration"), 1_000_000);
    // Three gaps of a millisecond, on an absolute schedule: never less.
    assert!(nanoseconds("eval_duration") >= 3_000_000, "{data}");
}

#[test]
fn refusals_have_each_api_s_own_form() {
    for api in ALL {
        let mock = Mock::start(&format!("{FAST}\nrate_limit = {{ requests = 1, per = \"60s\" }}"));
        let first = asked(&mock, api, true);
        assert_eq!(first.status, 200);
        let second = asked(&mock, api, true);
        is_refused(api, &second, 429, ["rate_limit_exceeded", "rate_limit_error", "Rate limit reached"]);
        let after: u64 = second.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((50..=60).contains(&after), "{after}");
        let remaining = match api {
            Api::Chat | Api::Responses => Some("x-ratelimit-remaining-requests"),
            Api::Messages => Some("anthropic-ratelimit-requests-remaining"),
            Api::Ollama => None,
        };
        for answer in [&first, &second] {
            assert!(remaining.is_none_or(|name| answer.headers[name] == "0"), "{:?}", answer.headers);
        }
        let mut unknown = api.request(true);
        unknown["model"] = json!("none");
        let answer = ask(&mock, api, &unknown, &[], Duration::from_secs(10));
        is_refused(api, &answer, 404, ["model_not_found", "not_found_error", "The model `none` does not exist"]);
        let answer = ask(&mock, api, &json!({ "model": "m" }), &[], Duration::from_secs(10));
        is_refused(api, &answer, 400, ["invalid_request", "invalid_request_error", "missing field `messages`"]);
        let outcomes: Vec<TurnOutcome> = mock.turns().iter().map(|turn| turn.outcome).collect();
        let expected =
            [TurnOutcome::Completed, TurnOutcome::RateLimited, TurnOutcome::UnknownModel, TurnOutcome::BadRequest];
        assert_eq!(outcomes, expected, "{api:?}");
    }
}

#[test]
fn the_key_is_the_bearer_and_with_messages_also_x_api_key() {
    let mock = Mock::start(&format!("api_key = \"right\"\n{FAST}"));
    let version = ("anthropic-version", "2023-06-01");
    for api in ALL {
        let with =
            |headers: &[(&'static str, &str)]| ask(&mock, api, &api.request(true), headers, Duration::from_secs(10));
        assert_eq!(with(&[("authorization", "Bearer right")]).status, 200, "{api:?}");
        let wrong: [&[(&str, &str)]; 3] =
            [&[], &[("authorization", "Bearer wrong")], &[("x-api-key", "wrong"), version]];
        for headers in wrong {
            is_refused(api, &with(headers), 401, ["invalid_api_key", "authentication_error", "Incorrect API key"]);
        }
        let status = if api == Api::Messages { 200 } else { 401 };
        assert_eq!(with(&[("x-api-key", "right"), version]).status, status, "{api:?}");
    }
}

/// One streamed request to a mock with this fault, and how the journal has it.
fn with_fault(api: Api, fault: &str, patience: Duration) -> (Answer, TurnOutcome, u64) {
    let mock = Mock::start(&format!("{FAST}\nfaults = {{ {fault} = 1 }}"));
    let answer = ask(&mock, api, &api.request(true), &[], patience);
    until("the journal has it", || mock.turns().len() == 1);
    let turns = mock.turns();
    (answer, turns[0].outcome, turns[0].tokens)
}

#[test]
fn faults_that_are_answers_have_each_api_s_own_form() {
    for api in ALL {
        let (answer, outcome, _) = with_fault(api, "http_500", Duration::from_secs(10));
        is_refused(api, &answer, 500, ["planned_error", "api_error", "planned error"]);
        assert_eq!(outcome, TurnOutcome::Http500);
        let (answer, outcome, _) = with_fault(api, "http_503", Duration::from_secs(10));
        is_refused(api, &answer, 503, ["planned_error", "overloaded_error", "planned error"]);
        assert_eq!(outcome, TurnOutcome::Http503);
    }
}

#[test]
fn an_error_inside_a_stream_has_each_api_s_own_form() {
    for api in ALL {
        let (answer, outcome, tokens) = with_fault(api, "error_event", Duration::from_secs(10));
        assert_eq!((answer.status, answer.broken, outcome), (200, false, TurnOutcome::ErrorEvent));
        let said = api.tokens(&answer.body);
        assert_eq!(said.len() as u64, tokens);
        assert_eq!(said[..], scripted(&api.marker())[..said.len()], "{api:?}");
        let pieces = api.pieces(&answer.body);
        let (name, data) = &pieces[pieces.len() - 1];
        match api {
            Api::Chat => assert_eq!(data["error"]["code"], "mock_error_event"),
            Api::Responses => {
                assert_eq!((name.as_str(), &data["response"]["status"]), ("response.failed", &json!("failed")));
                let (name, data) = &pieces[pieces.len() - 2];
                assert_eq!((name.as_str(), &data["message"]), ("error", &json!("planned error")));
                assert_eq!(data["sequence_number"], pieces.len() - 2);
            }
            Api::Messages => {
                assert_eq!((name.as_str(), &data["type"]), ("error", &json!("error")));
                assert_eq!(data["error"], json!({ "type": "api_error", "message": "planned error" }));
            }
            Api::Ollama => assert_eq!(*data, json!({ "error": "planned error" })),
        }
    }
}

#[test]
fn a_stream_without_its_end_and_one_that_is_spoilt() {
    for api in ALL {
        let (answer, outcome, _) = with_fault(api, "no_done", Duration::from_secs(10));
        assert_eq!((answer.status, answer.broken, outcome), (200, false, TurnOutcome::NoDone));
        assert_eq!(api.tokens(&answer.body), scripted(&api.marker()), "{api:?}");
        assert!(!api.is_whole(&answer.body), "{}", answer.body);

        let (answer, outcome, tokens) = with_fault(api, "malformed_json", Duration::from_secs(10));
        assert_eq!((answer.broken, outcome), (false, TurnOutcome::MalformedJson));
        assert!(answer.body.contains("\" half\n") && api.is_whole(&answer.body), "{}", answer.body);
        let said = api.tokens(&answer.body);
        assert_eq!(said[..], scripted(&api.marker())[..TOKENS - 1], "{api:?}");
        assert_eq!(tokens, TOKENS as u64 - 1, "the spoilt one counts as none");
        if api == Api::Responses {
            let pieces = api.pieces(&answer.body);
            let (_, data) = pieces.last().expect("a stream");
            assert_eq!(*api.whole_text(&data["response"]), *said.concat(), "what was said is said again");
        }
    }
}

#[test]
fn resets_and_silence_are_alike_in_every_api() {
    std::thread::scope(|scope| {
        for api in ALL {
            scope.spawn(move || {
                let (answer, outcome, tokens) = with_fault(api, "reset", Duration::from_secs(10));
                assert!(answer.broken && outcome == TurnOutcome::Reset, "{api:?}");
                assert!(tokens > 0 && tokens < TOKENS as u64, "{api:?}: {tokens}");
                let (answer, outcome, tokens) = with_fault(api, "stall", Duration::from_secs(1));
                assert!(answer.broken && outcome == TurnOutcome::Stall, "{api:?}");
                assert_eq!(api.tokens(&answer.body).len() as u64, tokens);
            });
        }
    });
}
