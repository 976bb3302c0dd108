//! How full a deploy may make the disk, and who looks while it writes.

use crate::proc::Cancel;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, Builder};
use std::time::Duration;

/// Bytes of disk that a deploy must leave free: the database, the logs and the apps'
/// own data go on growing.
const LEAST_SPACE: u64 = 500 << 20;

/// The same in parts of a hundred.
const LEAST_PERCENT: u64 = 5;

/// Inodes that a deploy must leave: the server makes files all the time (a journal of the
/// database, a log, a new token before it takes the old one's place), and a build that makes
/// files on all cores makes some thousands until it is ended.
const LEAST_FILES: u64 = 20_000;

/// Bytes that a build cache may have on a large disk.
const MOST_CACHE: u64 = 2 << 30;

/// How often the disk is looked at while a deploy writes: what a fast one takes in this
/// time is less than what it must leave.
const LOOK: Duration = Duration::from_millis(50);

/// What is free of a disk, and what there is in all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    /// Bytes free for us.
    pub free: u64,
    /// Bytes.
    pub all: u64,
    /// Inodes free for us: files that can still be made.
    pub free_files: u64,
    /// Inodes; 0 where the file system makes them as it needs them.
    pub files: u64,
}

impl Space {
    /// What there is where `path` is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self {
            free: bytes(stat.f_bavail),
            all: bytes(stat.f_blocks),
            free_files: stat.f_favail,
            files: stat.f_files,
        })
    }

    /// Bytes that deploys may still take.
    pub fn room(self) -> u64 {
        self.free.saturating_sub(self.least())
    }

    /// Files that deploys may still make.
    pub fn room_for_files(self) -> u64 {
        let least = LEAST_FILES.max(self.files / 100 * LEAST_PERCENT);
        if self.files == 0 { u64::MAX } else { self.free_files.saturating_sub(least) }
    }

    /// Whether it is fuller than with so many bytes and inodes free.
    pub const fn has_less_than(self, bytes: u64, files: u64) -> bool {
        self.free < bytes || (self.files > 0 && self.free_files < files)
    }

    /// Why no deploy begins, or goes on.
    pub fn too_little(self) -> Option<String> {
        if self.free < self.least() {
            let (free, all, least) = (self.free >> 20, self.all >> 20, LEAST_SPACE >> 20);
            return Some(format!(
                "only {free} MiB of {all} MiB of disk are free, and a deploy needs {least} MiB \
                 and {LEAST_PERCENT} %; free some space"
            ));
        }
        (self.room_for_files() == 0).then(|| {
            format!(
                "only {} of {} inodes of the disk are free (each file takes one), and a deploy \
                 needs {LEAST_FILES} and {LEAST_PERCENT} %; remove some files",
                self.free_files, self.files
            )
        })
    }

    /// Bytes that the builds of one app may keep for the next ones: a disk of 10 GB, as small
    /// machines have, is for more than that, and what fills a larger cache is mostly versions
    /// of long ago.
    pub fn for_cache(self) -> u64 {
        MOST_CACHE.min(self.all / 10)
    }

    /// Whether deploys have less room than one such cache may take, or soon none for files.
    pub fn is_short(self) -> bool {
        self.room() < self.for_cache() || self.room_for_files() < LEAST_FILES
    }

    fn least(self) -> u64 {
        LEAST_SPACE.max(self.all / 100 * LEAST_PERCENT)
    }
}

