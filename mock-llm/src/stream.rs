//! A streamed reply as an HTTP body: one frame a token, each on its schedule and in a write of its own. hyper leaves an
//! empty frame out.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use rand_chacha::ChaCha8Rng;
use tokio::sync::OwnedSemaphorePermit;

use crate::behaviour::Fault;
use crate::distribution::Distribution;
use crate::format::{Closing, Envelope, Facts, Spoken};
use crate::journal::TurnOutcome;
use crate::schedule::Schedule;
use crate::script::Script;
use crate::socket::Line;
use crate::state::OpenTurn;

/// What one reply is made of.
pub(crate) struct Reply {
    /// When the schedule began.
    pub(crate) start: Instant,
    /// From there to the first token.
    pub(crate) ttft: Duration,
    /// Between tokens, drawn from `timing`.
    pub(crate) gap: Distribution,
    pub(crate) timing: ChaCha8Rng,
    pub(crate) script: Script,
    /// What goes wrong, before which token (counted from 0).
    pub(crate) fault: Option<(Fault, u64)>,
    /// What is said around the tokens.
    pub(crate) facts: Facts,
}

impl Reply {
    /// What is known when it ends, having said this.
    pub(crate) fn spoken(&self, text: String) -> Spoken {
        Spoken { text, ttft: self.ttft, taken: self.start.elapsed() }
    }
}

/// The body was cut on purpose; hyper drops the connection on it.
#[derive(Debug, thiserror::Error)]
#[error("the reply was cut on purpose")]
pub(crate) struct Cut;

enum Stage {
    Head,
    Tokens,
    Tail,
    Silent,
    End,
}

/// The body of one streamed reply.
pub(crate) struct TokenStream {
    reply: Reply,
    envelope: Envelope,
    /// What was said so far, where the end repeats it.
    said: Option<String>,
    turn: OpenTurn,
    stage: Stage,
    /// Tokens emitted, those that were spoilt among them.
    position: u64,
    due: Instant,
    registered: Option<Instant>,
    yielded: bool,
    schedule: Schedule,
    line: Rc<Line>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl TokenStream {
    pub(crate) fn new(
        reply: Reply,
        turn: OpenTurn,
        schedule: Schedule,
        line: Rc<Line>,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let due = reply.start + reply.ttft;
        Self {
            envelope: reply.facts.envelope(),
            said: reply.facts.format.repeats_text().then(String::new),
            reply,
            turn,
            stage: Stage::Head,
            position: 0,
            due,
            registered: None,
            yielded: false,
            schedule,
            line,
            _slot: slot,
        }
    }

    /// The next token's event, on the absolute schedule: the next deadline follows from this
    /// deadline and never from the moment at which it was met.
    fn token(&mut self, now: Instant) -> Bytes {
        let malformed = matches!(self.reply.fault, Some((Fault::MalformedJson, at)) if at == self.position);
        let frame = if malformed {
            self.turn.outcome(TurnOutcome::MalformedJson);
            Bytes::from_static(self.reply.facts.format.malformed_frame().as_bytes())
        } else {
            Bytes::from(self.envelope.frame(self.position, &mut self.reply.script, self.said.as_mut()))
        };
        if !malformed {
            self.turn.token(self.due, now);
        }
        self.position += 1;
        if self.position == self.reply.facts.tokens {
            self.stage = Stage::Tail;
        } else {
            self.due += self.reply.gap.sample_duration(&mut self.reply.timing);
        }
        frame
    }

    /// What a planned fault does in the place of the next token; `None`: nothing here.
    fn planned_fault(&mut self) -> Option<Result<Bytes, Cut>> {
        let (fault, at) = self.reply.fault?;
        if at != self.position {
            return None;
        }
        match fault {
            Fault::ErrorEvent => {
                self.turn.outcome(TurnOutcome::ErrorEvent);
                self.stage = Stage::End;
                Some(Ok(Bytes::from(self.reply.facts.error_frame(at))))
            }
            Fault::Reset => {
                self.turn.outcome(TurnOutcome::Reset);
                self.line.reset.set(true);
                self.stage = Stage::End;
                Some(Err(Cut))
            }
            Fault::Stall => {
                self.turn.outcome(TurnOutcome::Stall);
                self.stage = Stage::Silent;
                None
            }
            Fault::Http500 | Fault::Http503 | Fault::MalformedJson | Fault::NoDone => None,
        }
    }

    fn tail(&mut self) -> Bytes {
        self.stage = Stage::End;
        let spoken = self.reply.spoken(self.said.take().unwrap_or_default());
        let Closing { mut rest, terminal } = self.reply.facts.closing(&spoken);
        match self.reply.fault {
            Some((Fault::NoDone, _)) => self.turn.outcome(TurnOutcome::NoDone),
            Some((Fault::MalformedJson, _)) => rest.push_str(&terminal),
            _ => {
                self.turn.outcome(TurnOutcome::Completed);
                rest.push_str(&terminal);
            }
        }
        Bytes::from(rest)
    }
}

impl Body for TokenStream {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        match this.stage {
            Stage::Head => {
                this.stage = Stage::Tokens;
                this.yielded = true;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(std::mem::take(&mut this.envelope.head))))))
            }
            Stage::Tokens => {
                let now = Instant::now();
                // hyper flushes when the body is pending: one pending poll between two frames
                // that are both due keeps each token in a write of its own.
                if std::mem::take(&mut this.yielded) && now >= this.due {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if now < this.due {
                    if this.registered != Some(this.due) {
                        this.registered = Some(this.due);
                        this.schedule.wake_at(this.due, cx.waker());
                    }
                    return Poll::Pending;
                }
                if let Some(fault) = this.planned_fault() {
                    return Poll::Ready(Some(fault.map(Frame::data)));
                }
                if matches!(this.stage, Stage::Silent) {
                    return Poll::Pending;
                }
                this.yielded = true;
                Poll::Ready(Some(Ok(Frame::data(this.token(now)))))
            }
            Stage::Tail => {
                if std::mem::take(&mut this.yielded) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(Frame::data(this.tail()))))
            }
            Stage::Silent => Poll::Pending,
            Stage::End => Poll::Ready(None),
        }
    }
}
