//! A turn's requests, and what can go wrong with them: what all protocols over HTTP share.
//!
//! A kept-alive connection that turns out to be closed within a second of the request, before a
//! byte of the response came, is replaced once: the server closed it while we were writing, which
//! is no failure of the target.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};

use super::watchdog::Watchdog;
use super::{Limits, Live};
use crate::clock::{self, Nanos};
use crate::net::{ConnectError, Endpoint, HttpConnection, HttpError, Progress};
use crate::record::{Outcome, Step, Turn, Wire};
use crate::secret::{Secret, escaped, redacted};

/// The characters of a foreign text that are kept.
const DETAIL: usize = 200;
/// The bytes of an error's body that are read.
pub(super) const ERROR_BODY: usize = 16 << 10;
/// The longest that a target may want to be left alone.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// A request that can be sent again.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

impl Call<'_> {
    fn request(&self) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(self.headers);
        request
    }
}

/// A path of the target as a request's URI.
pub(super) fn uri(path: &str) -> Result<Uri, Failure> {
    path.parse().map_err(|_| Failure::new(Outcome::Protocol, format!("{path} is no path")))
}

/// A header that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("the header `{name}` has a name or value that cannot be sent")]
pub struct HeaderError {
    name: String,
}

/// Adds headers, none of which is shown anywhere.
pub(super) fn add_headers<'h>(
    headers: &mut HeaderMap,
    added: impl IntoIterator<Item = (&'h str, &'h str)>,
) -> Result<(), HeaderError> {
    for (name, value) in added {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(parsed_name), Ok(mut parsed_value)) = parsed else {
            return Err(HeaderError { name: name.to_owned() });
        };
        parsed_value.set_sensitive(true);
        headers.insert(parsed_name, parsed_value);
    }
    Ok(())
}

/// A turn in progress.
pub(super) struct Exchange<'a> {
    pub(super) watchdog: Watchdog,
    pub(super) turn: &'a mut Turn,
    pub(super) live: Live<'a>,
    /// Bytes that the body may still have.
    pub(super) body_left: usize,
    /// The first thing that went wrong inside the stream.
    pub(super) failed: Option<Failure>,
    /// Whether the next request is the turn itself: then its first byte is the actual send.
    pub(super) opening: bool,
}

/// A turn that did not complete.
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) detail: String,
    /// The connection, where it can be used again. Boxed: what may fail is asked for every token.
    pub(super) connection: Option<Box<HttpConnection>>,
}

impl Failure {
    pub(super) fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), connection: None }
    }

    /// What is said of it, without secrets and control characters.
    pub(super) fn told(&self, secrets: &[Secret]) -> String {
        escaped(&redacted(&self.detail, secrets), DETAIL)
    }

    /// Ends a turn with it; gives the connection back.
    pub(super) fn end(self, turn: &mut Turn, secrets: &[Secret]) -> Option<HttpConnection> {
        turn.outcome = self.outcome;
        turn.detail = self.told(secrets);
        turn.ended = clock::monotonic();
        turn.released = turn.ended;
        self.connection.map(|connection| *connection)
    }
}

/// Ends a visit that is no turn.
pub(super) fn finish(done: Result<(), Failure>, visit: &mut Turn, secrets: &[Secret]) {
    match done {
        Ok(()) => {
            visit.outcome = Outcome::Completed;
            visit.ended = clock::monotonic();
            visit.released = visit.ended;
        }
        Err(failure) => drop(failure.end(visit, secrets)),
    }
}

/// A limit that was passed, in words.
pub(super) fn silence(outcome: Outcome) -> Failure {
    let what = if outcome == Outcome::Stalled {
        "nothing more came within the stall limit"
    } else {
        "longer than the turn limit"
    };
    Failure::new(outcome, what)
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let outcome = match &error {
            ConnectError::Dns { .. } => Outcome::Dns,
            // A proxy that refuses stands for the target: nobody gets there.
            ConnectError::Refused { .. } | ConnectError::Proxy { .. } => Outcome::ConnectRefused,
            ConnectError::Tls { .. } => Outcome::Tls,
            ConnectError::Timeout { .. } | ConnectError::ProxyTimeout { .. } | ConnectError::Io { .. } => {
                Outcome::ConnectTimeout
            }
        };
        Self::new(outcome, error.to_string())
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let outcome = match &error {
            HttpError::Closed | HttpError::Truncated => Outcome::Truncated,
            HttpError::Reset => Outcome::Reset,
            HttpError::Tls(_) => Outcome::Tls,
            HttpError::Protocol(_) => Outcome::Protocol,
        };
        Self::new(outcome, error.to_string())
    }
}

impl<'a> Exchange<'a> {
    /// Of a turn that has begun; nothing was sent yet.
    pub(super) fn new(limits: &Limits, turn: &'a mut Turn, live: Live<'a>) -> Self {
        Self {
            watchdog: Watchdog::new(limits, turn.started),
            turn,
            live,
            body_left: limits.reply_bytes,
            failed: None,
            opening: false,
        }
    }

