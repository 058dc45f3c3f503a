//! Streams over Redis: what one process generates, another one tells its subscribers.
//!
//! A message of the channel of events is the frame's number, a `!` where it is the last, a space,
//! and the frame. By the number a resumed stream leaves out what its first frame has told already.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::Value;
use tokio::sync::watch;

use super::StoreError;
use super::commands::Redis;
use super::hub::Listening;
use crate::job::{Frame, Job, Kind, summary};
use crate::jwt::unix_seconds;

/// How long the keys of a running stream live without a change.
const RUNNING: u64 = 1_200;
/// How long they live after its end.
const OVER: u64 = 60;
/// How long until the last event is tried again, where Redis refused it.
const AGAIN: Duration = Duration::from_millis(200);

/// A job of another process.
pub(crate) struct Remote {
    pub(crate) user: String,
    pub(crate) running: bool,
}

impl Redis {
    /// A stream's key; the braces are literal, so that a cluster keeps all of a stream together.
    fn stream_key(&self, id: &str, what: &str) -> String {
        self.key(&format!("stream:{{{id}}}:{what}"))
    }

    fn running_key(&self) -> String {
        self.key("stream:running")
    }

    /// Makes a job known to all processes.
    pub(crate) async fn begin(&self, job: &Job) -> Result<(), StoreError> {
        let (question, answer) = job.about();
        let known = self.stream_key(&job.id, "job");
        let mut begin = redis::pipe();
        begin.cmd("DEL");
        for old in ["chunks", "runsteps", "seq"] {
            begin.arg(self.stream_key(&job.id, old));
        }
        begin.ignore().cmd("HSET").arg(known.as_str());
        for (field, value) in [
            ("streamId", job.id.clone()),
            ("user", job.user.clone()),
            ("status", "running".to_owned()),
            ("answerId", answer),
            ("question", question.to_string()),
            ("createdAt", unix_seconds().to_string()),
        ] {
            begin.arg(field).arg(value);
        }
        begin.ignore();
        begin.cmd("EXPIRE").arg(known.as_str()).arg(RUNNING).ignore();
        begin.cmd("SADD").arg(self.running_key()).arg(job.id.as_str()).ignore();
        self.commands.run(&begin).await
    }

    /// Tells and keeps one frame.
    async fn publish(&self, id: &str, number: usize, frame: &Frame) -> Result<(), StoreError> {
        let mut told = redis::pipe();
        let [known, chunks, steps, seq] = ["job", "chunks", "runsteps", "seq"].map(|what| self.stream_key(id, what));
        told.cmd("INCR").arg(seq.as_str()).ignore();
        if frame.kind != Kind::Other {
            // The number is the id, so that it never comes before an earlier one's.
            let entry = format!("{number}-0");
            told.cmd("XADD").arg(chunks.as_str()).arg(entry).arg("event").arg(data(&frame.bytes)).ignore();
        }
        if frame.kind == Kind::Step {
            told.cmd("RPUSH").arg(steps.as_str()).arg(data(&frame.bytes)).ignore();
            told.cmd("EXPIRE").arg(steps.as_str()).arg(RUNNING).ignore();
        }
        told.cmd("PUBLISH").arg(self.stream_key(id, "events")).arg(message(number, frame)).ignore();
        let lasting = if frame.kind == Kind::Other { &seq } else { &chunks };
        told.cmd("EXPIRE").arg(lasting.as_str()).arg(RUNNING).ignore();
        told.cmd("HSET").arg(known.as_str()).arg("updatedAt").arg(unix_seconds()).ignore();
        self.publishing.run(&told).await
    }

    /// Tells the last frame; the stream is over for whoever comes later, and its keys leave soon.
    async fn end(&self, id: &str, number: usize, frame: &Frame) -> Result<(), StoreError> {
        let mut told = redis::pipe();
        // In this order: whoever subscribed and then found it running has the last frame coming.
        told.cmd("SREM").arg(self.running_key()).arg(id).ignore();
        told.cmd("PUBLISH").arg(self.stream_key(id, "events")).arg(message(number, frame)).ignore();
        for what in ["job", "chunks", "runsteps", "seq"] {
            told.cmd("EXPIRE").arg(self.stream_key(id, what)).arg(OVER).ignore();
        }
        // Last, for a server without memory to spare refuses it.
        told.cmd("HSET").arg(self.stream_key(id, "job")).arg("status").arg("complete").ignore();
        told.cmd("EXPIRE").arg(self.stream_key(id, "job")).arg(OVER).ignore();
        self.publishing.run(&told).await
    }

