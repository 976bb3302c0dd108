//! The composition root: builds, wires, starts and joins every thread.

mod checker;
mod http;
mod limits;
mod listen;
mod live_queries;
mod logger;
mod operator;
mod prove;
mod sample;
mod signals;
mod upload;

pub use self::prove::prove;

use self::checker::Checker;
use self::http::Change;
use self::signals::Signals;
use crate::api::{self, Api, MachineFacts};
use crate::auth::{Auth, Fresh, token};
use crate::backup::keeper::Keeper;
use crate::backup::restore::RESTORING;
use crate::checks::Board;
use crate::config::{Config, LAST_UPDATE, check_bind, doubts, runs_installed};
use crate::data_dir::DataDir;
use crate::deploy::Deployer;
use crate::disk::emergency_cleanup;
use crate::disk::layout::Layout;
use crate::gate::{self, Gate};
use crate::journal::Journal;
use crate::live::{self, Live};
use crate::model::{AnyError, AppId, Routing, failed};
use crate::notify::Notices;
use crate::ops::{self, protocol};
use crate::proc::{self, Cancel, Exec};
use crate::router;
use crate::runtime::port_guard::keep_stopped;
use crate::store::{Act, DATABASE, Store, wanted_key};
use crate::vault::{
    Vault,
    key::{self, Key},
};
use rustix::net::SocketAddrUnix;
use serde_json::Value;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tiny_http::Server;

/// How long requests and WebSocket sessions under way may take to finish at the end. With the
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
pub fn run() -> Result<(), AnyError> {
    proc::close_inherited();
    logger::start();
    proc::reexec::with_variable("MALLOC_MMAP_THRESHOLD_", LARGE);
    limits::raise_and_check()?;
    http::watch_panics();
    let started = Instant::now();
    // Signals that come while we start are kept until we look at them.
    let signals = Signals::keep()?;
    let config = Config::from_env(|name| std::env::var_os(name))?;
    check_bind(&config.routing)?;
    for doubt in doubts(std::env::vars_os().map(|(name, _)| name), &config.routing) {
        log::warn!("{doubt}");
    }
    let data = DataDir::open(&config.data_dir)?;
    let _lock = data.lock(config.admin_token.is_some())?;
    let layout = Layout::new(data.clone());
    let was_full = emergency_cleanup::make_room(&layout);
    // A system that does not say cannot be waited with.
    let stop = || !matches!(signals.pending(), Ok(None));
    let (listener, ended) = match listen::handed_over(&config.listen)? {
        Some(listener) => (listener, Vec::new()),
        None => listen::open_or_take_back(&config.listen, &layout.apps(), stop)?,
    };
    let port = listener.local_addr()?.port();
    let behind = build(&config, &data, started, (port, &ended))?;
    if was_full {
        behind.0.store.audit(&Act::new("system", "make room on a full disk"));
    }
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
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if data.join(RESTORING).exists() {
                return Err(format!(
                    "a restore was cut short; do it again, or remove {} to begin without",
                    data.join(RESTORING).display()
                ));
            }
            "is not there"
        }
        // What else there is to say about it comes when it is opened.
        _ => return Ok(()),
    };
    // The token is made after the database. Beside one that a command made before the first
    // start there is no database at all.
    let left = if !Layout::new(data.clone()).all_apps().is_empty() {
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

fn is_pinned(config: &Config) -> bool {
    key::is_pinned(config.secret_key.as_ref(), config.credentials_directory.as_deref())
}

/// Opens the database with the key that it wants.
fn open_store(config: &Config, data: &DataDir) -> Result<Store, AnyError> {
    let database = data.join(DATABASE);
    refuse_emptied(&database, data)?;
    let (key, source) = key::load(
        config.secret_key.as_ref(),
        config.credentials_directory.as_deref(),
        data,
        !database.exists(),
    )?;
    let open = |key: &Key| Store::open(&database, Vault::new(key.clone()));
    let store = open(&key).or_else(|error| {
        let error = format!("{error} (key from {source}, database {})", database.display());
        let wanted = if is_pinned(config) { None } else { wanted_key(&database).ok() };
        let old = wanted.and_then(|id| Key::find(data, &id));
        let opened = old.and_then(|(old, _)| Some((open(&old).ok()?, old)));
        let (store, old) = opened.ok_or(error)?;
        // It had been changed on the disk, and the database did not get that far.
        key::exchange(data, &old, &key)?;
        log::warn!("a change of the encryption key was cut short; the old one is in force");
        Ok::<_, AnyError>(store)
    })?;
    log::info!("encryption key {}, from {source}", store.key_id());
    Ok(store)
}

/// What is behind the door.
type Behind = (Api, Live, Arc<Checker>);

/// Makes everything behind the door. `ended` are apps that were ended because they had taken
/// the port that is given too.
fn build(
    config: &Config,
    data: &DataDir,
    started: Instant,
    (port, ended): (u16, &[AppId]),
) -> Result<Behind, AnyError> {
    let store = Arc::new(open_store(config, data)?);
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
        (port, config.routing.clone()),
    )?;
    let tools = Arc::clone(&deployer.tools);
    let host = Box::new(move || tools.host.wait());
    let keeper = Keeper::new(data.clone(), Arc::clone(&store), config.backups.clone(), host)?;
    let keeper = Arc::new(keeper);
    let board = Arc::new(Board::default());
    let stop = Cancel::new()?;
    let notices = Arc::new(Notices::new(stop.clone()));
    let checker = Arc::new(Checker {
        config: config.clone(),
        data: data.clone(),
        deployer: Arc::clone(&deployer),
        keeper: Arc::clone(&keeper),
        board: Arc::clone(&board),
        notices: Arc::clone(&notices),
        stop,
        slow: Mutex::default(),
    });
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
    let judge = Arc::clone(&checker);
    let check = Arc::new(move || judge.judge());
    let api = Api {
        store,
        auth,
        deployer,
        journal,
        keeper,
        machine,
        board,
        check,
        notices,
        last_update,
        started,
    };
    Ok((api, live, checker))
}

