//! What an app is doing now: what the database knows of it, and what its supervisor does.
//!
//! Pauses, crashes and restarts are kept in memory alone: they are over when the server is
//! started anew, which starts what should run at once.

use crate::model::{AppId, AppStatus, ProcessId, UnixMillis, Wanted, unix_millis};
use crate::store::App;
use crate::sync::lock;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The pause before an app that ended is started again, the first time.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause; it doubles up to here.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An app that lived this long has earned the first pause again.
const STABLE: Duration = Duration::from_secs(60);

/// An app, or a process of it, as it is now; as JSON it is what the API shows of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppState {
    /// In a word.
    pub status: AppStatus,
    /// Why it is down, while it is.
    #[serde(rename = "statusDetail")]
    pub detail: Option<String>,
    /// How often it was started again by itself since its owner started it.
    pub restarts: u32,
    /// How it ended last since then, when nobody wanted that.
    pub last_exit: Option<String>,
    /// When it is started again.
    pub next_start_at: Option<UnixMillis>,
}

/// What its supervisor does with an app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing: it is as the database says.
    #[default]
    Settled,
    /// Starts it, or waits until it listens.
    Starting,
    /// Ends it, as its owner wants.
    Stopping,
    /// Waits until it is time to start it again.
    Down,
}

/// What its supervisor knows of a process.
#[derive(Debug, Clone, Default)]
struct Known {
    phase: Phase,
    /// Since when its process runs, if it was started from here.
    since: Option<Instant>,
    /// The pause before it was started again, or will be.
    pause: Option<Duration>,
    restarts: u32,
    last_exit: Option<String>,
    /// Why it could not be started, if that was so.
    not_started: Option<String>,
    next_start_at: Option<UnixMillis>,
}

impl Known {
    /// Whether it ended twice or more before it was stable.
    fn loops(&self) -> bool {
        let is_stable = |since: Instant| self.phase != Phase::Down && since.elapsed() >= STABLE;
        self.pause > Some(FIRST_PAUSE) && !self.since.is_some_and(is_stable)
    }

    /// It is started again after a pause.
    fn down(&mut self, lived: Duration) -> Backoff {
        let backoff = Backoff::after(self.pause, lived);
        let pause = i64::try_from(backoff.pause.as_millis()).unwrap_or(i64::MAX);
        self.next_start_at = Some(unix_millis().saturating_add(pause));
        (self.phase, self.pause) = (Phase::Down, Some(backoff.pause));
        backoff
    }

    /// The status of an app that the database has as this.
    fn refine(&self, status: AppStatus) -> AppStatus {
        match (status, self.phase) {
            // A deploy or its owner says more.
            (AppStatus::Running | AppStatus::Crashed, _) if self.loops() => AppStatus::CrashLooping,
            (AppStatus::Running | AppStatus::Crashed, Phase::Down) => AppStatus::Crashed,
            // Its owner wants it again by now.
            (AppStatus::Running | AppStatus::Crashed, Phase::Starting | Phase::Stopping) => {
                AppStatus::Starting
            }
            (other, _) => other,
        }
    }

    /// What is shown of one that has this status.
    fn shown(self, status: AppStatus) -> AppState {
        let is_down = matches!(status, AppStatus::Crashed | AppStatus::CrashLooping);
        let why = self.not_started.or_else(|| self.last_exit.clone());
        AppState {
            status,
            detail: if is_down { why } else { None },
            restarts: self.restarts,
            last_exit: self.last_exit,
            next_start_at: self.next_start_at,
        }
    }
}

/// What the supervisor knows of all processes, for others to read. An app stands for the one of
/// its processes that requests go to.
#[derive(Debug, Default)]
pub struct StatusBoard(Mutex<HashMap<ProcessId, Known>>);

impl StatusBoard {
    /// All that was is over: a new release, a new wish of the owner.
    pub fn clear(&self, of: impl Into<ProcessId>) {
        lock(&self.0).remove(&of.into());
    }

    /// It is to be started, now.
    pub fn to_start(&self, of: impl Into<ProcessId>) {
        lock(&self.0).insert(of.into(), Known { phase: Phase::Starting, ..Known::default() });
    }

