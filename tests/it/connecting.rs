//! The way to a target that is not as its URL alone says: names and certificates of TLS, addresses said instead of
//! resolved, proxies, source addresses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capacity_check::driver::openai::OpenAi;
use capacity_check::driver::{Driver, Limits};
use capacity_check::net::{Endpoint, Pin, Proxy, Route, TlsSettings, client_config};
use capacity_check::record::{Outcome, Turn};
use capacity_check::secret::Secret;
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Mock, STREAM_HEAD, Server, limits, listen, load, run, run_with, runtime, token, tool, turn_in};

/// Short tiers.
const SHORT: [&str; 12] = [
    "--tiers",
    "3",
    "--think",
    "100ms",
    "--ramp",
    "0.2s",
    "--steady",
    "2s",
    "--steady-max",
    "2s",
    "--quick",
    "--no-progress",
];

/// What can be kept of callers by a thread and looked at by a test.
type Kept<T> = Arc<Mutex<Vec<T>>>;

/// The head of a request with its body read away; `None` at the end of the connection.
fn head(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let from = head.len();
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
        let line = &head[from..];
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

/// A field of a head.
fn field(head: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    head.lines().find_map(value)
}

/// A chat server that answers with one word and closes; where its callers came from, and the hosts that they asked.
fn chat() -> (Server, Kept<(IpAddr, String)>) {
    let seen: Kept<(IpAddr, String)> = Kept::default();
    let noted = Arc::clone(&seen);
    let server = Server::start(move |mut stream, _| {
        let peer = stream.peer_addr().unwrap().ip();
        let Some(head) = head(&stream) else { return };
        noted.lock().unwrap().push((peer, field(&head, "host").unwrap_or_default()));
        let _ = write!(stream, "{STREAM_HEAD}{}data: [DONE]\n\n", token("hello"));
    });
    (server, seen)
}

fn address(base: &str) -> SocketAddr {
    base.trim_start_matches("http://").parse().unwrap()
}

/// A certificate and its key.
struct Identity {
    certified: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Identity {
    fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self { certified: rcgen::generate_simple_self_signed(names).unwrap() }
    }

    fn certificate(&self) -> String {
        self.certified.cert.pem()
    }

    fn key(&self) -> String {
        self.certified.signing_key.serialize_pem()
    }
}

/// A TLS terminator before a plain server.
struct Front {
    address: SocketAddr,
    identity: Identity,
    /// The names that TLS was asked for.
    asked: Kept<Option<String>>,
}

/// Starts one for these names, which lives as long as the process; with `client` it demands that certificate.
fn front(plain: &str, names: &[&str], client: Option<&Identity>) -> Front {
    let identity = Identity::of(names);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match client {
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.certified.cert.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.certified.signing_key.serialize_der()));
    let config = builder.with_single_cert(vec![identity.certified.cert.der().clone()], key).unwrap();
    let listener = listen();
    let (address, plain) = (listener.local_addr().unwrap(), plain.trim_start_matches("http://").to_owned());
    let asked: Kept<Option<String>> = Kept::default();
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, plain, noted) = (acceptor.clone(), plain.clone(), Arc::clone(&noted));
                tokio::task::spawn_local(async move {
                    let mut outer = acceptor.accept(stream).await.ok()?;
                    noted.lock().unwrap().push(outer.get_ref().1.server_name().map(str::to_owned));
                    let mut inner = tokio::net::TcpStream::connect(plain).await.ok()?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok()
                });
            }
        });
    });
    Front { address, identity, asked }
}

impl Front {
    /// Trust in its certificate, kept in a folder.
    fn trusted(&self, folder: &Path) -> TlsSettings {
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, self.identity.certificate()).unwrap();
        TlsSettings { ca_file: Some(ca), ..TlsSettings::default() }
    }
}

/// A proxy that knows only CONNECT. It answers with the status that `answer` makes of a request's head, and where that
/// is 200 opens a tunnel, always to `to`: names are its own affair.
fn proxy(to: SocketAddr, answer: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> (Server, Kept<Asked>) {
    let asked: Kept<Asked> = Kept::default();
    let noted = Arc::clone(&asked);
    let server = Server::start(move |mut outer, _| {
        let peer = outer.peer_addr().unwrap().ip();
        // Nobody speaks on before the tunnel is open, so nothing of it is lost in a buffer.
        let Some(head) = head(&outer) else { return };
        let status = if head.starts_with("CONNECT ") { answer(&head) } else { "405 Method Not Allowed" };
        noted.lock().unwrap().push(Asked { peer, head });
        let _ = write!(outer, "HTTP/1.1 {status}\r\n\r\n");
        if status.starts_with("200") {
            relay(outer, to);
        }
    });
    (server, asked)
}

/// What a proxy was asked, and by whom.
#[derive(Debug)]
struct Asked {
    peer: IpAddr,
    head: String,
}

fn relay(mut outer: TcpStream, to: SocketAddr) {
    let Ok(mut inner) = TcpStream::connect(to) else { return };
    let (Ok(mut answers), Ok(mut caller)) = (inner.try_clone(), outer.try_clone()) else { return };
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut caller);
        let _ = caller.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut outer, &mut inner);
    let _ = inner.shutdown(Shutdown::Write);
    let _ = back.join();
}

