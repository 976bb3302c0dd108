//! The composition root: builds, wires, starts and joins every thread.

mod http;
mod limits;
mod listen;
mod live_queries;
mod logger;
mod signals;

use self::signals::Signals;
use crate::api::{self, Api, MachineFacts};
use crate::auth::client::{Origin, resolve, resolve_behind_own_proxy};
use crate::auth::{Auth, Fresh, token};
use crate::config::{Config, Routing, doubts};
use crate::data_dir::DataDir;
use crate::deploy::Deployer;
use crate::disk::emergency_cleanup;
use crate::disk::layout::apps_in;
use crate::gate::{self, Gate};
use crate::journal::Journal;
use crate::live::{self, Live};
use crate::model::{AppId, Trust};
use crate::ops;
use crate::proc;
use crate::router;
use crate::runtime::port_guard::keep_stopped;
use crate::store::Store;
use crate::vault::{Vault, key};
use rustix::net::SocketAddrUnix;
use std::error::Error;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tiny_http::Server;

/// How long requests under way may take to finish at the end. With the
/// deployer's own limit it stays below the promised 10 s.
const DRAIN: Duration = Duration::from_secs(3);

/// Bytes from which on glibc's allocator gives freed memory back at once. Left alone
/// it raises this limit after the first large body, and then keeps up to 2 MiB for
/// each of 16 arenas: 49 MB in a siege instead of 21 MB, measured.
const LARGE: &str = "131072";

/// Bytes of the smallest database of SQLite, one page. It takes what is smaller for empty,
/// and writes over it.
const SMALLEST_DATABASE: u64 = 512;

/// Runs the server until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// One sentence on why it could not start.
pub fn run() -> Result<(), Box<dyn Error>> {
    proc::close_inherited();
    logger::start();
    proc::reexec::with_variable("MALLOC_MMAP_THRESHOLD_", LARGE);
    limits::raise_and_check()?;
    http::watch_panics();
    let started = Instant::now();
    // Signals that come while we start are kept until we look at them.
    let signals = Signals::keep()?;
    let config = Config::from_env(|name| std::env::var_os(name))?;
    config.routing.check_bind()?;
    for doubt in doubts(std::env::vars_os().map(|(name, _)| name), &config.routing) {
        log::warn!("{doubt}");
    }
    let data = DataDir::open(&config.data_dir)?;
    let _lock = data.lock(config.admin_token.is_some())?;
    emergency_cleanup::make_room(&data);
    let apps = apps_in(&data);
    // A system that does not say cannot be waited with.
    let stop = || !matches!(signals.pending(), Ok(None));
    let (listener, ended) = listen::open_or_take_back(&config.listen, &apps, stop)?;
    let port = listener.local_addr()?.port();
    let behind = build(&config, &data, started, (port, &ended))?;
    let running = Running::start(behind, &config, &data, listener)?;
    let signal = signals.wait()?;
    log::info!("stopping ({signal}); apps keep running");
    running.stop();
    log::info!("stopped");
    Ok(())
}

/// Refuses to begin anew beside what an earlier server left: its database, emptied or lost,
/// is as damaged as one that was changed, and all apps would seem never to have been.
fn refuse_emptied(database: &Path, data: &DataDir) -> Result<(), String> {
    let lost = match std::fs::metadata(database) {
        Ok(about) if about.is_file() && about.len() < SMALLEST_DATABASE => "is empty",
        Err(error) if error.kind() == ErrorKind::NotFound => "is not there",
        // What else there is to say about it comes when it is opened.
        _ => return Ok(()),
    };
    let apps = std::fs::read_dir(apps_in(data)).into_iter().flatten().flatten();
    let mut ids = apps.filter_map(|app| AppId::parse(app.file_name().to_str()?).ok());
    // The token is made after the database. Beside one that a command made before the first
    // start there is no database at all.
    let left = if ids.next().is_some() {
        "the apps directory"
    } else if lost == "is empty" && data.join(token::FILE).exists() {
        token::FILE
    } else {
        return Ok(());
    };
    Err(format!(
        "the database {} {lost}, but {left} of an earlier start is in the data directory; restore \
         a backup, or move the data directory away to begin anew",
        database.display()
    ))
}

