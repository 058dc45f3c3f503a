//! A cheap path, asked ten times a second: its latency is the event loop's delay as a stranger sees it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;
use url::{Position, Url};

use super::{Moment, ProbeError};
use crate::clock::{self, Nanos, SECOND};
use crate::net::{Endpoint, Fetcher};
use crate::record::{Gauge, Watched};
use crate::secret::escaped;

/// Requests under way: a server that hangs for a while is asked on, so that every moment of its hanging counts.
const OPEN: usize = 50;
/// Who has waited longer than this at the end of the run is taken to hang.
const WAITS: Nanos = SECOND;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bytes of an answer that are read.
const ANSWER: usize = 4_096;

/// Requests: those that have ended, with when they were to begin and how long they took, or why they failed; and when
/// those began that have not.
#[derive(Debug, Default)]
struct Requests {
    ended: Vec<(Nanos, Result<f64, String>)>,
    open: Vec<Nanos>,
}

/// The watcher of a path.
pub(super) struct Health {
    fetcher: Rc<Fetcher>,
    /// Path and query.
    path: String,
    requests: Rc<RefCell<Requests>>,
    /// What the newest answer was.
    last: Option<Result<(), String>>,
    /// Requests that failed, by the second in which they were to begin.
    failed: BTreeMap<u32, u32>,
    newest: Option<Moment>,
}

impl Health {
    pub(super) fn new(endpoint: Endpoint, url: &Url) -> Self {
        let fetcher = Rc::new(Fetcher::new(endpoint, url));
        let path = url[Position::BeforePath..Position::AfterQuery].to_owned();
        Self { fetcher, path, requests: Rc::default(), last: None, failed: BTreeMap::new(), newest: None }
    }

    /// Takes what has ended, and asks once more. The first answer is waited for: it tells what there is to watch.
    pub(super) async fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        self.newest = Some(moment);
        if self.last.is_none() {
            let answered = answer(&self.fetcher, &self.path).await;
            self.last = Some(answered);
        }
        let ended = std::mem::take(&mut self.requests.borrow_mut().ended);
        for (at, took) in ended {
            // A request counts where it was to begin: there somebody would have begun to wait.
            let second = moment.at(at).second;
            match took {
                Ok(micros) => {
                    out.put(second, Gauge::HealthLatency, None, micros);
                    self.last = Some(Ok(()));
                }
                Err(why) => {
                    *self.failed.entry(second).or_default() += 1;
                    self.last = Some(Err(why));
                }
            }
        }
        self.ask(moment.at);
        match &self.last {
            Some(Err(why)) => Err(ProbeError::failed(why)),
            _ => Ok(()),
        }
    }

    fn ask(&self, at: Nanos) {
        if self.requests.borrow().open.len() >= OPEN {
            return;
        }
        self.requests.borrow_mut().open.push(at);
        let (fetcher, path, requests) = (Rc::clone(&self.fetcher), self.path.clone(), Rc::clone(&self.requests));
        tokio::task::spawn_local(async move {
            let answered = tokio::time::timeout(PATIENCE, answer(&fetcher, &path)).await;
            let took = (clock::monotonic() - at) as f64 / 1e3;
            let answered = answered.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())));
            let mut requests = requests.borrow_mut();
            requests.open.retain(|open| *open != at);
            requests.ended.push((at, answered.map(|()| took)));
        });
    }

    /// Failures by second, and those who still wait: their latency is at least what they have waited.
    pub(super) fn last_words(&mut self, out: &mut Watched) {
        let Some(newest) = self.newest else { return };
        let waiting = std::mem::take(&mut self.requests.borrow_mut().open);
        for at in waiting.into_iter().filter(|at| newest.at - at > WAITS) {
            out.put(newest.at(at).second, Gauge::HealthLatency, None, (newest.at - at) as f64 / 1e3);
            *self.failed.entry(newest.at(at).second).or_default() += 1;
        }
        for second in 0..=newest.second {
            let failed = self.failed.get(&second).copied().unwrap_or(0);
            out.put(second, Gauge::HealthFailures, None, f64::from(failed));
        }
    }
}

async fn answer(fetcher: &Fetcher, path: &str) -> Result<(), String> {
    let response = fetcher.get(path, HeaderMap::new(), ANSWER).await;
    let response = response.map_err(|error| escaped(&error.to_string(), 200))?;
    let status = response.status();
    let page = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if !status.is_success() {
        return Err(format!("answered {status}"));
    }
    // LibreChat answers every path that it does not have with its page and status 200.
    if page { Err("answered with a web page: there is no such path".to_owned()) } else { Ok(()) }
}

/// The innermost cause, which says what happened.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    escaped(&innermost.to_string(), 200)
}
