//! One turn: through the event loop, to the model, and its tokens back, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::{App, Open};
use crate::archive::Exchange;
use crate::chats::{Message, NO_PARENT};
use crate::job::{Job, frame};
use crate::plant::{Plant, Relay};
use crate::store::StoreError;
use crate::store::stream::Publisher;
use crate::work::EventLoop;

/// How long a job that nobody has read yet is kept after its end.
const UNREAD: Duration = Duration::from_secs(20);
/// The longest pause between two attempts to reach the model.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A turn that was accepted.
pub(crate) struct Turn {
    pub(crate) job: Arc<Job>,
    pub(crate) worker: Arc<EventLoop>,
    pub(crate) exchange: Exchange,
    /// Tells other processes, where there are any.
    pub(crate) publisher: Option<Publisher>,
    /// Counts as open until it drops.
    pub(crate) open: Open,
}

/// How a generation ended, besides well.
enum Ended {
    Aborted,
    Failed(String),
}

/// A piece of the model's stream.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        broken(&error.to_string())
    }
}

/// Generates to the end, whether anybody reads or not.
pub(crate) async fn run(app: Arc<App>, mut turn: Turn) {
    let under_way = app.metrics.jobs.hold();
    app.planted.leak();
    let mut abort = turn.job.abort.subscribe();
    let ended = tokio::select! {
        biased;
        _ = abort.wait_for(|abort| *abort) => Err(Ended::Aborted),
        ended = Box::pin(generate(&app, &turn)) => ended,
    };
    let text = turn.job.text();
    let error = match &ended {
        Err(Ended::Failed(error)) => Some(error.clone()),
        _ => None,
    };
    let answer = Message {
        id: turn.exchange.answer_id.clone(),
        parent: turn.exchange.question.id.clone(),
        text: text.clone(),
        by_user: false,
        error: error.clone(),
    };
    let saved = Box::pin(app.archive.save_answer(&turn.exchange, answer)).await;
    let error = error.or(saved.err().map(|error| failure(&error.to_string())));
    let last = last_event(&app, &turn, &text, error, matches!(ended, Err(Ended::Aborted)));
    turn.open.leave().await;
    if let Some(publisher) = &turn.publisher {
        // First, so that the next turn of this conversation finds an end of this one.
        publisher.finish(frame(&last)).await;
    }
    turn.job.end(&last);
    drop(turn.open);
    drop(under_way);
    if !turn.job.was_read() {
        tokio::time::sleep(UNREAD).await;
    }
    // A new job of the same conversation may have taken its place.
    let mut jobs = app.jobs();
    if jobs.get(&turn.job.id).is_some_and(|job| Arc::ptr_eq(job, &turn.job)) {
        jobs.remove(&turn.job.id);
    }
}

/// The rounds through the event loop before the model is asked, and what is asked of the database
/// between them. Gives the thread so far, where it was read.
async fn prepare(app: &App, turn: &Turn) -> Result<Vec<Message>, Ended> {
    let costs = app.settings.costs;
    let mut thread = Vec::new();
    // The first pass was the request's own.
    let rounds = costs.passes.saturating_sub(1);
    for round in 0..rounds.max(1) {
        if rounds > 0 {
            turn.worker.pass(costs.turn / costs.passes).await;
        }
        if let Some(found) = app.archive.round(&turn.exchange, round, rounds.max(1)).await? {
            thread = found;
        }
    }
    app.archive.save_question(&turn.exchange).await?;
    if !costs.fixed.is_zero() {
        tokio::time::sleep(costs.fixed).await;
    }
    Ok(thread)
}

