//! The way to a target, where it is not simply the host and port of its URL.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use crate::secret::Secret;

/// The environment variable of a proxy's credentials, `user:password`.
pub const PROXY_AUTH_VARIABLE: &str = "CAPACITY_CHECK_PROXY_AUTH";

/// The way to a target. By default: what the resolver says, nobody between, from any local address.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The name that TLS asks for and verifies, where it is not the URL's host.
    pub sni: Option<String>,
    /// Addresses that are taken instead of asking the resolver.
    pub pins: Vec<Pin>,
    /// Who opens a tunnel to the target.
    pub proxy: Option<Proxy>,
    /// Local addresses that connections come from in turn, all of one family; none: the system's choice.
    pub source_addresses: Vec<IpAddr>,
}

/// An address of a host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The host, as a URL has it: small letters, no brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where to connect.
    pub address: IpAddr,
}

/// An HTTP proxy, spoken to in plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `user:password`, where it wants them.
    pub credentials: Option<Secret>,
}

impl Proxy {
    /// Its URL, without the credentials.
    pub(super) fn url(&self) -> String {
        format!("http://{}", authority(&self.host, self.port))
    }
}

impl Route {
    /// The way to something beside the target: by its own name, and straight where it is on this machine, for a proxy
    /// has another loopback.
    #[must_use]
    pub fn aside(&self, url: &Url) -> Self {
        let mut route = Self { sni: None, ..self.clone() };
        if is_loopback(url) {
            (route.proxy, route.source_addresses) = (None, Vec::new());
        }
        route
    }

    /// The addresses that are said for a host and port; none: the resolver is asked.
    pub(super) fn pinned(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        let pins = self.pins.iter().filter(|pin| pin.host == host && pin.port == port);
        pins.map(|pin| SocketAddr::new(pin.address, port)).collect()
    }

    /// The local address of the connection with this number, counted from 0.
    pub(super) fn source(&self, number: usize) -> Option<IpAddr> {
        number.checked_rem(self.source_addresses.len()).map(|index| self.source_addresses[index])
    }

    /// Whether an address can be reached from the source addresses.
    pub(super) fn reaches(&self, address: &SocketAddr) -> bool {
        self.source_addresses.first().is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    }
}

/// A host and port as one text; an IPv6 address in brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_counts_for_its_host_and_port_alone() {
        let pin = |host: &str, port, address: &str| {
            let address = address.parse().unwrap();
            Pin { host: host.to_owned(), port, address }
        };
        let route = Route {
            pins: vec![
                pin("chat.test", 443, "10.0.0.5"),
                pin("chat.test", 443, "::1"),
                pin("other.test", 443, "10.0.0.6"),
            ],
            ..Route::default()
        };
        let found: Vec<String> = route.pinned("chat.test", 443).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.5:443", "[::1]:443"]);
        assert!(route.pinned("chat.test", 80).is_empty());
    }

    #[test]
    fn connections_come_from_one_source_after_the_other() {
        let sources: Vec<IpAddr> = ["127.0.0.2", "127.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
        let route = Route { source_addresses: sources.clone(), ..Route::default() };
        let taken: Vec<IpAddr> = (0..4).filter_map(|number| route.source(number)).collect();
        assert_eq!(taken, [sources[0], sources[1], sources[0], sources[1]]);
        assert!(route.reaches(&"10.0.0.1:80".parse().unwrap()) && !route.reaches(&"[::1]:80".parse().unwrap()));
        assert_eq!(Route::default().source(7), None);
        assert!(Route::default().reaches(&"[::1]:80".parse().unwrap()));
    }

    #[test]
    fn what_is_on_this_machine_is_asked_straight() {
        let route = Route {
            sni: Some("inner.test".to_owned()),
            proxy: Some(Proxy { host: "10.0.0.9".to_owned(), port: 3128, credentials: None }),
            source_addresses: vec!["10.0.0.7".parse().unwrap()],
            ..Route::default()
        };
        for url in ["http://127.0.0.1:8090", "http://localhost", "http://[::1]:8090"] {
            let aside = route.aside(&url.parse().unwrap());
            assert!(aside.proxy.is_none() && aside.source_addresses.is_empty() && aside.sni.is_none(), "{url}");
        }
        let aside = route.aside(&"http://mock.staging.internal:8090".parse().unwrap());
        assert_eq!((aside.proxy, aside.sni), (route.proxy, None));
    }

    #[test]
    fn addresses_of_version_6_stand_in_brackets() {
        assert_eq!(authority("::1", 443), "[::1]:443");
        assert_eq!(authority("chat.test", 443), "chat.test:443");
    }
}
