//! A real nginx between a deployment and its users.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{listen, until};

/// nginx on a free port, which ends with its test. It speaks HTTP/1.0 to what is behind it, as it does by default:
/// what comes in chunks it passes on at once, whatever `proxy_buffering` says.
pub(crate) struct Nginx {
    child: Child,
    pub(crate) base: String,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts one with these lines in its `http` and in its `server`.
    pub(crate) fn start(http: &str, server: &str) -> Self {
        Self::listening(tempfile::tempdir().expect("a folder"), "http", "", http, server)
    }

    /// The same with TLS and HTTP/2; [`Self::ca`] is whom to trust.
    pub(crate) fn secure(http: &str, server: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("cert.pem"), certified.cert.pem()).expect("a file");
        std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).expect("a file");
        let at = folder.path().display();
        let server = format!("ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; {server}");
        Self::listening(folder, "https", "ssl http2", http, &server)
    }

    /// The certificate of a secure one.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn listening(folder: tempfile::TempDir, scheme: &str, how: &str, http: &str, server: &str) -> Self {
        let port = listen().local_addr().expect("an address").port();
        let at = folder.path().display();
        let conf = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             {http}\nserver {{ listen 127.0.0.1:{port} {how}; {server} }} }}\n"
        );
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, conf).expect("a file");
        let child = Command::new(
            std::env::var_os("CAPACITY_CHECK_NGINX").expect("tests/run.sh installs nginx and says where it is"),
        )
        .arg("-p")
        .arg(folder.path())
        .arg("-c")
        .arg(&path)
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx runs");
        let base = format!("{scheme}://127.0.0.1:{port}");
        until("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, base, folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It has no state worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
