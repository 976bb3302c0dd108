//! Looks at every point of the checklist again and again, and tells the owner what has lasted.

use crate::api::host_name;
use crate::backup::keeper::Keeper;
use crate::checks::steady::Steady;
use crate::checks::{self, App, Board, Facts, Finding, Host, Memory, Updates, glance};
use crate::config::Config;
use crate::data_dir::{DataDir, replace};
use crate::deploy::Deployer;
use crate::deploy::host_names::{host_names, router_trouble, trouble};
use crate::live::Machine;
use crate::model::{AppStatus, DeployStatus, MINUTE, Trust, UnixMillis, Wanted, is_public};
use crate::notify::{Notices, Told};
use crate::ops::check;
use crate::proc::{Cancel, wait_any};
use crate::router::{Certificate, RouterState};
use crate::runtime::exit_reason::without_last_lines;
use crate::runtime::jobs::{jobs_of, last_run};
use crate::runtime::tcp_sockets::listeners;
use crate::sandbox::port_range::RANGE;
use crate::store::{self, DATABASE, Setting, StoreError};
use crate::sync::lock;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Time between two looks. What has lasted for two of them is told, so within a minute.
const LOOK: Duration = Duration::from_secs(20);

/// How often the system is asked for its clock and its updates, which takes it a second.
const CLOCK: Duration = Duration::from_secs(1800);
const UPDATES: Duration = Duration::from_secs(6 * 3600);

/// How long after its start a server looks first, and first asks the system: it has more to do
/// then.
const FIRST_LOOK: Duration = Duration::from_secs(5);
const FIRST_ASKED: Duration = Duration::from_secs(300);

/// How long after its time a job was missed: it may wait for others.
const MISSED: UnixMillis = 15 * MINUTE;

/// Ports that are meant for everybody: SSH, HTTP and HTTPS.
const MEANT: [u16; 3] = [22, 80, 443];

/// What is written to when packages are installed or updated.
const PACKAGES: &str = "/var/lib/dpkg/status";

/// What was told, in the data directory.
const TOLD: &str = "told.json";

/// How ends of a deploy or a run begin that are no failure of theirs.
const NO_FAILURE: [&str; 2] = ["cancelled", "the server was stopped"];

/// Who looks.
pub(super) struct Checker {
    pub(super) config: Config,
    pub(super) data: DataDir,
    pub(super) deployer: Arc<Deployer>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) board: Arc<Board>,
    pub(super) notices: Arc<Notices>,
    pub(super) stop: Cancel,
    pub(super) slow: Mutex<Slow>,
}

/// What is not looked at each time.
#[derive(Default)]
pub(super) struct Slow {
    clock: Option<(Instant, Option<bool>)>,
    updates: Option<(Instant, Option<Updates>)>,
    packages: Option<SystemTime>,
    /// What is wrong with the audit log, as it was when database and log had these times.
    audit: Option<Option<String>>,
    written: [Option<SystemTime>; 2],
}

impl Checker {
    /// Looks until the server stops.
    pub(super) fn run(&self) {
        let path = self.data.join(TOLD);
        let told = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut told: Told = told.unwrap_or_default();
        let mut steady = Steady::after(told.findings());
        let began = Instant::now();
        let _ = wait_any(&[self.stop.as_fd()], FIRST_LOOK);
        while !self.stop.is_cancelled() {
            if began.elapsed() >= FIRST_ASKED {
                self.ask_the_system();
            }
            match self.facts() {
                Ok(facts) => {
                    let lasting = steady.look(&checks::findings(&facts), &unknown(&facts));
                    self.board.set_lasting(lasting.clone());
                    if self.notices.take_new() {
                        told = Told::default();
                    }
                    self.tell(&mut told, &lasting, &path);
                }
                Err(error) => log::error!("the checklist could not be judged: {error}"),
            }
            let _ = wait_any(&[self.stop.as_fd()], LOOK);
        }
    }