fn through(proxy: SocketAddr, credentials: Option<&str>) -> Route {
    let credentials = credentials.map(Secret::new);
    let proxy = Proxy { host: proxy.ip().to_string(), port: proxy.port(), credentials };
    Route { proxy: Some(proxy), ..Route::default() }
}

/// Turns of one user, by a way of their own.
fn speak(base: &str, tls: &TlsSettings, route: Route, turns: usize) -> Vec<Turn> {
    let base: url::Url = format!("{base}/v1").parse().unwrap();
    let config = client_config(tls).unwrap();
    // Who connects in vain is told so before he is taken to have stalled.
    let limits = Limits { stall: Duration::from_secs(10), turn: Duration::from_secs(20), ..limits() };
    let endpoint = Endpoint::routed(&base, &config, route, limits.connect).unwrap();
    let driver = Driver::OpenAi(OpenAi::new(endpoint, &base, "m", None, &[], limits).unwrap());
    runtime().block_on(async {
        let (mut session, mut spoken) = (driver.session(0), Vec::new());
        for _ in 0..turns {
            spoken.push(turn_in(&driver, &mut session).await);
        }
        spoken
    })
}

fn one(base: &str, tls: &TlsSettings, route: Route) -> Turn {
    speak(base, tls, route, 1).remove(0)
}

/// Every text in the folder of a run.
fn texts(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

#[test]
fn tls_asks_for_another_name_and_http_for_the_url_s() {
    let folder = tempfile::tempdir().unwrap();
    let (server, seen) = chat();
    let front = front(&server.base, &["inner.test"], None);
    let (base, tls) = (format!("https://{}", front.address), front.trusted(folder.path()));
    let by = |sni: Option<&str>| one(&base, &tls, Route { sni: sni.map(str::to_owned), ..Route::default() });
    let named = by(Some("inner.test"));
    assert_eq!(named.outcome, Outcome::Completed, "{}", named.detail);
    assert_eq!(*front.asked.lock().unwrap(), [Some("inner.test".to_owned())]);
    assert_eq!(seen.lock().unwrap()[0].1, front.address.to_string());
    for other in [None, Some("other.test")] {
        assert_eq!(by(other).outcome, Outcome::Tls, "{other:?}");
    }
}

#[test]
fn a_name_that_nobody_resolves_is_reached_by_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let (server, seen) = chat();
    let front = front(&server.base, &["no-such-host.test"], None);
    let port = front.address.port();
    let (base, tls) = (format!("https://no-such-host.test:{port}"), front.trusted(folder.path()));
    let pin = |port, address: [u8; 4]| Pin { host: "no-such-host.test".to_owned(), port, address: address.into() };
    let by = |pins: Vec<Pin>| one(&base, &tls, Route { pins, ..Route::default() });
    // Nobody listens at the first address: the next one is tried.
    let reached = by(vec![pin(port, [127, 0, 0, 77]), pin(port, [127, 0, 0, 1])]);
    assert_eq!(reached.outcome, Outcome::Completed, "{}", reached.detail);
    assert_eq!(*front.asked.lock().unwrap(), [Some("no-such-host.test".to_owned())]);
    assert_eq!(seen.lock().unwrap()[0].1, format!("no-such-host.test:{port}"));
    assert_eq!(by(vec![pin(port.wrapping_add(1), [127, 0, 0, 1])]).outcome, Outcome::Dns);
}

