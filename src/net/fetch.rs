//! What is asked of the target beside its users' turns, its models and its health: by the same way, on connections that
//! are kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use url::{Position, Url};

use super::connect::{ConnectError, Endpoint};
use super::http::{HttpConnection, HttpError, Progress};

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks an endpoint, as often as wanted and at once.
pub struct Fetcher {
    endpoint: Endpoint,
    host: HeaderValue,
    /// Connections on which nothing is asked now.
    kept: RefCell<Vec<HttpConnection>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came over it is no HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Nothing whole within the limit.
    #[error("no answer in {} s", LIMIT.as_secs())]
    Late,
    /// What was to be asked for is no path.
    #[error("`{0}` is no path")]
    Path(String),
}

impl Fetcher {
    /// For an endpoint that was made of this URL.
    pub fn new(endpoint: Endpoint, url: &Url) -> Self {
        let host = &url[Position::BeforeHost..Position::AfterPort];
        // A URL's host is ASCII without control characters.
        let host = HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self { endpoint, host, kept: RefCell::default() }
    }

    /// Asks for a path, with further headers, and reads up to `most` bytes of the answer's body.
    ///
    /// # Errors
    /// When no answer comes within 10 s, whatever the reason.
    pub async fn get(&self, path: &str, headers: HeaderMap, most: usize) -> Result<Response<Vec<u8>>, FetchError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = path.parse().map_err(|_| FetchError::Path(path.to_owned()))?;
        *request.headers_mut() = headers;
        for (name, value) in [
            (header::HOST, self.host.clone()),
            (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            (header::USER_AGENT, HeaderValue::from_static(concat!("capacity-check/", env!("CARGO_PKG_VERSION")))),
        ] {
            request.headers_mut().entry(name).or_insert(value);
        }
        let asked = Box::pin(self.ask(&request, most));
        tokio::time::timeout(LIMIT, asked).await.unwrap_or(Err(FetchError::Late))
    }

    async fn ask(&self, request: &Request<Bytes>, most: usize) -> Result<Response<Vec<u8>>, FetchError> {
        let kept = self.kept.borrow_mut().pop();
        if let Some(mut connection) = kept
            && connection.is_usable()
        {
            match connection.send(request).await {
                Ok(response) => return self.read(connection, response, most).await,
                // The server was closing it already, which is no failure of it.
                Err(HttpError::Closed | HttpError::Reset) if connection.is_unanswered() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut connection = HttpConnection::open(&self.endpoint).await?;
        let response = connection.send(request).await?;
        self.read(connection, response, most).await
    }

    /// Reads the body; a connection that was read to its end is kept.
    async fn read(
        &self,
        mut connection: HttpConnection,
        response: Response<()>,
        most: usize,
    ) -> Result<Response<Vec<u8>>, FetchError> {
        let mut body = Vec::new();
        while body.len() < most {
            let piece = poll_fn(|cx| {
                connection.poll_body(cx, |data, _| {
                    let room = most - body.len();
                    body.extend_from_slice(&data[..data.len().min(room)]);
                    ControlFlow::Continue(())
                })
            });
            if piece.await? == Progress::End {
                self.kept.borrow_mut().push(connection);
                break;
            }
        }
        Ok(response.map(|()| body))
    }
}