    /// A job, wherever it is generated.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Remote>, StoreError> {
        let mut ask = redis::pipe();
        ask.cmd("HGET").arg(self.stream_key(id, "job")).arg("user");
        ask.cmd("SISMEMBER").arg(self.running_key()).arg(id);
        let (user, running): (Option<String>, bool) = self.commands.run(&ask).await?;
        Ok(user.map(|user| Remote { user, running }))
    }

    /// What is told of a stream from now on.
    pub(crate) async fn listen(&self, id: &str) -> Result<Listening, StoreError> {
        self.hub.listen(self.stream_key(id, "events")).await
    }

    /// What there is of a stream's answer, and the number of the newest frame that is told in it.
    pub(crate) async fn summary(&self, id: &str) -> Result<(u64, Value), StoreError> {
        let mut ask = redis::pipe();
        ask.cmd("XRANGE").arg(self.stream_key(id, "chunks")).arg("-").arg("+");
        ask.cmd("LRANGE").arg(self.stream_key(id, "runsteps")).arg(0).arg(-1);
        ask.cmd("HMGET").arg(self.stream_key(id, "job")).arg("question").arg("answerId");
        type Kept = (Vec<(String, Vec<String>)>, Vec<String>, (Option<String>, Option<String>));
        let (chunks, steps, (question, answer)): Kept = self.commands.run(&ask).await?;
        let mut text = String::new();
        for chunk in chunks.iter().filter_map(|(_, fields)| read(fields.get(1)?)) {
            append_text(&mut text, &chunk);
        }
        let newest = chunks.last().and_then(|(id, _)| id.split_once('-')?.0.parse().ok()).unwrap_or(0);
        let steps: Vec<Value> = steps.iter().filter_map(|step| Some(read(step)?["data"].clone())).collect();
        let question = question.as_deref().and_then(read).unwrap_or_default();
        Ok((newest, summary(&text, &steps, &question, &answer.unwrap_or_default())))
    }

    /// The running jobs of a user, wherever they are generated.
    pub(crate) async fn active(&self, user: &str) -> Result<Vec<String>, StoreError> {
        let mut ask = redis::pipe();
        ask.cmd("SMEMBERS").arg(self.running_key());
        let (ids,): (Vec<String>,) = self.commands.run(&ask).await?;
        if ids.is_empty() {
            return Ok(ids);
        }
        let mut ask = redis::pipe();
        for id in &ids {
            ask.cmd("HGET").arg(self.stream_key(id, "job")).arg("user");
        }
        let users: Vec<Option<String>> = self.commands.run(&ask).await?;
        let mine = ids.into_iter().zip(users).filter(|(_, found)| found.as_deref() == Some(user));
        Ok(mine.map(|(id, _)| id).collect())
    }

    /// Has whoever generates a job end it.
    pub(crate) async fn abort(&self, id: &str) -> Result<(), StoreError> {
        let mut tell = redis::pipe();
        tell.cmd("PUBLISH").arg(self.stream_key(id, "abort")).arg("1").ignore();
        self.commands.run(&tell).await
    }
}

/// The event in a frame, as JSON.
fn data(frame: &[u8]) -> &[u8] {
    let data = frame.strip_prefix(b"event: message\ndata: ").unwrap_or(frame);
    data.strip_suffix(b"\n\n").unwrap_or(data)
}

fn message(number: usize, frame: &Frame) -> Vec<u8> {
    let mut head = String::new();
    let _ = write!(head, "{number}{} ", if frame.kind == Kind::Last { "!" } else { "" });
    [head.as_bytes(), &frame.bytes[..]].concat()
}