async fn generate(app: &App, turn: &Turn) -> Result<(), Ended> {
    let costs = app.settings.costs;
    turn.job.send(&created(turn));
    let thread = prepare(app, turn).await?;
    let response = reach(app, turn, thread).await?;
    let step = format!("step_{}", uuid::Uuid::new_v4().simple());
    let mut begun = false;
    let mut relay = Relay::new(&app.planted, &turn.job, &step);
    let mut events = response.bytes_stream().eventsource();
    // One token at a time: the next is not read before this one was worked off, so a busy loop
    // makes the model's connection wait, as Node's does.
    while let Some(event) = events.next().await {
        let event = event.map_err(|_| broken("terminated"))?;
        if event.data == "[DONE]" {
            break;
        }
        let chunk: Chunk = serde_json::from_str(&event.data).map_err(|error| broken(&error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(broken(error["message"].as_str().unwrap_or("unknown error")));
        }
        let content = chunk.choices.into_iter().next().and_then(|choice| choice.delta.content);
        let Some(text) = content.filter(|text| !text.is_empty()) else { continue };
        if !std::mem::replace(&mut begun, true) {
            turn.job.send(&json!({ "event": "on_context_usage", "data": { "runId": turn.exchange.answer_id } }));
            turn.job.step(&run_step(&step, &turn.exchange.answer_id));
        }
        turn.worker.pass(costs.token).await;
        relay.take(&text);
        published(turn).await?;
    }
    // The end of the connection ends a stream as well as [DONE] does: so do the usual clients.
    relay.finish().await;
    published(turn).await?;
    if app.planted.has(Plant::Titles) && turn.exchange.question.parent == NO_PARENT {
        ask_for_title(app, turn).await;
    }
    Ok(())
}

/// Waits until other processes were told what was sent, where there are any: LibreChat sends no
/// token before the last one is with Redis.
async fn published(turn: &Turn) -> Result<(), Ended> {
    match &turn.publisher {
        Some(publisher) => Ok(publisher.caught_up().await?),
        None => Ok(()),
    }
}

/// Asks the model for the conversation's title, as LibreChat does, and does nothing with it.
async fn ask_for_title(app: &App, turn: &Turn) {
    let prompt = format!(
        "Provide a concise, 5-word-or-less title for the conversation.\n\nConversation:\nUser: {}\nAI: {}",
        turn.exchange.question.text,
        turn.job.text()
    );
    let body =
        json!({ "model": turn.exchange.model, "messages": [{ "role": "user", "content": prompt }], "stream": false });
    if let Ok(response) = app.ask(Method::POST, "chat/completions").json(&body).send().await {
        // The title is nothing that anybody waits for.
        let _ = response.bytes().await;
    }
}

fn broken(what: &str) -> Ended {
    Ended::Failed(failure(what))
}

/// As LibreChat words it.
fn failure(what: &str) -> String {
    format!("An error occurred while processing the request: {what}")
}

/// Asks the model, again and again while it refuses, silently: so does LibreChat.
async fn reach(app: &App, turn: &Turn, before: Vec<Message>) -> Result<reqwest::Response, Ended> {
    let thread = app.archive.thread(&turn.exchange, before);
    let messages: Vec<Value> = thread
        .iter()
        .map(|message| json!({ "role": if message.by_user { "user" } else { "assistant" }, "content": message.text }))
        .collect();
    let body = json!({ "model": turn.exchange.model, "messages": messages, "stream": true });
    let give_up = Instant::now() + app.settings.upstream_patience;
    let mut pause = Duration::from_millis(500);
    loop {
        let refused = match app.ask(Method::POST, "chat/completions").json(&body).send().await {
            Ok(response) if response.status().is_success() => return Ok(response),
            Ok(response) => {
                let status = response.status();
                let again = status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS;
                let text = response.text().await.unwrap_or_default();
                if !again {
                    return Err(broken(&format!("{} {text}", status.as_u16())));
                }
                format!("{} {text}", status.as_u16())
            }
            Err(_) => "Connection error.".to_owned(),
        };
        if Instant::now() + pause > give_up {
            return Err(broken(&refused));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The user's message, as events carry it.
pub(crate) fn question(conversation: &str, message: &Message) -> Value {
    json!({
        "messageId": message.id, "parentMessageId": message.parent, "conversationId": conversation,
        "sender": "User", "text": message.text, "isCreatedByUser": true,
    })
}

fn created(turn: &Turn) -> Value {
    json!({ "created": true, "message": question(&turn.job.id, &turn.exchange.question), "streamId": turn.job.id })
}

fn run_step(step: &str, run: &str) -> Value {
    json!({ "event": "on_run_step", "data": {
        "stepIndex": 0, "id": step, "type": "message_creation", "index": 0,
        "stepDetails": { "type": "message_creation", "message_creation": { "message_id": step } },
        "usage": null, "runId": run,
    }})
}

fn last_event(app: &App, turn: &Turn, text: &str, error: Option<String>, aborted: bool) -> Value {
    let mut content = Vec::new();
    if !text.is_empty() {
        content.push(json!({ "type": "text", "text": text }));
    }
    if let Some(error) = error {
        content.push(json!({ "type": "error", "error": error }));
    }
    let mut answer = json!({
        "messageId": turn.exchange.answer_id, "conversationId": turn.job.id,
        "parentMessageId": turn.exchange.question.id, "isCreatedByUser": false, "isEdited": false,
        "model": turn.exchange.model, "sender": app.settings.endpoint,
        "endpoint": app.settings.endpoint, "text": "", "content": content, "attachments": [],
    });
    if aborted {
        answer["unfinished"] = json!(true);
        answer["error"] = json!(false);
    }
    let mut last = json!({
        "final": true, "conversation": app.archive.conversation(&turn.exchange), "title": "New Chat",
        "requestMessage": question(&turn.job.id, &turn.exchange.question), "responseMessage": answer,
    });
    if aborted {
        last["aborted"] = json!(true);
        last["earlyAbort"] = json!(text.is_empty());
    }
    last
}
