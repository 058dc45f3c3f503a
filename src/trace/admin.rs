//! The mock LLM's side of a run: its journal and its clock, read over its admin listener.

use mock_llm::Clock;
use mock_llm::journal::{Page, Turn};
use serde::de::DeserializeOwned;
use url::Url;

use crate::net::read_bounded;
use crate::secret::Secret;

/// The bytes of an answer that are read: a page of the journal has some 5 MB.
const ANSWER: usize = 64 << 20;

/// The admin listener of a mock LLM.
#[derive(Debug, Clone)]
pub struct MockAdmin {
    client: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

/// Why the mock's side cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No answer, or none that can be read.
    #[error("the mock's admin listener at {url} does not answer: {source}")]
    Unreachable {
        /// What was asked.
        url: Url,
        /// What reqwest said.
        source: reqwest::Error,
    },
    /// An answer that cannot be read.
    #[error("{url} answered something else than mock-llm of this version does: {source}")]
    Answer {
        /// What was asked.
        url: Url,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// An answer that is none of a mock LLM.
    #[error("{url} answered {status}; is this the admin listener of mock-llm, and MOCK_LLM_ADMIN_TOKEN right?")]
    Status {
        /// What was asked.
        url: Url,
        /// What came back.
        status: u16,
    },
}

impl MockAdmin {
    /// An admin listener at `base`; `client` is the run's shared one.
    pub fn new(client: reqwest::Client, base: Url, token: Option<Secret>) -> Self {
        Self { client, base, token }
    }

    /// Where it is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, TraceError> {
        // A path that is written here always joins.
        let url = self.base.join(path_and_query).unwrap_or_else(|_| self.base.clone());
        let unreachable =
            |source: reqwest::Error| TraceError::Unreachable { url: url.clone(), source: source.without_url() };
        let mut request = self.client.get(url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(TraceError::Status { url: url.clone(), status: response.status().as_u16() });
        }
        let body = read_bounded(response, ANSWER).await.map_err(unreachable)?;
        serde_json::from_slice(&body).map_err(|source| TraceError::Answer { url: url.clone(), source })
    }

    /// The mock's clocks now.
    ///
    /// # Errors
    /// When the listener does not answer.
    pub async fn clock(&self) -> Result<Clock, TraceError> {
        self.get("/admin/clock").await
    }

    /// The models that the mock serves.
    ///
    /// # Errors
    /// When the listener does not answer.
    pub async fn models(&self) -> Result<Vec<String>, TraceError> {
        let behaviour: serde_json::Value = self.get("/admin/behaviour").await?;
        Ok(behaviour["models"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect())
    }

    /// The number of the newest turn that has ended.
    ///
    /// # Errors
    /// When the listener does not answer.
    pub async fn newest(&self) -> Result<u64, TraceError> {
        let page: Page = self.get("/admin/turns?limit=1").await?;
        Ok(page.newest)
    }

    /// The page of the journal after turn number `after`.
    ///
    /// # Errors
    /// When the listener does not answer.
    pub async fn page(&self, after: u64) -> Result<Page, TraceError> {
        self.get(&format!("/admin/turns?after={after}")).await
    }

    /// All turns after number `after` that have ended by now.
    ///
    /// # Errors
    /// When the listener does not answer.
    pub async fn turns(&self, after: u64) -> Result<Vec<Turn>, TraceError> {
        let (mut turns, mut after) = (Vec::new(), after);
        loop {
            let page = self.page(after).await?;
            turns.extend(page.turns);
            after = page.next;
            if !page.more {
                return Ok(turns);
            }
        }
    }
}