#[test]
fn a_server_that_demands_a_certificate_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _seen) = chat();
    let (ours, others) = (Identity::of(&["tester.test"]), Identity::of(&["stranger.test"]));
    let front = front(&server.base, &["127.0.0.1"], Some(&ours));
    let (base, trusted) = (format!("https://{}", front.address), front.trusted(folder.path()));
    let kept = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let (client_cert, client_key) = (kept("our.pem", ours.certificate()), kept("our.key", ours.key()));
    let apart = one(&base, &TlsSettings { client_cert, client_key, ..trusted.clone() }, Route::default());
    assert_eq!(apart.outcome, Outcome::Completed, "{}", apart.detail);
    let client_cert = kept("both.pem", format!("{}{}", ours.key(), ours.certificate()));
    let both = one(&base, &TlsSettings { client_cert, ..trusted.clone() }, Route::default());
    assert_eq!(both.outcome, Outcome::Completed, "{}", both.detail);
    let client_cert = kept("stranger.pem", format!("{}{}", others.certificate(), others.key()));
    for settings in [TlsSettings { client_cert, ..trusted.clone() }, trusted] {
        let refused = one(&base, &settings, Route::default());
        assert_eq!(refused.outcome, Outcome::Tls, "{}", refused.detail);
        assert!(refused.detail.contains("alert"), "{}", refused.detail);
    }
}

#[test]
fn a_whole_run_with_a_client_certificate_of_a_scenario() {
    let _machine = load();
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"2ms\"\ntokens = 9");
    let ours = Identity::of(&["tester.test"]);
    let front = front(&mock.api, &["chat.test"], Some(&ours));
    let port = front.address.port();
    let text = format!(
        "[target]\nurl = \"https://inner.test:{port}\"\nmock_admin = \"{}\"\nca_file = \"ca.pem\"\n\
         sni = \"chat.test\"\nclient_cert = \"our.pem\"\nclient_key = \"our.key\"\n\
         resolve = [\"inner.test:{port}:127.0.0.1\"]\n",
        mock.admin
    );
    for (name, text) in [
        ("ca.pem", front.identity.certificate()),
        ("our.pem", ours.certificate()),
        ("our.key", ours.key()),
        ("mutual.toml", text),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let scenario = folder.path().join("mutual.toml");
    let ran = run(&[&SHORT[..], &["--scenario", scenario.to_str().unwrap()]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let result = ran.result();
    assert_eq!((result.totals.errors, result.totals.started), (0, mock.turns().len() as u64));
    let reached = result.target.reached.unwrap();
    assert_eq!(reached.sni.as_deref(), Some("chat.test"));
    assert!(reached.client_cert && reached.proxy.is_none());
    assert_eq!(reached.resolved, [format!("inner.test:{port}:127.0.0.1")]);
    let asked = front.asked.lock().unwrap();
    assert!(asked.iter().all(|name| name.as_deref() == Some("chat.test")), "{asked:?}");
    // The models and the preflight were asked by the same way.
    assert!(asked.len() > 2, "{asked:?}");
    let written = format!("{}{}{}", texts(&ran.folder()), ran.stdout, ran.stderr);
    let secret = ours.key().lines().nth(1).unwrap().to_owned();
    assert!(secret.len() > 20 && !written.contains(&secret));
}

#[test]
fn a_whole_run_through_a_proxy_that_wants_a_password() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"2ms\"\ntokens = 9");
    // base64 of user:hunter22
    let basic = "Basic dXNlcjpodW50ZXIyMg==";
    let (server, asked) = proxy(address(&mock.api), move |head| {
        if field(head, "proxy-authorization").as_deref() == Some(basic) {
            "200 Connection established"
        } else {
            "407 Proxy Authentication Required"
        }
    });
    let way = ["--target", "http://chat.test:8000", "--mock-admin", &mock.admin, "--proxy", &server.base];
    let flags = [&SHORT[..], &way, &["--source-address", "127.0.0.2,127.0.0.3"]].concat();
    let mut command = tool();
    let ran = run_with(command.env("CAPACITY_CHECK_PROXY_AUTH", "user:hunter22"), &flags);
    assert_eq!(ran.code, 0, "{ran}");
    let result = ran.result();
    assert_eq!((result.totals.errors, result.totals.started), (0, mock.turns().len() as u64));
    let reached = result.target.reached.unwrap();
    assert_eq!(reached.proxy.as_deref(), Some(server.base.trim_start_matches("http://")));
    assert_eq!(reached.source_addresses, ["127.0.0.2", "127.0.0.3"]);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let bounds: Vec<u64> = range.split_whitespace().map(|bound| bound.parse().unwrap()).collect();
    assert_eq!(result.generator.ports, 2 * (bounds[1] + 1 - bounds[0]));
    let asked = asked.lock().unwrap();
    for Asked { head, .. } in asked.iter() {
        assert!(head.starts_with("CONNECT chat.test:8000 HTTP/1.1\r\nHost: chat.test:8000\r\n"), "{head}");
    }
    let peers: std::collections::BTreeSet<String> = asked.iter().map(|asked| asked.peer.to_string()).collect();
    assert_eq!(peers.into_iter().collect::<Vec<_>>(), ["127.0.0.2", "127.0.0.3"]);
    let written = format!("{}{}{}", texts(&ran.folder()), ran.stdout, ran.stderr);
    assert!(!written.contains("hunter22") && !written.contains("dXNlcjpodW50ZXIyMg"));

    drop(asked);
    let refused = run(&[&["--users", "5", "--no-progress"], &way[..]].concat());
    assert_eq!(refused.code, 4, "{refused}");
    for expected in ["asked GET http://chat.test:8000/v1/models", "the proxy 127.0.0.1", "CAPACITY_CHECK_PROXY_AUTH"] {
        assert!(refused.stderr.contains(expected), "{expected}: {refused}");
    }
}