    /// Sends a request on the kept connection or a new one and waits for the response's head.
    pub(super) async fn call(
        &mut self,
        endpoint: &Endpoint,
        kept: Option<HttpConnection>,
        call: &Call<'_>,
    ) -> Result<(HttpConnection, Response<()>), Failure> {
        if let Some(mut connection) = kept.and_then(usable) {
            match self.send(&mut connection, call).await? {
                Ok(response) => return Ok((connection, response)),
                Err(HttpError::Closed | HttpError::Reset) if was_closing(&connection) => self.turn.retries += 1,
                Err(error) => return Err(error.into()),
            }
        }
        // Boxed: connecting is rare, and its state would lie in every open stream otherwise.
        let opened = Box::pin(HttpConnection::open(endpoint));
        let mut connection = self.watchdog.guard(opened).await.map_err(silence)??;
        self.turn.connect.get_or_insert(connection.times.tcp);
        self.turn.tls = self.turn.tls.or(connection.times.tls);
        self.watchdog.sign(clock::monotonic());
        let response = self.send(&mut connection, call).await??;
        Ok((connection, response))
    }

    async fn send(
        &mut self,
        connection: &mut HttpConnection,
        call: &Call<'_>,
    ) -> Result<Result<Response<()>, HttpError>, Failure> {
        let request = call.request();
        self.turn.wire = Some(if connection.version() == Version::HTTP_2 { Wire::Http2 } else { Wire::Http1 });
        let result = self.watchdog.guard(connection.send(&request)).await;
        if self.opening {
            self.turn.sent = connection.sent_at();
        }
        self.watchdog.sign(clock::monotonic());
        if let Ok(Ok(response)) = &result {
            self.turn.retry_after = retry_after(response).or(self.turn.retry_after);
        }
        result.map_err(silence)
    }

    /// Tells how a cancel ended that was sent at `began`, and how long that took: to the turn's end, also where that
    /// had come before.
    pub(super) fn tell_cancel(&self, began: Nanos, ended: &Result<Outcome, Failure>) {
        let (outcome, until) = match ended {
            Ok(_) => (Outcome::Completed, self.turn.ended),
            Err(failure) if failure.outcome == Outcome::Aborted => (Outcome::Completed, clock::monotonic()),
            Err(failure) => (failure.outcome, clock::monotonic()),
        };
        self.live.step(Step::Cancel, outcome, (until - began).max(0));
    }

    /// Waits for something that the target does, within the turn's limits.
    pub(super) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Failure> {
        self.watchdog.guard(future).await.map_err(silence)
    }

    /// Waits for something with a limit of its own in the place of that for silence; `None` when that is passed.
    pub(super) async fn within<T>(
        &mut self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>, Failure> {
        let left = self.watchdog.left();
        let waited = tokio::time::timeout(limit.min(left), future).await;
        self.watchdog.sign(clock::monotonic());
        match waited {
            Ok(value) => Ok(Some(value)),
            Err(_) if left <= limit => Err(silence(Outcome::TimedOut)),
            Err(_) => Ok(None),
        }
    }

    /// Reads a body that is no stream, up to `most` bytes of it; `exact` wants its end to be whole.
    pub(super) async fn read_body(
        &mut self,
        connection: &mut HttpConnection,
        most: usize,
        exact: bool,
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while bytes.len() < most {
            let mut signed = 0;
            let piece = poll_fn(|cx| {
                connection.poll_body(cx, |data, stamp| {
                    signed = stamp.returned;
                    bytes.extend_from_slice(data);
                    ControlFlow::Continue(())
                })
            });
            let progress = self.wait(piece).await?;
            self.watchdog.sign(signed);
            match progress {
                Ok(Progress::More) => {}
                Err(error) if exact => return Err(error.into()),
                // Of an error the status is known already, and worth more than how its text ended.
                Err(_) | Ok(Progress::End) => break,
            }
        }
        Ok(bytes)
    }

    /// The beginning of a body that is no stream, for the report.
    pub(super) async fn read_error(&mut self, connection: &mut HttpConnection) -> Result<String, Failure> {
        let text = self.read_body(connection, ERROR_BODY, false).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// For how long a response that refuses wants the target to be left alone: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(response: &Response<()>) -> Option<Nanos> {
    let refuses = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let text = response.headers().get(header::RETRY_AFTER).filter(|_| refuses)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(clock::nanos(wait.min(LONGEST_WAIT)))
}

/// A connection on which another request can be sent.
pub(super) fn usable(mut connection: HttpConnection) -> Option<HttpConnection> {
    connection.is_usable().then_some(connection)
}

/// Whether a kept connection failed so soon after the request that the server must have been
/// closing it already. Later the request was at work, and its failure is the target's.
pub(super) fn was_closing(connection: &HttpConnection) -> bool {
    connection.is_unanswered() && connection.sent_at().is_none_or(|sent| clock::monotonic() - sent < clock::SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(status: u16, value: &str) -> Option<u64> {
        let response = Response::builder().status(status).header("retry-after", value).body(()).unwrap();
        retry_after(&response).map(|wait| clock::micros(wait) / 1_000_000)
    }

    #[test]
    fn a_target_says_for_how_long_it_wants_to_be_left_alone() {
        assert_eq!(wait(429, " 7 "), Some(7));
        assert_eq!(wait(503, "0"), Some(0));
        assert_eq!(wait(429, "99999999999"), Some(3_600));
        assert_eq!(wait(429, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(wait(429, &date).is_some_and(|wait| (90..=100).contains(&wait)));
        for (status, value) in [(200, "7"), (500, "7"), (429, "soon"), (429, "-1")] {
            assert_eq!(wait(status, value), None, "{status} {value}");
        }
    }
}
