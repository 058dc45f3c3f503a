//! Protocols over HTTP as scenarios describe them, and small servers that speak them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use capacity_check::clock;
use capacity_check::driver::sse::Sse;
use capacity_check::driver::{Driver, Prompt};
use capacity_check::net::{Endpoint, TlsSettings, client_config};
use capacity_check::record::Turn;
use capacity_check::scenario::{
    After, Condition, Disturb, Disturbance, Field, Framing, Part, ReplyRules, RequestPlan, Resume, Site, Source,
    SsePlan, Template, TokenAt,
};
use capacity_check::secret::Secret;
use http::{HeaderName, Method};
use serde_json::{Value, json};

use super::chat::{hello, say};
use super::{Server, limits, runtime};

/// What a server was asked: heads with names as they were sent, and bodies.
pub(crate) type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers every request by its first line and how often that line has come; an answer that says that it
/// closes ends its connection.
pub(crate) fn server(asked: &Asked, answer: impl Fn(&str, usize) -> String + Send + Sync + 'static) -> Server {
    let asked = Arc::clone(asked);
    Server::start(move |mut stream, _| {
        while let Some((head, body)) = heard(&stream) {
            let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
            let before = {
                let mut asked = asked.lock().unwrap();
                let before = asked.iter().filter(|(head, _)| head.starts_with(&format!("{line} "))).count();
                asked.push((head, body));
                before
            };
            let answer = answer(&line, before);
            if stream.write_all(answer.as_bytes()).is_err() || answer.contains("Connection: close") {
                return;
            }
        }
    })
}

/// Reads one request.
pub(crate) fn heard(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

/// A whole answer, after which the connection stays open.
pub(crate) fn whole(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn refused(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno")
}

pub(crate) fn heads(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
}

pub(crate) fn lines(asked: &Asked) -> Vec<String> {
    heads(asked).iter().map(|head| head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned()).collect()
}

const KNOWN: [&str; 8] = ["prompt", "messages", "user.number", "user.token", "stream", "token", "csrf", "chat"];

fn template(text: &str) -> Template {
    Template::parse(text, &KNOWN).unwrap()
}

pub(crate) fn get(path: &str) -> RequestPlan {
    RequestPlan { method: Method::GET, path: template(path), headers: Vec::new(), body: None, capture: Vec::new() }
}

pub(crate) fn post(path: &str, body: &str) -> RequestPlan {
    RequestPlan { method: Method::POST, body: Some(template(body)), ..get(path) }
}

pub(crate) fn brings(name: &str, pointer: &str) -> Vec<(String, Source)> {
    vec![(name.to_owned(), Source::Pointer(pointer.to_owned()))]
}

pub(crate) fn with(name: &'static str, value: &str, plan: RequestPlan) -> RequestPlan {
    RequestPlan { headers: vec![(HeaderName::from_static(name), template(value))], ..plan }
}

/// `{"t": token}`, until `{"done": true}`.
pub(crate) fn rules() -> ReplyRules {
    let field = Field { at: Part::Pointer("/done".to_owned()), is: Some(Value::Bool(true)) };
    ReplyRules {
        token: TokenAt::Pointer("/t".to_owned()),
        token_when: None,
        end: Some(Condition::All(vec![field])),
        end_with_body: false,
        error: Some(Condition::All(vec![Field { at: Part::Pointer("/error".to_owned()), is: None }])),
        error_text: None,
        rate_limited: None,
        retry_after: None,
        heartbeat: None,
        capture: vec![("chat".to_owned(), "/chat".to_owned())],
    }
}

/// A POST that answers with the stream.
pub(crate) fn one_step() -> SsePlan {
    SsePlan {
        preset: None,
        request: post("/say", r#"{"text": "{{prompt}}", "chat": "{{chat}}"}"#),
        stream: None,
        cancel: None,
        framing: Framing::Sse,
        reply: rules(),
        resume: Resume::Never,
    }
}

/// A POST that answers with where the stream is, and a GET for that.
pub(crate) fn two_steps() -> SsePlan {
    SsePlan {
        request: RequestPlan { capture: brings("stream", "/id"), ..one_step().request },
        stream: Some(get("/stream/{{stream}}")),
        resume: Resume::WithId,
        ..one_step()
    }
}

pub(crate) fn driver(base: &str, plan: SsePlan, site: Site) -> Driver {
    let base: url::Url = format!("{base}/base/").parse().unwrap();
    let config = client_config(&TlsSettings::default()).unwrap();
    let limits = limits();
    let endpoint = Endpoint::new(&base, &config, limits.connect).unwrap();
    let common = Arc::new(BTreeMap::from([("model".to_owned(), json!("m"))]));
    let extra = [("x-extra".to_owned(), Secret::new("a secret value"))];
    let sse = Sse::new(endpoint, &base, plan, common, Vec::new(), &extra, limits).unwrap();
    Driver::Sse(sse.with_site(site))
}

/// One turn of a driver.
pub(crate) fn one(driver: &Driver, prompt: Prompt) -> Turn {
    runtime().block_on(async { say(driver, &mut driver.session(0), prompt).await })
}

pub(crate) fn disturbed(what: Disturbance, after: u64) -> Prompt {
    Prompt { disturb: Some(Disturb { what, after: After::Tokens(after) }), ..hello() }
}

pub(crate) fn new_turn() -> Turn {
    let now = clock::monotonic();
    Turn::new(now, now)
}
