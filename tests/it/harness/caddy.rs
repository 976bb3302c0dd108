//! A real Caddy in front, as people run it.

use super::process;
use super::wait::until;
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running Caddy; ends with its value.
pub struct Caddy {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Caddy {
    /// Plain HTTP in front of a server.
    pub fn in_front_of(server: SocketAddr) -> Self {
        Self::start(&|own| format!("http://{own} {{\n reverse_proxy {server}\n}}\n"))
    }

    /// HTTPS with a certificate of Caddy's own authority, in front of a server.
    pub fn with_tls_in_front_of(server: SocketAddr) -> Self {
        Self::start(&|own| {
            let port = own.port();
            format!("https://localhost:{port} {{\n tls internal\n reverse_proxy {server}\n}}\n")
        })
    }

    /// Starts it with the sites that `sites` writes for its address.
    pub fn start(sites: &dyn Fn(SocketAddr) -> String) -> Self {
        // Another program may take the port between our look and Caddy's bind: then try the next one.
        let mut last = String::new();
        for _ in 0..5 {
            let address = free_address();
            match Self::try_start(address, &sites(address)) {
                Ok(caddy) => return caddy,
                Err(log) => last = log,
            }
        }
        panic!("Caddy does not start: {last}");
    }

    /// A running Caddy, or the log of one that ended.
    fn try_start(address: SocketAddr, sites: &str) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("bpaas-caddy-").tempdir().expect("a place");
        let place = directory.path().display();
        let global = format!(
            "{{\n admin off\n default_bind 127.0.0.1\n auto_https disable_redirects\n skip_install_trust\n storage file_system {place}/storage\n}}\n"
        );
        let config = directory.path().join("Caddyfile");
        std::fs::write(&config, global + sites).expect("a configuration");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&config)
            .env("HOME", directory.path())
            .env("XDG_CONFIG_HOME", directory.path())
            .env("XDG_DATA_HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("caddy is installed");
        let mut caddy = Self { child, directory, address };
        let mut listens = false;
        until("Caddy listens or ends", Duration::from_secs(60), || {
            listens = TcpStream::connect(address).is_ok();
            listens || caddy.child.try_wait().expect("a status").is_some()
        });
        if listens {
            return Ok(caddy);
        }
        Err(std::fs::read_to_string(caddy.directory.path().join("log")).unwrap_or_default())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its own authority, once it is there.
    pub fn authority(&self) -> PathBuf {
        let file = self.directory.path().join("storage/pki/authorities/local/root.crt");
        until("Caddy's own certificate", Duration::from_secs(60), || file.exists());
        file
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::KILL);
        let _gone = self.child.wait();
    }
}

/// An address of the loopback interface that nobody listens on at the moment.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