/// Makes everything behind the door. `ended` are apps that were ended because they had taken
/// the port that is given too.
fn build(
    config: &Config,
    data: &DataDir,
    started: Instant,
    (port, ended): (u16, &[AppId]),
) -> Result<(Api, Live), Box<dyn Error>> {
    let database = data.join("better-paas.db");
    refuse_emptied(&database, data)?;
    let (key, source) = key::load(
        config.secret_key.as_ref(),
        config.credentials_directory.as_deref(),
        data,
        !database.exists(),
    )?;
    let store = Store::open(&database, Vault::new(key))
        .map_err(|error| format!("{error} (key from {source}, database {})", database.display()))?;
    let store = Arc::new(store);
    let (auth, fresh) = Auth::start(config.admin_token.clone(), data)?;
    if let Fresh::Made = fresh {
        announce(&auth, data);
    } else if !auth.is_pinned() {
        log::info!("the admin token: {}", ops::line::of(data.path(), "token"));
    }
    let auth = Arc::new(auth);
    let journal = Arc::new(Journal::open(data)?);
    for app in ended {
        keep_stopped(&store, &journal, app, port);
    }
    let deployer = Deployer::start(
        Arc::clone(&store),
        Arc::clone(&journal),
        data.clone(),
        (port, routing(&config.routing, &config.trust_proxy)),
    )?;
    let facts =
        live_queries::FromStore { store: Arc::clone(&store), deployer: Arc::clone(&deployer) };
    let live = Live::new(live::Settings {
        auth: Arc::clone(&auth),
        journal: Arc::clone(&journal),
        facts: Box::new(facts),
        data_dir: data.path().to_owned(),
        dashboard_origin: config.dashboard_origin.clone(),
    })?;
    let disk = data.path().to_owned();
    let machine = Box::new(move || machine_facts(&disk));
    Ok((Api { store, auth, deployer, journal, machine, started }, live))
}

/// Everything that runs and must be joined.
struct Running {
    gate: Gate,
    live: Arc<Live>,
    deployer: Arc<Deployer>,
    server: Arc<Server>,
    threads: [JoinHandle<()>; 2],
}

impl Running {
    /// Opens the door.
    fn start(
        (api, live): (Api, Live),
        config: &Config,
        data: &DataDir,
        listener: TcpListener,
    ) -> Result<Self, Box<dyn Error>> {
        let relay = data.join("gate.sock");
        if SocketAddrUnix::new(&relay).is_err() {
            return Err("the path of the data directory is too long for a socket; \
                        set DATA_DIR to one of at most 95 bytes"
                .into());
        }
        // Always there: a router of an earlier server may still lead to it.
        let front = data.join("front.sock");
        // We hold the lock, so sockets that are there belong to nobody.
        let _ = (std::fs::remove_file(&relay), std::fs::remove_file(&front));
        let server = Server::http_unix(&relay)
            .map_err(|e| format!("{} could not be opened: {e}", relay.display()))?;
        let proxy = UnixListener::bind(&front)
            .map_err(|e| format!("{} could not be opened: {e}", front.display()))?;
        let (server, api, live) = (Arc::new(server), Arc::new(api), Arc::new(live));
        let (sessions, trust) = (Arc::clone(&live), config.trust_proxy.clone());
        let gate = Gate::start(gate::Settings {
            listener,
            proxy,
            relay,
            resolve: Box::new(move |peer, forwarded, proto| {
                let Origin { client, trusted_proxy, https, .. } = match peer {
                    gate::Peer::Address(peer) => resolve(&trust, peer, forwarded, proto),
                    gate::Peer::Proxy => resolve_behind_own_proxy(&trust, forwarded, proto),
                };
                gate::Source { client, trusted_proxy, https }
            }),
            upgrade: Box::new(move |upgrade| sessions.serve(handshake(upgrade))),
            also: gate::Also { below: api::HOOKS, fields: api::hook_fields() },
        })?;
        say_where(gate.address(), &config.routing);
        let deployer = Arc::clone(&api.deployer);
        let (changes, requests) = channel();
        let (changed, answered) = (Arc::clone(&api), gate.completions());
        let (incoming, completions) = (Arc::clone(&server), gate.completions());
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let threads = [
            spawn("changes").spawn(move || http::change(&changed, &answered, &requests))?,
            spawn("reads").spawn(move || http::read(&incoming, &api, &completions, &changes))?,
        ];
        Ok(Self { gate, live, deployer, server, threads })
    }