/// Everything that runs and must be joined.
struct Running {
    gate: Gate,
    live: Arc<Live>,
    deployer: Arc<Deployer>,
    server: Arc<Server>,
    operators: Cancel,
    threads: [JoinHandle<()>; 6],
}

impl Running {
    /// Opens the door.
    fn start(
        (api, live, checker): Behind,
        config: &Config,
        data: &DataDir,
        listener: TcpListener,
    ) -> Result<Self, AnyError> {
        let relay = data.join("gate.sock");
        if SocketAddrUnix::new(&relay).is_err() {
            return Err("the path of the data directory is too long for a socket; \
                        set DATA_DIR to one of at most 95 bytes"
                .into());
        }
        // Always there: a router of an earlier server may still lead to it.
        let front = data.join("front.sock");
        let ops = data.join(protocol::SOCKET);
        // We hold the lock, so sockets that are there belong to nobody.
        for socket in [&relay, &front, &ops] {
            let _ = std::fs::remove_file(socket);
        }
        let server = Server::http_unix(&relay)
            .map_err(failed(format!("{} could not be opened", relay.display())))?;
        let open = |path: &Path| {
            let failed = failed(format!("{} could not be opened", path.display()));
            UnixListener::bind(path).map_err(failed)
        };
        let (proxy, ops) = (open(&front)?, open(&ops)?);
        ops.set_nonblocking(true)?;
        let (server, api, live) = (Arc::new(server), Arc::new(api), Arc::new(live));
        let sessions = Arc::clone(&live);
        let gate = Gate::start(gate::Settings {
            listener,
            proxy,
            relay,
            trust: config.routing.trust.clone(),
            upgrade: Box::new(move |upgrade| sessions.serve(upgrade)),
            also: gate::Also { below: api::HOOKS, fields: api::hook_fields() },
        })?;
        say_where(gate.address(), &config.routing);
        let deployer = Arc::clone(&api.deployer);
        let (changes, requests) = channel();
        let notes = changes.clone();
        api.auth.tell_lockouts(move |client, text| {
            let act = Act { client: Some(client.to_string()), ..Act::new("system", text) };
            drop(notes.send(Change::Note(act)));
        });
        let keys = (!is_pinned(config)).then(|| Mutex::new(data.clone()));
        let (changed, answered) = (Arc::clone(&api), gate.completions());
        let (incoming, completions) = (Arc::clone(&server), gate.completions());
        let operators = checker.stop.clone();
        let (operated, stop) = (Arc::clone(&deployer), operators.clone());
        let keeper = Arc::clone(&api.keeper);
        let stop_keeping = operators.clone();
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let threads = [
            spawn("changes").spawn(move || http::change(&changed, &answered, &requests))?,
            spawn("reads").spawn(move || http::read(&incoming, &api, &completions, &changes))?,
            spawn("operators")
                .spawn(move || operator::run(&ops, (&operated, keys.as_ref()), &stop))?,
            spawn("backups").spawn(move || keeper.run(&stop_keeping))?,
            spawn("checks").spawn(move || checker.run())?,
            spawn("assets").spawn(|| api::compress_assets(gzip))?,
        ];
        Ok(Self { gate, live, deployer, server, operators, threads })
    }

    /// From the outside in: nobody new, close frames, drained requests, builds.
    fn stop(self) {
        self.live.shutdown();
        self.operators.cancel();
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

/// Compresses with the program that backups need too.
fn gzip(text: &str) -> Option<Vec<u8>> {
    let exec = Exec::new("gzip").args(["--best", "--no-name", "--stdout"]);
    let output = exec.stdin_bytes(text.as_bytes().to_vec()).run().ok()?;
    output.exit.is_success().then_some(output.stdout)
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

/// How the last update of the installed server went, if this is it.
fn last_update() -> Value {
    let text = if runs_installed() { std::fs::read(LAST_UPDATE).ok() } else { None };
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
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
    if routing.dashboard_domain.is_some() {
        log::info!("dashboard: {}, through the router", dashboard(address, routing));
    }
    let port = address.port();
    if address.ip().is_unspecified() {
        log::info!("listening on http://127.0.0.1:{port} and all other addresses of this machine");
    } else {
        log::info!("listening on http://{address}");
    }
    log::info!("dashboard: {}", url_of(address));
}

/// Where the dashboard of a server that listens at this address is reached best.
#[must_use]
pub fn dashboard(address: SocketAddr, routing: &Routing) -> String {
    let Some(domain) = &routing.dashboard_domain else { return url_of(address) };
    let port = routing.https_port.filter(|port| *port != 443);
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    format!("https://{domain}{port}")
}

fn url_of(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        // An address for documentation (RFC 5737).
        let outward = router::address_towards("192.0.2.1").unwrap_or(Ipv4Addr::LOCALHOST.into());
        address.set_ip(outward);
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p29_a_restore_that_was_cut_short_is_no_empty_server() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        let database = data.join(DATABASE);
        assert_eq!(refuse_emptied(&database, &data), Ok(()));
        data.make_dir(RESTORING).unwrap();
        let refused = refuse_emptied(&database, &data).unwrap_err();
        assert!(refused.starts_with("a restore was cut short; do it again"), "{refused}");
        std::fs::write(&database, [0; 512]).unwrap();
        assert_eq!(refuse_emptied(&database, &data), Ok(()));
    }
}
