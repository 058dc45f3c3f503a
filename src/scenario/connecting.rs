//! How connections to the target are made, where it is not as its URL alone says.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use url::{Host, Url};

use super::plain_url;

/// How connections to the target are made. By default as its URL alone says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Connecting {
    /// The name that TLS asks for and verifies, where it is not the URL's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Our certificate, for servers that ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, where that is in another file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// Addresses that are taken instead of asking the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolve: Vec<Pinned>,
    /// The HTTP proxy that opens a tunnel to the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Url>,
    /// Local addresses that connections come from in turn, all of one family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_addresses: Vec<IpAddr>,
}

impl Connecting {
    /// Whether connections are made as the URL alone says.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// The address of a host and port, as `curl --resolve` has it: `HOST:PORT:ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The host's name, as a URL has it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where to connect instead of asking the resolver.
    pub address: IpAddr,
}

impl Pinned {
    /// Reads one. An IPv6 address may stand in brackets.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` should be HOST:PORT:ADDRESS, such as chat.example:443:10.0.0.5");
        let mut parts = text.splitn(3, ':');
        let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let host = match Host::parse(host) {
            Ok(Host::Domain(name)) => name,
            Ok(_) => return Err(format!("`{text}` names an address where a host's name should stand")),
            Err(_) => return Err(wrong()),
        };
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        if port == 0 || address.is_unspecified() { Err(wrong()) } else { Ok(Self { host, port, address }) }
    }

    /// Whether it is said for the host and port of a URL.
    pub fn concerns(&self, url: &Url) -> bool {
        url.domain() == Some(self.host.as_str()) && url.port_or_known_default() == Some(self.port)
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.host, self.port, self.address)
    }
}

impl Serialize for Pinned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the URL of a proxy: `http://host:port`, and nothing else in it.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_proxy(text: &str) -> Result<Url, String> {
    // A text with an @ may hold a password: it is not repeated.
    if text.contains('@') {
        return Err("the URL carries a user name or password; a proxy's are read from the environment's \
                    CAPACITY_CHECK_PROXY_AUTH, user:password"
            .to_owned());
    }
    let wrong = || format!("`{text}` should be http://host:port: a proxy is spoken to in plain HTTP, with CONNECT");
    let url = plain_url(text).map_err(|_| wrong())?;
    if url.scheme() == "http" && url.path() == "/" { Ok(url) } else { Err(wrong()) }
}

/// Reads the local addresses that connections come from in turn.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_sources(texts: &[String]) -> Result<Vec<IpAddr>, String> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for text in texts {
        let wrong = || format!("`{text}` is no address of this machine, such as 10.0.0.7");
        let address: IpAddr = text.trim().parse().map_err(|_| wrong())?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(wrong());
        }
        if sources.contains(&address) {
            return Err(format!("names {address} twice"));
        }
        if sources.first().is_some_and(|first| first.is_ipv4() != address.is_ipv4()) {
            return Err("mixes IPv4 and IPv6; name addresses of the family by which the target is reached".to_owned());
        }
        sources.push(address);
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_as_for_curl() {
        for (text, expected) in [
            ("chat.example:443:10.0.0.5", "chat.example:443:10.0.0.5"),
            ("Chat.Example:8443:[::1]", "chat.example:8443:::1"),
            ("chat.example:443:fd00::7", "chat.example:443:fd00::7"),
            ("b\u{fc}cher.example:80:10.0.0.5", "xn--bcher-kva.example:80:10.0.0.5"),
        ] {
            assert_eq!(Pinned::parse(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "chat.example",
            "chat.example:443",
            "chat.example:443:",
            "chat.example:443:other.example",
            "chat.example:0:10.0.0.5",
            "chat.example:99999:10.0.0.5",
            "chat.example:https:10.0.0.5",
            "chat.example:443:0.0.0.0",
            "chat.example:443:10.0.0.5,10.0.0.6",
            ":443:10.0.0.5",
            "[::1]:443:10.0.0.5",
        ] {
            let told = Pinned::parse(text).unwrap_err();
            assert!(told.contains("HOST:PORT:ADDRESS"), "{text}: {told}");
        }
        assert!(Pinned::parse("10.0.0.1:443:10.0.0.5").unwrap_err().contains("a host's name"));
    }

    #[test]
    fn a_pin_concerns_its_host_and_port() {
        let pinned = Pinned::parse("chat.example:443:10.0.0.5").unwrap();
        let concerns = |url: &str| pinned.concerns(&url.parse().unwrap());
        assert!(concerns("https://CHAT.example/v1") && concerns("http://chat.example:443"));
        assert!(!concerns("http://chat.example") && !concerns("https://other.example"));
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        for (text, host, port) in
            [("http://proxy.internal:3128", "proxy.internal", 3128), ("http://10.0.0.9", "10.0.0.9", 80)]
        {
            let url = parse_proxy(text).unwrap();
            assert_eq!((url.host_str(), url.port_or_known_default()), (Some(host), Some(port)));
        }
        for text in ["https://proxy:3128", "socks5://proxy:1080", "proxy:3128", "http://proxy/a", "http://proxy?q", ""]
        {
            assert!(parse_proxy(text).unwrap_err().contains("http://host:port"), "{text}");
        }
        for text in ["http://user:hunter2@proxy:3128", "user:hunter2@proxy"] {
            let told = parse_proxy(text).unwrap_err();
            assert!(told.contains("CAPACITY_CHECK_PROXY_AUTH") && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn sources_are_addresses_of_one_family() {
        let parse = |texts: &[&str]| parse_sources(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["127.0.0.2", " 127.0.0.3"]).unwrap().len(), 2);
        assert_eq!(parse(&["::1"]).unwrap().len(), 1);
        for (texts, expected) in [
            (&["eth0"][..], "`eth0` is no address"),
            (&["127.0.0.2:80"], "is no address"),
            (&["0.0.0.0"], "is no address"),
            (&[""], "is no address"),
            (&["127.0.0.2", "127.0.0.2"], "twice"),
            (&["127.0.0.2", "::1"], "mixes IPv4 and IPv6"),
        ] {
            assert!(parse(texts).unwrap_err().contains(expected), "{texts:?}");
        }
    }
}