    /// It is asked to end. Of a worker that is known until it has.
    pub fn stopping(&self, of: impl Into<ProcessId>) {
        lock(&self.0).insert(of.into(), Known { phase: Phase::Stopping, ..Known::default() });
    }

    /// One that was asked to end has.
    pub fn gone(&self, of: &ProcessId) {
        let mut all = lock(&self.0);
        if all.get(of).is_some_and(|known| known.phase == Phase::Stopping) {
            all.remove(of);
        }
    }

    /// It was started, and does not listen yet.
    pub fn started(&self, of: impl Into<ProcessId>) {
        self.change(of, |known| {
            known.restarts += u32::from(known.phase == Phase::Down);
            (known.phase, known.since) = (Phase::Starting, Some(Instant::now()));
            (known.next_start_at, known.not_started) = (None, None);
        });
    }

    /// It listens, or need not.
    pub fn settled(&self, of: impl Into<ProcessId>) {
        self.change(of, |known| known.phase = Phase::Settled);
    }

    /// It has ended by itself after this time. Answers when it is started again.
    pub fn ended(&self, of: impl Into<ProcessId>, how: &str, lived: Duration) -> Backoff {
        self.change(of, |known| {
            known.last_exit = Some(how.to_owned());
            known.down(lived)
        })
    }

    /// It could not be started. Answers when that is tried again.
    pub fn not_started(&self, of: impl Into<ProcessId>, why: &str) -> Backoff {
        self.change(of, |known| {
            known.not_started = Some(format!("it could not be started: {why}"));
            known.down(Duration::ZERO)
        })
    }

    /// An app as it is now.
    pub fn state(&self, app: &App) -> AppState {
        // Files neither start nor end.
        let has_process = !app.is_static && app.wanted == Wanted::Running;
        let known = match has_process {
            true if app.is_workers_only() => self.worst(&app.id),
            true => self.known(&app.id),
            false => Known::default(),
        };
        let status = if app.is_static { app.status } else { known.refine(app.status) };
        known.shown(status)
    }

    /// A process without a port as it is now.
    pub fn worker(&self, id: &ProcessId) -> AppState {
        let known = lock(&self.0).get(id).cloned();
        let status = match &known {
            None => AppStatus::Stopped,
            Some(known) if known.phase == Phase::Stopping => AppStatus::Stopping,
            Some(known) => known.refine(AppStatus::Running),
        };
        known.unwrap_or_default().shown(status)
    }

    /// What is known of that worker of an app that fares worst; before there is any, of the app.
    fn worst(&self, app: &AppId) -> Known {
        let all = lock(&self.0);
        let is_worker = |(id, known): &(&ProcessId, &Known)| {
            id.app == *app && !id.is_web() && known.phase != Phase::Stopping
        };
        let workers = all.iter().filter(is_worker);
        let badness = |known: &&Known| (known.loops(), known.phase == Phase::Down, known.restarts);
        let worst = workers.map(|(_, known)| known).max_by_key(badness);
        worst.or_else(|| all.get(&app.into())).cloned().unwrap_or_default()
    }

    /// Whether an app answers its visitors, as far as that is known.
    pub fn serves(&self, app: &App) -> bool {
        let known = self.known(&app.id);
        let is_up = app.port().is_some() && known.phase == Phase::Settled && !known.loops();
        app.wanted == Wanted::Running && app.live_deploy.is_some() && (app.is_static || is_up)
    }

    fn change<T>(&self, of: impl Into<ProcessId>, change: impl FnOnce(&mut Known) -> T) -> T {
        change(lock(&self.0).entry(of.into()).or_default())
    }

    fn known(&self, app: &AppId) -> Known {
        lock(&self.0).get(&app.into()).cloned().unwrap_or_default()
    }
}

/// When an app that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How long to wait.
    pub pause: Duration,
    /// What ends the line about it; none when there is to be no line: one a minute for weeks
    /// would bury what matters.
    pub line_ending: Option<&'static str>,
}