#[test]
fn tls_goes_through_the_tunnel_and_a_pin_names_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (server, seen) = chat();
    let front = front(&server.base, &["chat.test"], None);
    let tls = front.trusted(folder.path());
    let (between, asked) = proxy(front.address, |_| "200 OK");
    let route = through(address(&between.base), None);
    let plain = one("https://chat.test", &tls, route.clone());
    assert_eq!(plain.outcome, Outcome::Completed, "{}", plain.detail);
    assert!(plain.connect.is_some() && plain.tls.is_some());
    let pins = vec![Pin { host: "chat.test".to_owned(), port: 443, address: "10.0.0.5".parse().unwrap() }];
    let pinned = one("https://chat.test", &tls, Route { pins, ..route.clone() });
    assert_eq!(pinned.outcome, Outcome::Completed, "{}", pinned.detail);
    let asked: Vec<String> = asked.lock().unwrap().iter().map(|asked| asked.head.clone()).collect();
    for (head, expected) in asked.iter().zip(["CONNECT chat.test:443 ", "CONNECT 10.0.0.5:443 "]) {
        assert!(head.starts_with(expected), "{head}");
    }
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|head| field(head, "proxy-authorization").is_none()));
    assert!(seen.lock().unwrap().iter().all(|(_, host)| host == "chat.test"));
    // What goes wrong behind the proxy is not the proxy's.
    let wrong = one("https://other.test", &tls, route);
    assert_eq!(wrong.outcome, Outcome::Tls);
    assert!(wrong.detail.contains("TLS with other.test:443"), "{}", wrong.detail);
}

#[test]
fn a_proxy_s_failures_are_told_as_its_own() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let by = |proxy: SocketAddr| one("http://chat.test:8000", &TlsSettings::default(), through(proxy, None));
    for (status, expected) in [
        ("403 Forbidden", "403 Forbidden to CONNECT"),
        ("502 Bad Gateway", "502 Bad Gateway to CONNECT"),
        ("407 Proxy Authentication Required", "CAPACITY_CHECK_PROXY_AUTH"),
    ] {
        let (server, _asked) = proxy(nowhere, move |_| status);
        let turn = by(address(&server.base));
        assert_eq!(turn.outcome, Outcome::ConnectRefused, "{status}: {}", turn.detail);
        let named = format!("the proxy {} gives no connection", address(&server.base));
        assert!(turn.detail.contains(&named) && turn.detail.contains(expected), "{}", turn.detail);
    }
    let closed = listen().local_addr().unwrap();
    let turn = by(closed);
    assert_eq!(turn.outcome, Outcome::ConnectRefused);
    assert!(turn.detail.contains(&format!("the proxy {closed}")) && turn.detail.contains("efused"), "{}", turn.detail);
    // It is there, but never answers.
    let silent = listen();
    let turn = by(silent.local_addr().unwrap());
    assert_eq!(turn.outcome, Outcome::ConnectTimeout);
    assert!(turn.detail.contains("the proxy"), "{}", turn.detail);
    let unknown = Proxy { host: "no-such-proxy.test".to_owned(), port: 3128, credentials: None };
    let route = Route { proxy: Some(unknown), ..Route::default() };
    let turn = one("http://chat.test:8000", &TlsSettings::default(), route);
    assert_eq!(turn.outcome, Outcome::Dns);
    assert!(turn.detail.contains("no-such-proxy.test"), "{}", turn.detail);
}

