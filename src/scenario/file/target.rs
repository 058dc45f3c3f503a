//! What is tested, as it is written in TOML. The doc comments here are the descriptions of its JSON Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SiteSection, SocketIoSection, SseSection, WebSocketSection};

/// What is tested.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TargetSection {
    /// Base URL of the deployment, such as `https://chat.staging.internal`.
    pub url: Option<String>,
    /// How the deployment is spoken to; `openai` without it.
    #[schemars(with = "Profile")]
    pub profile: Option<Profile>,
    /// Admin listener of the mock LLM behind the target; its token is read from MOCK_LLM_ADMIN_TOKEN.
    pub mock_admin: Option<String>,
    /// LibreChat's custom endpoint to ask; without it the one that reaches our mock.
    pub endpoint: Option<String>,
    /// The model to ask for; without it the first that the target lists, or that is our mock's.
    pub model: Option<String>,
    /// The environment variable that holds the bearer key; CAPACITY_CHECK_API_KEY without it.
    pub api_key_env: Option<String>,
    /// Headers to send with every turn: the name, and the environment variable that holds the value,
    /// which may be a secret.
    pub headers_env: BTreeMap<String, String>,
    /// Further certificate authorities, PEM. Relative to this file.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate; said in the result.
    pub insecure: Option<bool>,
    /// Speak HTTP/1.1, even where the target offers HTTP/2.
    pub http1: Option<bool>,
    /// The name that TLS asks for and verifies, where it is not the URL's host.
    pub sni: Option<String>,
    /// Our certificate, PEM, for a deployment that asks for one, with its chain behind it. Relative to this file.
    pub client_cert: Option<PathBuf>,
    /// Its private key, PEM, where it is not in the same file. Relative to this file.
    pub client_key: Option<PathBuf>,
    /// Addresses to take instead of asking the resolver, `HOST:PORT:ADDRESS`, such as `chat.example:443:10.0.0.5`;
    /// of several for one host the first that answers.
    pub resolve: Option<Vec<String>>,
    /// An HTTP proxy, `http://host:port`, which is asked for a tunnel by CONNECT; its credentials are read from
    /// CAPACITY_CHECK_PROXY_AUTH, `user:password`.
    pub proxy: Option<String>,
    /// Addresses of this machine that connections come from in turn: each has its own range of ports.
    pub source_addresses: Option<Vec<String>>,
    /// How exactly white space of replies is compared with what the mock sent; `exact` without it.
    #[schemars(with = "WhiteSpace")]
    pub white_space: Option<WhiteSpace>,
    /// The target's model need not be our mock: somebody pays for its tokens.
    pub real_model: Option<bool>,
    /// For TCP, a proxy's tunnel and TLS together; 10s without it.
    pub connect_timeout: Option<String>,
    /// A turn without a single byte for so long is stalled; 30s without it.
    pub stall_timeout: Option<String>,
    /// The longest that a turn may take; 120s without it.
    pub turn_timeout: Option<String>,
    /// Values for places of the protocol's texts: the name, and the environment variable that holds the value, which
    /// may be a secret.
    pub values_env: BTreeMap<String, String>,
    /// What a client does besides turns, for the profiles sse, websocket and socketio.
    #[schemars(with = "SiteSection")]
    pub site: Option<SiteSection>,
    /// The protocol of the profile sse.
    #[schemars(with = "SseSection")]
    pub sse: Option<SseSection>,
    /// The protocol of the profile websocket.
    #[schemars(with = "WebSocketSection")]
    pub websocket: Option<WebSocketSection>,
    /// The protocol of the profile socketio.
    #[schemars(with = "SocketIoSection")]
    pub socketio: Option<SocketIoSection>,
}

/// How a deployment is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// OpenAI's chat completions over SSE.
    Openai,
    /// LibreChat's web API, v0.7.9 and later.
    Librechat,
    /// Any endpoint that streams over HTTP, as `[target.sse]` of a scenario describes it.
    Sse,
    /// Any chat over WebSocket, as `[target.websocket]` describes it.
    Websocket,
    /// Any chat over Socket.IO, as `[target.socketio]` describes it.
    Socketio,
}

/// How exactly white space of a traced reply is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WhiteSpace {
    /// As the mock sent it.
    #[default]
    Exact,
    /// Not at the ends of the reply.
    TrimEnds,
    /// Any run of it is one space, and none stands at the ends.
    Collapse,
}