impl Backoff {
    /// For one that lived this long, by the monotonic clock, after the pause before.
    fn after(before: Option<Duration>, lived: Duration) -> Self {
        let pause = match before {
            Some(pause) if lived < STABLE => (pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        let line_ending = match pause == LONGEST_PAUSE {
            false => Some(""),
            true if before == Some(LONGEST_PAUSE) => None,
            true => Some(" From now on it is tried every minute without a line here."),
        };
        Self { pause, line_ending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessName;

    #[test]
    fn pauses_double_to_a_minute_and_a_minute_alive_earns_the_first_again() {
        let seconds = |n| Duration::from_secs(n);
        let mut pause = None;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let next = Backoff::after(pause, seconds(59));
            assert_eq!(next.pause > FIRST_PAUSE, pause.is_some());
            pauses.push(next.pause.as_secs());
            pause = Some(next.pause);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let line =
            |before, lived| Backoff::after(Some(seconds(before)), seconds(lived)).line_ending;
        assert_eq!(line(16, 0), Some(""));
        assert!(line(32, 0).unwrap().contains("without a line"));
        assert_eq!(line(60, 0), None);
        assert_eq!(line(60, 60), Some(""), "it was stable");
        assert_eq!(Backoff::after(pause, seconds(60)).pause, FIRST_PAUSE);
        assert_eq!(Backoff::after(None, seconds(0)).pause, FIRST_PAUSE);
    }

    #[test]
    fn workers_have_states_of_their_own_and_the_worst_is_that_of_an_app_without_others() {
        let board = StatusBoard::default();
        let app = AppId::from_random([7; 10]);
        let name = ProcessName::parse("worker").unwrap();
        let id = |number| ProcessId { app: app.clone(), name: name.clone(), number };
        let status = |number| board.worker(&id(number)).status;
        assert_eq!(status(1), AppStatus::Stopped);
        for number in [1, 2] {
            board.started(id(number));
            board.settled(id(number));
        }
        board.ended(id(2), "exit code 3", Duration::ZERO);
        assert_eq!((status(1), status(2)), (AppStatus::Running, AppStatus::Crashed));
        let worst = || board.worst(&app).refine(AppStatus::Running);
        assert_eq!((worst(), board.known(&app).restarts), (AppStatus::Crashed, 0));
        board.started(id(2));
        board.settled(id(2));
        board.ended(id(2), "exit code 3", Duration::ZERO);
        let state = board.worker(&id(2));
        assert_eq!((state.status, state.restarts), (AppStatus::CrashLooping, 1));
        assert_eq!(state.detail.as_deref(), Some("exit code 3"));
        assert_eq!(worst(), AppStatus::CrashLooping);
        for number in [1, 2] {
            board.stopping(id(number));
        }
        board.gone(&id(2));
        assert_eq!((status(1), status(2)), (AppStatus::Stopping, AppStatus::Stopped));
        assert_eq!(worst(), AppStatus::Running, "nothing is known of those that stay");
        board.to_start(&app);
        assert_eq!(worst(), AppStatus::Starting);
        board.to_start(id(1));
        board.gone(&id(1));
        assert_eq!(status(1), AppStatus::Starting, "the next one has its place");
    }

    #[test]
    fn one_that_ends_again_and_again_is_said_to_until_it_was_stable() {
        let board = StatusBoard::default();
        let app = AppId::from_random([7; 10]);
        let (running, ended) = (AppStatus::Running, AppStatus::Crashed);
        let is = |status| board.known(&app).refine(status);
        assert_eq!((is(running), is(ended)), (running, ended), "nothing is known");
        for (down, up) in [(ended, running), (AppStatus::CrashLooping, AppStatus::CrashLooping)] {
            board.ended(&app, "exit code 1", Duration::ZERO);
            assert_eq!((is(running), is(ended)), (down, down));
            board.started(&app);
            let arriving = if up == running { AppStatus::Starting } else { up };
            assert_eq!(is(running), arriving);
            board.settled(&app);
            assert_eq!(is(running), up);
        }
        let known = board.known(&app);
        assert_eq!((known.restarts, known.last_exit.as_deref()), (2, Some("exit code 1")));
        let long_ago = Instant::now().checked_sub(STABLE);
        board.change(&app, |known| known.since = long_ago);
        assert_eq!(is(running), running, "a minute later");
        for status in [AppStatus::Deploying, AppStatus::Restarting, AppStatus::Stopping] {
            assert_eq!(is(status), status);
        }
        board.stopping(&app);
        assert_eq!((is(running), is(ended)), (AppStatus::Starting, AppStatus::Starting));
        board.clear(&app);
        assert_eq!((is(running), board.known(&app).restarts), (running, 0));
    }
}