    /// From the outside in: nobody new, close frames, drained requests, builds.
    fn stop(self) {
        let left = self.live.shutdown();
        if left > 0 {
            log::warn!("{left} WebSocket sessions did not end in time");
        }
        self.gate.stop(DRAIN);
        self.deployer.shutdown();
        self.server.unblock();
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread that handles requests had ended with a panic");
            }
        }
    }
}

/// What the router goes by; nothing when it is off.
fn routing(config: &Routing, trust: &Trust) -> Option<router::Settings> {
    config.on.then(|| router::Settings {
        base_domain: config.base_domain.clone(),
        bind: config.bind,
        http_port: config.http_port,
        https_port: config.https_port,
        dashboard_domain: config.dashboard_domain.as_ref().map(|d| d.as_str().to_owned()),
        acme_email: config.acme_email.clone(),
        private_tls: config.private_tls,
        trust: trust.clone(),
    })
}

/// What the gate passes on, as live sessions want it: neither knows the other.
fn handshake(upgrade: gate::Upgrade) -> live::Handshake {
    let gate::Upgrade { stream, leftover, path, query, headers, source, proof } = upgrade;
    let gate::Source { client, https: secure, .. } = source;
    let proved = Box::new(move || proof.prove());
    live::Handshake { stream, leftover, path, query, headers, client, secure, proved }
}

fn machine_facts(disk: &Path) -> MachineFacts {
    let machine = live::Machine::read(disk);
    MachineFacts {
        memory_total_bytes: machine.memory_total_bytes,
        memory_available_bytes: machine.memory_available_bytes,
        disk_total_bytes: machine.disk_total_bytes,
        disk_free_bytes: machine.disk_free_bytes,
        server_memory_bytes: live::own_memory(),
    }
}

/// Prints a token that was made just now, once, where nobody overlooks it (P1).
fn announce(auth: &Auth, data: &DataDir) {
    // When standard error cannot be written, `server token` still prints it.
    let _ = writeln!(
        std::io::stderr(),
        "\n\
         ======================================================================\n\
         \x20 Your admin token. Whoever holds it controls this machine:\n\n\
         \x20 {}\n\n\
         \x20 Paste it into the dashboard. This prints it again:\n\n\
         \x20 {}\n\
         ======================================================================\n",
        auth.token().expose(),
        ops::line::of(data.path(), "token")
    );
}

fn say_where(address: SocketAddr, routing: &Routing) {
    if let Some(domain) = routing.dashboard_domain.as_ref().filter(|_| routing.on) {
        let port = routing.https_port.filter(|port| *port != 443);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        log::info!("dashboard: https://{}{port}, through the router", domain.as_str());
    }
    let port = address.port();
    if address.ip().is_unspecified() {
        log::info!("listening on http://127.0.0.1:{port} and all other addresses of this machine");
        log::info!("dashboard: http://{}", SocketAddr::new(outward_address(), port));
    } else {
        log::info!("listening on http://{address}");
        log::info!("dashboard: http://{address}");
    }
}

/// The address that other machines most likely reach this one by: the one that
/// the route to the internet starts from. Connecting a UDP socket sends nothing;
/// the far end is an address for documentation (RFC 5737).
fn outward_address() -> IpAddr {
    let local = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    local().unwrap_or(Ipv4Addr::LOCALHOST.into())
}
