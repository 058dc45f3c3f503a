//! A cheap path, asked ten times a second: its latency is the event loop's delay as a stranger sees it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use reqwest::Client;
use url::Url;

use super::{Moment, ProbeError};
use crate::clock::{self, Nanos, SECOND};
use crate::net::read_bounded;
use crate::record::{Gauge, Watched};
use crate::secret::escaped;

/// Requests under way: a server that hangs for a while is asked on, so that every moment of its hanging counts.
const OPEN: usize = 50;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bytes of an answer that are read.
const ANSWER: usize = 4_096;

/// A request that has ended: when it was to begin, and how long it took, or why it failed.
type Ended = (Nanos, Result<f64, String>);

/// The watcher of a path.
pub(super) struct Health {
    client: Client,
    url: Url,
    ended: Rc<RefCell<Vec<Ended>>>,
    open: Rc<RefCell<usize>>,
    /// What the newest answer was.
    last: Option<Result<(), String>>,
    epoch: Nanos,
}

impl Health {
    pub(super) fn new(client: Client, url: Url) -> Self {
        Self { client, url, ended: Rc::default(), open: Rc::default(), last: None, epoch: 0 }
    }

    pub(super) fn name(&self) -> String {
        escaped(self.url.as_str(), 200)
    }

    /// Takes what has ended, and asks once more.
    pub(super) fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        self.epoch = moment.at - (moment.at_s * SECOND as f64) as Nanos;
        let mut failures = 0.0;
        for (at, took) in self.ended.borrow_mut().drain(..) {
            match took {
                // A request counts where it began: there somebody would have begun to wait.
                Ok(micros) => {
                    out.put(Moment::of(at, self.epoch).second, Gauge::HealthLatency, None, micros);
                    self.last = Some(Ok(()));
                }
                Err(why) => {
                    failures += 1.0;
                    self.last = Some(Err(why));
                }
            }
        }
        // Ten looks make a second: so each stands for ten times its share.
        out.put(moment.second, Gauge::HealthFailures, None, failures * 10.0);
        self.ask(moment.at);
        match &self.last {
            Some(Err(why)) => Err(ProbeError::failed(why)),
            _ => Ok(()),
        }
    }

    fn ask(&self, at: Nanos) {
        if *self.open.borrow() >= OPEN {
            return;
        }
        *self.open.borrow_mut() += 1;
        let (client, url) = (self.client.clone(), self.url.clone());
        let (ended, open) = (Rc::clone(&self.ended), Rc::clone(&self.open));
        tokio::task::spawn_local(async move {
            let answered = tokio::time::timeout(PATIENCE, answer(&client, url)).await;
            let took = (clock::monotonic() - at) as f64 / 1e3;
            let answered = answered.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())));
            *open.borrow_mut() -= 1;
            ended.borrow_mut().push((at, answered.map(|()| took)));
        });
    }
}

async fn answer(client: &Client, url: Url) -> Result<(), String> {
    let response = client.get(url).send().await.map_err(|error| cause(&error.without_url()))?;
    let status = response.status();
    let page = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    read_bounded(response, ANSWER).await.map_err(|error| cause(&error.without_url()))?;
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
