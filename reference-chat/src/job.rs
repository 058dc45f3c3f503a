//! A generation job: the frames of one turn, kept for whoever reads them, whether anybody does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

/// One turn that is being generated.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) user: String,
    state: Mutex<State>,
    grown: watch::Sender<()>,
    /// Set to have the generation end.
    pub(crate) abort: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    /// What a resumed stream is told at once.
    text: String,
    steps: Vec<Value>,
    question: Value,
    answer_id: String,
    subscribed: bool,
    ended: bool,
}

/// What is sent, and what it is to whoever keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) kind: Kind,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something that a resumed stream is not told.
    Other,
    /// A step of the answer.
    Step,
    /// A token of the answer.
    Token,
    /// The last event.
    Last,
}

/// From where a subscriber reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The first one: everything that was sent before it came. Any further one: from now on.
    Beginning,
    /// From now on, whoever it is: what was published before is lost, as over Redis. Of what is over, the last event.
    Now,
    /// One frame with all that there is, then from now on.
    Sync,
}

/// One event, as it stands on the wire.
pub(crate) fn frame(data: &Value) -> Bytes {
    Bytes::from(format!("event: message\ndata: {data}\n\n"))
}

impl Job {
    pub(crate) fn new(id: &str, user: &str, question: Value, answer_id: &str) -> Self {
        let state = State { question, answer_id: answer_id.to_owned(), ..State::default() };
        Self {
            id: id.to_owned(),
            user: user.to_owned(),
            state: Mutex::new(state),
            grown: watch::Sender::new(()),
            abort: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event to everybody.
    pub(crate) fn send(&self, data: &Value) {
        self.state().push(frame(data), Kind::Other);
        self.grown.send_replace(());
    }

    /// A step of the answer begins.
    pub(crate) fn step(&self, data: &Value) {
        let mut state = self.state();
        state.steps.push(data["data"].clone());
        state.push(frame(data), Kind::Step);
        drop(state);
        self.grown.send_replace(());
    }

    /// A token of the answer.
    pub(crate) fn token(&self, step: &str, text: &str) {
        // Made by hand: this is done for every token.
        let data = format!(
            "event: message\ndata: {{\"event\":\"on_message_delta\",\"data\":{{\"id\":\"{step}\",\"delta\":{{\"content\":[{{\"type\":\"text\",\"text\":{}}}]}}}}}}\n\n",
            Value::from(text)
        );
        let mut state = self.state();
        state.text.push_str(text);
        state.push(Bytes::from(data), Kind::Token);
        drop(state);
        self.grown.send_replace(());
    }

    /// A token that no subscriber is told of, though it belongs to the answer.
    pub(crate) fn unsent_token(&self, text: &str) {
        self.state().text.push_str(text);
    }

    /// The last event; after it every subscriber's stream ends.
    pub(crate) fn end(&self, data: &Value) {
        let mut state = self.state();
        state.push(frame(data), Kind::Last);
        state.ended = true;
        drop(state);
        self.grown.send_replace(());
    }

    /// The answer so far.
    pub(crate) fn text(&self) -> String {
        self.state().text.clone()
    }

    /// How many frames were sent.
    pub(crate) fn frames(&self) -> usize {
        self.state().frames.len()
    }

    /// One of the frames that were sent.
    pub(crate) fn frame(&self, number: usize) -> Option<Frame> {
        self.state().frames.get(number).cloned()
    }

    /// Told whenever something is sent.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// The question, as events carry it, and the answer's id.
    pub(crate) fn about(&self) -> (Value, String) {
        let state = self.state();
        (state.question.clone(), state.answer_id.clone())
    }

    /// What there is of the answer.
    pub(crate) fn summary(&self) -> Value {
        self.state().summary()
    }

    /// Whether the last event was sent.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Whether anybody ever read.
    pub(crate) fn was_read(&self) -> bool {
        self.state().subscribed
    }

    /// The frames for one more subscriber.
    pub(crate) fn subscribe(
        self: &std::sync::Arc<Self>,
        from: From,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + use<> {
        let grown = self.grown.subscribe();
        let mut state = self.state();
        let first = !std::mem::replace(&mut state.subscribed, true);
        // Whoever comes after the end is told of it.
        let now = state.frames.len() - usize::from(state.ended);
        let (cursor, sync) = match from {
            From::Beginning if first => (0, None),
            From::Beginning | From::Now => (now, None),
            From::Sync => (now, Some(sync(&state.summary()))),
        };
        drop(state);
        let begin = (std::sync::Arc::clone(self), grown, cursor, sync);
        stream::unfold(begin, |(job, mut grown, cursor, mut sync)| async move {
            if let Some(sync) = sync.take() {
                return Some((Ok(sync), (job, grown, cursor, None)));
            }
            loop {
                {
                    let state = job.state();
                    if let Some(frame) = state.frames.get(cursor).cloned() {
                        drop(state);
                        return Some((Ok(frame.bytes), (job, grown, cursor + 1, None)));
                    }
                    if state.ended {
                        return None;
                    }
                }
                // The sender lives in the job, which is held here.
                let _ = grown.changed().await;
            }
        })
    }
}

impl State {
    fn push(&mut self, bytes: Bytes, kind: Kind) {
        self.frames.push(Frame { bytes, kind });
    }

    fn summary(&self) -> Value {
        summary(&self.text, &self.steps, &self.question, &self.answer_id)
    }
}

/// What there is of an answer, for whoever takes it up again.
pub(crate) fn summary(text: &str, steps: &[Value], question: &Value, answer_id: &str) -> Value {
    let content = if text.is_empty() { Vec::new() } else { vec![json!({ "type": "text", "text": text })] };
    json!({
        "runSteps": steps, "aggregatedContent": content, "userMessage": question, "responseMessageId": answer_id,
    })
}

/// What `?resume=true` is told first.
pub(crate) fn sync(summary: &Value) -> Bytes {
    frame(&json!({ "sync": true, "resumeState": summary, "pendingEvents": [] }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn texts(stream: impl Stream<Item = Result<Bytes, std::convert::Infallible>>) -> Vec<String> {
        let all = stream.map(|frame| String::from_utf8(frame.unwrap().to_vec()).unwrap()).collect::<Vec<_>>();
        all.now_or_never().expect("the job has ended")
    }

    #[test]
    fn the_first_reader_gets_all_a_late_one_over_redis_only_the_rest_and_a_resumed_one_a_summary() {
        let job = Arc::new(Job::new("s", "u", json!({}), "r"));
        job.send(&json!({ "created": true }));
        job.token("step", " one");
        let (first, second, late, resumed) = (
            job.subscribe(From::Beginning),
            job.subscribe(From::Beginning),
            job.subscribe(From::Now),
            job.subscribe(From::Sync),
        );
        job.token("step", " \"two\"");
        job.end(&json!({ "final": true }));
        let first = texts(first);
        assert_eq!(first.len(), 4);
        assert!(first[2].contains(r#""text":" \"two\"""#), "{first:?}");
        assert_eq!(texts(second).len(), 2);
        assert_eq!(texts(late).len(), 2);
        let resumed = texts(resumed);
        assert_eq!(resumed.len(), 3);
        assert!(resumed[0].contains(r#""text":" one""#) && resumed[0].contains(r#""sync":true"#));
        // After the end everybody is told of it, and who takes it up again of the whole answer before.
        assert!(texts(job.subscribe(From::Now)).concat().contains(r#""final":true"#));
        let over = texts(job.subscribe(From::Sync));
        assert_eq!(over.len(), 2);
        assert!(over[0].contains(r#" one \"two\""#) && over[1].contains(r#""final":true"#), "{over:?}");
    }
}