/// Does `work`, which ends early when its argument is cancelled: with `cancel`, or when
/// `no_room` says why the disk is too full. Answers that reason too.
///
/// # Errors
/// When the watch could not be set up; nothing was done then.
pub fn watched<T>(
    cancel: &Cancel,
    no_room: &(dyn Fn() -> Option<String> + Sync),
    work: impl FnOnce(&Cancel) -> T,
) -> io::Result<(T, Option<String>)> {
    let stop = &Cancel::new()?;
    thread::scope(|scope| {
        // However the work ends, the watch ends with it.
        let (done, work_is_done) = mpsc::channel::<()>();
        let watcher = Builder::new().name("disk".to_owned());
        let watch = watcher.spawn_scoped(scope, move || {
            loop {
                let why = no_room();
                if why.is_some() || cancel.is_cancelled() {
                    stop.cancel();
                    return why;
                }
                if work_is_done.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                    return None;
                }
            }
        })?;
        let result = work(stop);
        drop(done);
        Ok((result, watch.join().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::{Exec, wait_any};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    const GIB: u64 = 1 << 30;

    #[test]
    fn there_is_space_and_it_is_less_than_all() {
        let space = Space::of(Path::new("/")).unwrap();
        assert!(space.free > 0 && space.free <= space.all);
    }

    #[test]
    fn a_full_disk_refuses_a_deploy_before_it_begins() {
        let too_little = |free, all| Space { free, all, ..Space::default() }.too_little();
        assert_eq!(too_little(10 * GIB, 100 * GIB), None);
        assert_eq!(too_little(GIB, 10 * GIB), None);
        assert!(too_little(4 * GIB, 100 * GIB).is_some(), "less than 5 %");
        let sentence = too_little(GIB / 4, 2 * GIB).unwrap();
        assert!(sentence.contains("only 256 MiB of 2048 MiB"), "{sentence}");
    }

    #[test]
    fn caches_have_a_tenth_of_a_small_disk_and_none_when_it_gets_short() {
        let space = |free, all| Space { free, all, ..Space::default() };
        assert_eq!(space(0, 10 * GIB).for_cache(), GIB);
        assert_eq!(space(0, 100 * GIB).for_cache(), MOST_CACHE);
        assert!(!space(2 * GIB, 10 * GIB).is_short() && space(GIB, 10 * GIB).is_short());
        assert!(!space(8 * GIB, 100 * GIB).is_short() && space(6 * GIB, 100 * GIB).is_short());
        let few = Space { free_files: 70_000, files: 655_360, ..space(9 * GIB, 10 * GIB) };
        assert!(!few.is_short() && Space { free_files: 50_000, ..few }.is_short());
    }

    #[test]
    fn what_must_stay_free_is_nobodys_room() {
        let room = |free, all| Space { free, all, ..Space::default() }.room();
        assert_eq!(room(GIB, 8 * GIB), GIB - LEAST_SPACE);
        assert!(room(10 * GIB, 100 * GIB) <= 5 * GIB + 100, "5 % of a large disk");
        assert_eq!(room(GIB / 4, 2 * GIB), 0);
    }

    #[test]
    fn inodes_count_as_bytes_do_where_their_number_is_fixed() {
        let (free, all) = (50 * GIB, 100 * GIB);
        let space = |free_files, files| Space { free, all, free_files, files };
        assert_eq!(space(0, 0).too_little(), None, "made as they are needed");
        assert_eq!(space(0, 0).room_for_files(), u64::MAX);
        assert_eq!(space(60_000, 1_000_000).too_little(), None);
        assert_eq!(space(60_000, 1_000_000).room_for_files(), 10_000, "5 % of many");
        assert_eq!(space(60_000, 100_000).room_for_files(), 60_000 - LEAST_FILES);
        let sentence = space(15_000, 100_000).too_little().unwrap();
        assert!(sentence.starts_with("only 15000 of 100000 inodes of the disk"), "{sentence}");
        let is_full = |free_files, files| space(free_files, files).has_less_than(GIB, 100);
        assert!(!is_full(0, 0) && !is_full(100, 1000) && is_full(99, 1000));
        assert!(space(100, 1000).has_less_than(51 * GIB, 0));
    }

    /// Where the user of the test below stands for one who may start no thread.
    const NO_THREADS: &str = "BETTER_PAAS_TEST_NO_THREADS";

    #[test]
    fn a_machine_that_starts_no_thread_is_an_error_and_no_panic() {
        let cancel = Cancel::new().unwrap();
        if std::env::var_os(NO_THREADS).is_some() {
            let error = watched(&cancel, &|| None, |_| panic!("not watched")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        } else if rustix::process::geteuid().is_root() {
            // The kernel holds only others than root to it. Our own file may be out of reach.
            let dir = tempfile::tempdir().unwrap();
            let us = dir.path().join("us");
            std::fs::copy(std::env::current_exe().unwrap(), &us).unwrap();
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
            let name =
                "disk::space::tests::a_machine_that_starts_no_thread_is_an_error_and_no_panic";
            let user = ["--reuid=1900000002", "--regid=1900000002", "--clear-groups"];
            let exec = Exec::new("setpriv").args(user).args(["prlimit", "--nproc=1"]);
            let exec = exec.arg(us).args(["--exact", name, "--test-threads=1", "--nocapture"]);
            let output = exec.env(NO_THREADS, "1").run().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.exit.is_success() && said.contains("1 passed"), "{said}");
        }
    }

    #[test]
    fn work_ends_when_the_disk_gets_too_full_or_somebody_cancels_it() {
        let cancel = Cancel::new().unwrap();
        let waits = |stop: &Cancel| wait_any(&[stop.as_fd()], Duration::from_secs(600)).is_ok();
        let full = AtomicBool::new(false);
        let no_room = || full.load(Ordering::SeqCst).then(|| "no room".to_owned());
        let (value, why) = watched(&cancel, &no_room, |stop| stop.is_cancelled()).unwrap();
        assert_eq!((value, why), (false, None));
        let fills = |stop: &Cancel| {
            full.store(true, Ordering::SeqCst);
            waits(stop) && stop.is_cancelled()
        };
        let ended = watched(&cancel, &no_room, fills).unwrap();
        assert_eq!(ended, (true, Some("no room".to_owned())));
        cancel.cancel();
        let ended = watched(&cancel, &|| None, |stop| waits(stop) && stop.is_cancelled());
        assert_eq!(ended.unwrap(), (true, None));
    }
}