    /// What every point comes to now.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let facts = self.facts().unwrap_or_else(|error| {
            log::error!("the checklist lacks the apps: {error}");
            self.local()
        });
        checks::findings(&facts)
    }

    /// Tells what has come and gone, and notes that it was told.
    fn tell(&self, told: &mut Told, lasting: &[Finding], path: &Path) {
        let store = &self.deployer.tools.store;
        // One that was lost with the key is none; the settings say so.
        let Ok(Some(url)) = store.setting(Setting::NotificationUrl) else { return };
        let Some(Ok(host)) = self.deployer.tools.host.last() else { return };
        let name = host_name();
        let head = store.audit_head().unwrap_or_default();
        let (text, now) = told.news(&name, lasting, &head);
        if let Some(text) = text {
            if !self.notices.is_due() {
                return;
            }
            if let Some(why) = self.notices.send(&host, &url, &text).error {
                if !self.stop.is_cancelled() {
                    log::warn!("the findings were not sent: {why}");
                }
                return;
            }
        }
        if now != *told {
            *told = now;
            let saved = serde_json::to_vec(&told).map_err(Into::into);
            if let Err(error) = saved.and_then(|text| replace(path, &text)) {
                log::warn!("what was told could not be noted, and is told again: {error}");
            }
        }
    }

    /// What takes a moment, where that was long ago.
    fn ask_the_system(&self) {
        let is_due = |at: Option<Instant>, period| at.is_none_or(|at| at.elapsed() >= period);
        let changed = fs::metadata(PACKAGES).and_then(|about| about.modified()).ok();
        let (clock, updates) = {
            let slow = lock(&self.slow);
            // What was mended is seen soon.
            let period =
                if slow.clock.is_some_and(|(_, set)| set == Some(false)) { LOOK } else { CLOCK };
            let asked = slow.updates.map(|(at, _)| at).filter(|_| slow.packages == changed);
            (is_due(slow.clock.map(|(at, _)| at), period), is_due(asked, UPDATES))
        };
        if clock {
            let is_set = check::clock_is_set(&self.stop);
            lock(&self.slow).clock = Some((Instant::now(), is_set));
        }
        if updates {
            let pending = check::updates(&self.stop);
            let mut slow = lock(&self.slow);
            (slow.updates, slow.packages) = (Some((Instant::now(), pending)), changed);
        }
    }

    /// What the data directory and the machine tell.
    fn local(&self) -> Facts {
        let mut facts = check::gather(&self.config, &self.data);
        let database = self.data.join(DATABASE);
        let log = database.with_extension("db-wal");
        let written = [&database, &log].map(|path| fs::metadata(path).ok()?.modified().ok());
        let mut slow = lock(&self.slow);
        if slow.audit.is_none() || slow.written != written {
            slow.audit = check::audit(&self.data).ok();
            slow.written = written;
        }
        facts.audit.clone_from(&slow.audit);
        facts.clock_is_set = slow.clock.and_then(|(_, is_set)| is_set);
        facts.updates = slow.updates.and_then(|(_, updates)| updates);
        drop(slow);
        if let Some(backups) = &mut facts.backups {
            backups.last_error = self.keeper.state().1;
        }
        facts
    }

    fn facts(&self) -> Result<Facts, StoreError> {
        let tools = &self.deployer.tools;
        let mut facts = self.local();
        (facts.way, facts.ahead_of_browser) = self.board.noted();
        facts.way.trusts = self.config.routing.trust != Trust::default();
        let listen = self.config.listen;
        let is_open = listen.everywhere || !listen.address.ip().is_loopback();
        if is_open && self.config.routing.trust == Trust::private() {
            facts.way.open_beside_proxy = Some(tools.own_port);
        }
        if let (Some(Ok(host)), Some(fences)) = (tools.host.last(), tools.host.fences()) {
            let all = [
                ("identity", host.shared_because.clone()),
                ("firewall", fences.firewall),
                ("port-fence", fences.ports),
                ("socket-fence", fences.sockets),
            ];
            let was_tried = |why: &Option<String>| {
                why.as_ref().is_none_or(|why| !why.contains("could not be tried"))
            };
            facts.fences = all.into_iter().filter(|(_, why)| was_tried(why)).collect();
        }
        facts.router = match tools.router.state() {
            RouterState::Missing(why) => Some(why.to_owned()),
            RouterState::Running { .. } => router_trouble(tools),
            RouterState::Off | RouterState::Starting => None,
        };
        facts.memory = Some(memory(self.data.path()));
        facts.open_ports = Some(self.open_ports());
        for app in tools.store.shared_apps()?.iter() {
            facts.apps.push(self.app(app, facts.now)?);
        }
        Ok(facts)
    }

    /// Where something else than this server and its apps listens for everybody.
    fn open_ports(&self) -> Vec<u16> {
        let own = self.deployer.tools.own_ports();
        let more = fs::read_dir("/etc/ssh/sshd_config.d").into_iter().flatten().flatten();
        let files = more.map(|file| file.path()).chain(["/etc/ssh/sshd_config".into()]);
        let text: String = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        let text = text.to_ascii_lowercase();
        let ssh: Vec<u16> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("port ")?.trim().parse().ok())
            .collect();
        let is_for_all = |ip| is_public(&ip);
        let mut ports: Vec<u16> = listeners()
            .iter()
            .filter(|socket| is_for_all(socket.address.ip().to_canonical()))
            .map(|socket| socket.address.port())
            .filter(|port| ![&MEANT[..], &own, &ssh].iter().any(|known| known.contains(port)))
            .filter(|port| !RANGE.contains(port))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn app(&self, app: &store::App, now: UnixMillis) -> Result<App, StoreError> {
        let tools = &self.deployer.tools;
        let state = tools.board.state(app);
        let is_live = app.live_deploy.is_some() && app.wanted == Wanted::Running;
        let last = app.last_deploy.as_ref().map(|id| tools.store.deploy(id)).transpose()?;
        let failed = last.flatten().filter(|deploy| deploy.status == DeployStatus::Failed);
        let failed = failed.filter(|_| app.wanted == Wanted::Running);
        let failed = failed.and_then(|deploy| deploy.error);
        let failed = failed.filter(|why| !NO_FAILURE.iter().any(|begin| why.starts_with(begin)));
        let failed = failed.map(|why| glance(without_last_lines(&why)));
        let runs = tools.store.runs(&app.id)?;
        let mut jobs = Vec::new();
        let declared = if is_live { jobs_of(tools, app)? } else { Vec::new() };
        for (job, _) in declared {
            let Some(last) = last_run(&runs, &job.name) else { continue };
            let result = last.result.as_deref();
            let result =
                result.filter(|why| !NO_FAILURE.iter().any(|begin| why.starts_with(begin)));
            let due = job.schedule.next_after(last.started_at);
            if let Some(result) = result.filter(|result| *result != "exit code 0") {
                jobs.push((job.name.to_string(), format!("failed: {}", glance(result))));
            } else if last.finished_at.is_some() && due.is_some_and(|due| due + MISSED < now) {
                jobs.push((job.name.to_string(), "was not run when its time had come".to_owned()));
            }
        }
        let (names, own) = host_names(&tools.router, app);
        let names = names.into_iter().filter(|_| is_live);
        let hosts = names.filter_map(|name| {
            let is_missing = matches!(name.certificate, Some(Certificate::Missing(_)));
            let leads_nowhere = name.resolves.as_ref().is_some_and(Vec::is_empty);
            Some(Host {
                trouble: glance(&trouble(&name, &own)?),
                is_noticed: is_missing || name.runs_out,
                leads_elsewhere: name.here == Some(false) || leads_nowhere,
                name: name.host,
            })
        });
        let looping = (state.status == AppStatus::CrashLooping).then(|| {
            state.detail.or(state.last_exit).unwrap_or_else(|| "no reason is known".to_owned())
        });
        Ok(App {
            id: app.id.clone(),
            name: app.name.to_string(),
            looping: looping.map(|why| glance(&why)),
            failed: failed.map(|why| (why, app.live_deploy.is_some())),
            jobs,
            hosts: hosts.collect(),
        })
    }
}

fn memory(disk: &Path) -> Memory {
    let (machine, info) = (Machine::read(disk), rustix::system::sysinfo());
    let swap = |count: u64| count.saturating_mul(info.mem_unit.into());
    Memory {
        total: machine.memory_total_bytes,
        available: machine.memory_available_bytes,
        swap: swap(info.totalswap),
        swap_free: swap(info.freeswap),
    }
}

/// The findings of which these facts do not tell whether they have gone.
fn unknown(facts: &Facts) -> Vec<&'static str> {
    let mut all = Vec::new();
    if !facts.way.is_known {
        all.extend(["plain-http", "proxy"]);
    }
    if facts.fences.is_empty() {
        all.extend(["identity", "firewall", "port-fence", "socket-fence"]);
    }
    all.extend(facts.updates.is_none().then_some("updates"));
    all.extend(facts.clock_is_set.is_none().then_some("clock"));
    all.extend(facts.audit.is_none().then_some("audit"));
    all
}