#[test]
fn connections_come_from_one_source_address_after_the_other() {
    let (server, seen) = chat();
    let source_addresses: Vec<IpAddr> = ["127.0.0.2", "127.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
    let route = Route { source_addresses: source_addresses.clone(), ..Route::default() };
    let turns = speak(&server.base, &TlsSettings::default(), route, 4);
    assert!(turns.iter().all(|turn| turn.outcome == Outcome::Completed), "{}", turns[0].detail);
    let peers: Vec<IpAddr> = seen.lock().unwrap().iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [&source_addresses[..], &source_addresses[..]].concat());
    let route = Route { source_addresses: vec!["::1".parse().unwrap()], ..Route::default() };
    let turn = one(&server.base, &TlsSettings::default(), route);
    assert!(turn.outcome == Outcome::Dns && turn.detail.contains("family"), "{}", turn.detail);
}

#[test]
fn what_is_wrong_is_told_with_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (Identity::of(&["tester.test"]), Identity::of(&["stranger.test"]));
    let kept = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key) = (kept("our.pem", ours.certificate()), kept("other.key", others.key()));
    let broken_key = ours.key().replacen("-----END", "----END", 1);
    let broken = kept("broken.key", broken_key);
    let (https, http) = ("https://chat.test", "http://chat.test");
    for (target, flags, expected) in [
        (https, &["--sni", "no name"][..], "--sni: `no name` is no name that TLS can ask for"),
        (http, &["--sni", "inner.test"], "--sni: is for TLS"),
        (http, &["--client-cert", &cert], "--client-cert: is for TLS"),
        (https, &["--client-cert", "/nonexistent.pem"], "--client-cert: cannot use the client certificate in /none"),
        (https, &["--client-cert", &cert], "--client-cert: cannot use the client certificate's key in"),
        (https, &["--client-key", &key], "--client-key: wants a --client-cert"),
        (https, &["--client-cert", &cert, "--client-key", &key], "--client-key: cannot use"),
        (https, &["--client-cert", &cert, "--client-key", &broken], "--client-key: cannot use"),
        (https, &["--resolve", "chat.test"], "--resolve: `chat.test` should be HOST:PORT:ADDRESS"),
        (https, &["--resolve", "chat.test:80:127.0.0.1"], "--resolve: `chat.test:80:127.0.0.1` is of no use"),
        (https, &["--resolve", "chat.test:443:8.8.8.8"], "--resolve: 8.8.8.8 is a public address"),
        (https, &["--proxy", "https://127.0.0.1:1"], "--proxy: `https://127.0.0.1:1` should be http://host:port"),
        (https, &["--proxy", "http://user:hunter2@127.0.0.1"], "CAPACITY_CHECK_PROXY_AUTH"),
        (https, &["--proxy", "http://proxy.example:3128"], "--proxy: proxy.example is a public host"),
        (https, &["--source-address", "192.0.2.1"], "--source-address: connections cannot come from 192.0.2.1"),
        (https, &["--source-address", "127.0.0.2,eth0"], "--source-address: `eth0` is no address"),
        ("https://chat.example", &["--resolve", "chat.example:443:127.0.0.1"], "--target: chat.example is a public"),
    ] {
        let ran = run(&[&["--users", "5", "--target", target, "--model", "m"], flags].concat());
        assert_eq!(ran.code, 2, "{flags:?}: {ran}");
        assert!(ran.stderr.contains(expected) && !ran.stderr.contains("hunter2"), "{flags:?}: {ran}");
        for key in [ours.key(), others.key()] {
            assert!(!ran.stderr.contains(key.lines().nth(1).unwrap()), "{ran}");
        }
    }
    let ran = run(&["--users", "5", "--proxy", "http://127.0.0.1:3128"]);
    assert!(ran.code == 2 && ran.stderr.contains("--proxy: wants a --target"), "{ran}");
    let mut command = tool();
    command.env("CAPACITY_CHECK_PROXY_AUTH", "hunter22");
    let ran = run_with(&mut command, &["--users", "5", "--target", http, "--proxy", "http://127.0.0.1:3128"]);
    assert!(ran.code == 2 && ran.stderr.contains("--proxy: CAPACITY_CHECK_PROXY_AUTH"), "{ran}");
    assert!(!ran.stderr.contains("hunter22"), "{ran}");
    let text = "[target]\nurl = \"https://chat.test\"\nresolve = [\"chat.test:443:10.0.0.5\", \"other\"]\n\
                source_addresses = [\"127.0.0.2\", \"::1\"]\n";
    let scenario = kept("wrong.toml", text.to_owned());
    let output = tool().args(["validate", "--users", "5", "--scenario", &scenario]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for expected in [":3:1: target.resolve: `other` should be", ":4:1: target.source_addresses: mixes"] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
}