/// A message's number, whether it is the last, and the frame.
fn taken_apart(message: &Bytes) -> Option<(u64, bool, Bytes)> {
    let space = message.iter().position(|byte| *byte == b' ')?;
    let head = std::str::from_utf8(&message[..space]).ok()?;
    let last = head.ends_with('!');
    Some((head.trim_end_matches('!').parse().ok()?, last, message.slice(space + 1..)))
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn append_text(text: &mut String, event: &Value) {
    if event["event"] == "on_message_delta" {
        let content = event["data"]["delta"]["content"].as_array();
        for part in content.into_iter().flatten() {
            text.push_str(part["text"].as_str().unwrap_or_default());
        }
    }
}

/// The frames of another process's job from now on, after a first one if it is resumed.
pub(crate) fn relayed(
    listening: Listening,
    summary: Option<(u64, Bytes)>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    let (told, first) = summary.map_or((0, None), |(told, first)| (told, Some(first)));
    stream::unfold((Some(listening), first, told), |(listening, first, told)| async move {
        let mut listening = listening?;
        if let Some(first) = first {
            return Some((Ok(first), (Some(listening), None, told)));
        }
        loop {
            let message = listening.next().await?;
            let Some((number, last, frame)) = taken_apart(&message) else { continue };
            if number > told {
                return Some((Ok(frame), ((!last).then_some(listening), None, told)));
            }
        }
    })
}

/// How far the frames of a job were published.
#[derive(Default)]
struct Progress {
    sent: usize,
    failed: Option<StoreError>,
}

/// Publishes the frames of one job in their order.
pub(crate) struct Publisher {
    redis: Arc<Redis>,
    job: Arc<Job>,
    progress: watch::Receiver<Progress>,
}

impl Publisher {
    /// Gives the publisher and its task, which is to be spawned.
    pub(crate) fn new(redis: &Arc<Redis>, job: &Arc<Job>) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, progress) = watch::channel(Progress::default());
        let publisher = Self { redis: Arc::clone(redis), job: Arc::clone(job), progress };
        (publisher, publish(Arc::clone(redis), Arc::clone(job), sender))
    }

    /// Waits until everything that was sent so far is published.
    pub(crate) async fn caught_up(&self) -> Result<(), StoreError> {
        let frames = self.job.frames();
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|now| now.sent >= frames || now.failed.is_some()).await;
        match reached.as_deref() {
            Ok(Progress { failed: Some(error), .. }) => Err(error.clone()),
            // Without its task the deployment is ending.
            _ => Ok(()),
        }
    }

    /// Publishes the last event after all the others. Where Redis refuses it twice, subscribers of
    /// other processes wait in vain, as LibreChat's do.
    pub(crate) async fn finish(&self, last: Bytes) {
        let frames = self.job.frames();
        let mut progress = self.progress.clone();
        let _ = progress.wait_for(|now| now.sent >= frames).await;
        let last = Frame { bytes: last, kind: Kind::Last };
        if self.redis.end(&self.job.id, frames + 1, &last).await.is_err() {
            tokio::time::sleep(AGAIN).await;
            let _ = self.redis.end(&self.job.id, frames + 1, &last).await;
        }
    }
}

/// Publishes what is sent until the job ends, and listens whether another process wants it to end.
async fn publish(redis: Arc<Redis>, job: Arc<Job>, progress: watch::Sender<Progress>) {
    let mut grown = job.watch();
    // Without it the job cannot be ended from elsewhere; it is generated all the same.
    let mut aborts = redis.hub.listen(redis.stream_key(&job.id, "abort")).await.ok();
    let mut sent = 0;
    loop {
        grown.mark_unchanged();
        while let Some(frame) = job.frame(sent).filter(|frame| frame.kind != Kind::Last) {
            sent += 1;
            let result = redis.publish(&job.id, sent, &frame).await;
            progress.send_modify(|now| {
                now.sent = sent;
                now.failed = now.failed.take().or(result.err());
            });
        }
        if job.has_ended() {
            return;
        }
        tokio::select! {
            // The sender lives in the job, which is held here.
            _ = grown.changed() => {}
            message = next(&mut aborts) => match message {
                Some(_) => {
                    job.abort.send_replace(true);
                }
                None => aborts = None,
            },
        }
    }
}

/// The next message; without a channel, none ever.
async fn next(listening: &mut Option<Listening>) -> Option<Bytes> {
    match listening {
        Some(listening) => listening.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_apart_as_it_was_put_together() {
        let frame = |kind| Frame { bytes: Bytes::from_static(b"event: message\ndata: {\"a\": 1}\n\n"), kind };
        for (kind, last) in [(Kind::Token, false), (Kind::Last, true)] {
            let message = Bytes::from(message(17, &frame(kind)));
            assert_eq!(taken_apart(&message), Some((17, last, frame(kind).bytes)));
        }
        assert_eq!(data(&frame(Kind::Token).bytes), b"{\"a\": 1}");
        assert_eq!(taken_apart(&Bytes::from_static(b"none")), None);
    }

    #[test]
    fn the_text_of_an_answer_is_that_of_its_tokens() {
        let mut text = String::new();
        let job = Arc::new(Job::new("s", "u", Value::Null, "r"));
        job.token("step", " one");
        job.send(&serde_json::json!({ "event": "on_context_usage" }));
        job.token("step", " \"two\"");
        for number in 0..job.frames() {
            let frame = job.frame(number).unwrap();
            append_text(&mut text, &serde_json::from_slice(data(&frame.bytes)).unwrap());
        }
        assert_eq!(text, " one \"two\"");
    }
}
