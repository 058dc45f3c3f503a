//! What is tested, and whether it may be.

use std::net::IpAddr;
use std::time::Duration;

use mock_llm::behaviour::Behaviour;
use serde::Serialize;
use url::{Host, Url};

use super::optional_seconds;

/// What is tested.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Target {
    /// The reference deployment before the bundled mock LLM, both started as child processes.
    Embedded {
        /// How the mock behaves; its key is left out.
        #[serde(serialize_with = "as_tree")]
        mock: Box<Behaviour>,
        /// The deployment before it.
        reference: Reference,
    },
    /// An OpenAI-compatible API.
    OpenAi {
        /// The base of its paths, such as `http://host/v1`.
        base: Url,
        /// The admin listener of the mock LLM behind it.
        mock_admin: Option<Url>,
    },
    /// LibreChat.
    LibreChat {
        /// The deployment's base, such as `https://chat.example`.
        base: Url,
        /// The admin listener of the mock LLM behind it.
        mock_admin: Option<Url>,
        /// The custom endpoint, where one was named.
        endpoint: Option<String>,
        /// Who the users are.
        accounts: Accounts,
    },
    /// A deployment whose protocol the scenario describes.
    Described {
        /// The deployment's base, such as `https://chat.example/api`.
        base: Url,
        /// The admin listener of the mock LLM behind it.
        mock_admin: Option<Url>,
        /// How it is spoken to.
        protocol: super::ProtocolPlan,
        /// What a client does besides turns.
        site: Box<super::Site>,
        /// A list of accounts, where users have one.
        accounts: Option<std::path::PathBuf>,
    },
}

/// What is set about the embedded reference deployment; costs that are not said are the calibrated ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// Its processes.
    pub workers: usize,
    /// Whether it has LibreChat's default limits and bans.
    pub default_limits: bool,
    /// Whether it speaks as v0.8.1 and before.
    pub one_step: bool,
    /// Exclusive time of a login.
    #[serde(rename = "login_cost_s", serialize_with = "optional_seconds")]
    pub login_cost: Option<Duration>,
    /// Exclusive time of a turn before the model is asked.
    #[serde(rename = "turn_cost_s", serialize_with = "optional_seconds")]
    pub turn_cost: Option<Duration>,
    /// Exclusive time of a token.
    #[serde(rename = "token_cost_s", serialize_with = "optional_seconds")]
    pub token_cost: Option<Duration>,
    /// Time that a turn waits besides.
    #[serde(rename = "fixed_latency_s", serialize_with = "optional_seconds")]
    pub fixed_latency: Option<Duration>,
    /// Whether its data are in a real MongoDB.
    pub mongo: bool,
    /// Connections of its pool, where that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mongo_pool: Option<u32>,
    /// Whether its sessions, limits and streams are in a real Redis.
    pub redis: bool,
    /// What goes wrong on purpose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plants: Vec<String>,
}

/// Where accounts come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Accounts {
    /// A list of them.
    List {
        /// The file.
        file: std::path::PathBuf,
    },
    /// They are made by registration, before the run.
    Registration,
}

fn as_tree<S: serde::Serializer>(behaviour: &Behaviour, serializer: S) -> Result<S::Ok, S::Error> {
    behaviour.to_value().serialize(serializer)
}

impl Target {
    /// The word for it, in results and folders.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::OpenAi { .. } => "openai",
            Self::LibreChat { .. } => "librechat",
            Self::Described { protocol, .. } => protocol.kind(),
        }
    }

    /// Its base URL; none of the embedded one, whose address is not known before it runs.
    pub fn base(&self) -> Option<&Url> {
        match self {
            Self::Embedded { .. } => None,
            Self::OpenAi { base, .. } | Self::LibreChat { base, .. } | Self::Described { base, .. } => Some(base),
        }
    }

    /// Whether the mock behind it can be asked.
    pub fn has_mock(&self) -> bool {
        match self {
            Self::Embedded { .. } => true,
            Self::OpenAi { mock_admin, .. }
            | Self::LibreChat { mock_admin, .. }
            | Self::Described { mock_admin, .. } => mock_admin.is_some(),
        }
    }

    /// Reads the URL of an OpenAI-compatible API; a URL without a path means `/v1`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn openai_base(text: &str) -> Result<Url, String> {
        let mut url = plain_url(text)?;
        if url.path() == "/" {
            url.set_path("/v1");
        }
        Ok(url)
    }
}

/// Reads an `http(s)` URL without credentials, query or fragment.
///
/// # Errors
/// A sentence that says what was expected.
pub fn plain_url(text: &str) -> Result<Url, String> {
    // A text with an @ may hold a password: it is not repeated.
    let named = if text.contains('@') { "the URL".to_owned() } else { format!("`{text}`") };
    let url: Url =
        text.parse().map_err(|error| format!("{named} is no URL ({error}); write it like http://host:port"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("{named} should begin with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL carries a user name or password; use the environment or --header instead".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL should have no query and no fragment".to_owned());
    }
    Ok(url)
}

/// Whether a host is certainly on this machine or in a private network: a loopback, private,
/// link-local or unique-local address, or a name that can only be one.
pub fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_private_address(address.into()),
        Some(Host::Ipv6(address)) => is_private_address(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || [".localhost", ".local", ".internal", ".test"].iter().any(|end| name.ends_with(end))
        }
        None => false,
    }
}

/// Whether an address is on this machine or in a private network.
pub fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_private_address(mapped.into()),
            None => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_is_what_cannot_be_somebody_else_s() {
        for (url, private) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]/v1", true),
            ("http://10.1.2.3", true),
            ("http://172.32.0.1", false),
            ("http://192.168.1.1", true),
            ("http://[fd00::1]", true),
            ("http://[::ffff:8.8.8.8]", false),
            ("http://localhost:3080", true),
            ("https://chat.staging.example", false),
            ("https://localhost.example", false),
        ] {
            assert_eq!(is_private(&url.parse().unwrap()), private, "{url}");
        }
    }

    #[test]
    fn a_base_without_a_path_means_v1() {
        assert_eq!(Target::openai_base("http://h:1").unwrap().as_str(), "http://h:1/v1");
        assert_eq!(Target::openai_base("http://h:1/api/v2").unwrap().as_str(), "http://h:1/api/v2");
        assert!(Target::openai_base("http://u:hunter2@h").unwrap_err().contains("environment"));
        assert!(!Target::openai_base("http://u:hunter2@h").unwrap_err().contains("hunter2"));
        for text in ["ftp://u:hunter2@h", "http://u:hunter2@h:99999"] {
            assert!(!Target::openai_base(text).unwrap_err().contains("hunter2"));
        }
        assert!(Target::openai_base("ftp://h").unwrap_err().contains("http://"));
        assert!(Target::openai_base("h:80").is_err());
    }
}
