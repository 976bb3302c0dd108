//! The journal as its users see it: writing, following, rotating, removing.

mod pages;

use super::*;
use crate::model::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

struct Room {
    journal: Journal,
    folder: TempDir,
}

fn room(half_app_log: u64) -> Room {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&DataDir::open(&folder.path().join("data")).unwrap()).unwrap();
    Room { journal: Journal { half_app_log, ..journal }, folder }
}

fn deploy() -> LogOf {
    LogOf::Deploy(DeployId::from_random([7; 10]))
}

fn app() -> AppId {
    AppId::from_random([9; 10])
}

fn secret(text: &str) -> Redactor {
    Redactor::new(vec![Secret::new(text.to_owned())])
}

/// What writes into an app's log as the first process of its sandbox does.
fn process(room: &Room) -> Process {
    let files = room.journal.app_log_files(&app()).unwrap();
    Process(Rotating::new(files, room.journal.half_app_log).unwrap())
}

struct Process(Rotating);

impl io::Write for Process {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map(|()| bytes.len())
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.0.append(text.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows an app's log.
fn follow(room: &Room, last: usize, redactor: Redactor) -> Subscription {
    room.journal.follow_app(&app(), Begin::Last(last), || Ok(redactor)).unwrap()
}

/// All lines that can be read now.
fn drain(subscription: &mut Subscription) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let lines = subscription.read(1000);
        if lines.is_empty() {
            return all;
        }
        all.extend(lines);
    }
}

/// Whether there is nothing more to read, and never will be.
fn is_over(subscription: &mut Subscription) -> bool {
    drain(subscription).is_empty() && subscription.is_over()
}

/// A line without the time that the platform's own lines have, which is not now for ever.
fn without_time(line: &str) -> String {
    let Some(rest) = line.strip_prefix("[better-paas] ") else { return line.to_owned() };
    let (time, text) = rest.split_at("2026-11-21 17:05:33 UTC ".len());
    assert_eq!(time.replace(|c: char| c.is_ascii_digit(), "0"), "0000-00-00 00:00:00 UTC ");
    format!("[better-paas] {text}")
}

/// Waits for the subscription's descriptor; false when nothing came in time.
fn woken(subscription: &Subscription, within: Duration) -> bool {
    let fd = subscription.fd().expect("an inotify instance");
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap() > 0
}

#[test]
fn a_deploys_log_is_followed_from_its_first_line_to_its_end() {
    let room = room(HALF_APP_LOG);
    assert!(room.journal.follow(&deploy(), Position::default()).unwrap().is_none());
    let writer = room.journal.begin(deploy(), secret("tops3cret")).unwrap();
    writer.line("first");
    let mut follower = room.journal.follow(&deploy(), Position::default()).unwrap().unwrap();
    assert_eq!(drain(&mut follower), ["first"]);
    assert!(!woken(&follower, Duration::ZERO));
    writer.line("\u{1b}[31mtoken is tops3cret\u{1b}[0m");
    writer.line("a\nb\r\n\nc");
    assert!(woken(&follower, Duration::ZERO));
    assert_eq!(drain(&mut follower), ["token is [redacted]", "a", "b", "", "c"]);
    assert!(follower.read(1000).is_empty() && !follower.is_over());
    drop(writer);
    assert!(woken(&follower, Duration::ZERO));
    assert!(is_over(&mut follower));

    let mut late = room.journal.follow(&deploy(), Position::default()).unwrap().unwrap();
    assert_eq!(drain(&mut late).len(), 6);
    assert!(late.is_over());
    let stored = fs::read_to_string(room.journal.file(&deploy())).unwrap();
    assert_eq!(stored, "first\ntoken is [redacted]\na\nb\n\nc\n");
}

#[test]
fn a_writer_that_is_dropped_ends_the_log_too() {
    let room = room(HALF_APP_LOG);
    let writer = room.journal.begin(deploy(), Redactor::default()).unwrap();
    writer.line("x");
    let mut follower = room.journal.follow(&deploy(), Position::default()).unwrap().unwrap();
    drop(writer);
    assert_eq!(drain(&mut follower), ["x"]);
    assert!(follower.is_over());
    assert!(lock(&room.journal.running).is_empty());
}

#[test]
fn output_that_comes_in_pieces_loses_its_secret_and_ends_where_its_program_does() {
    let room = room(HALF_APP_LOG);
    let writer = room.journal.begin(deploy(), secret("0123456789abcdef")).unwrap();
    let x = "x".repeat(MAX_LINE - 8);
    let told = |piece: &[u8]| {
        let mut lines = Vec::new();
        writer.output(piece, &mut |line| lines.push(line.to_owned()));
        lines
    };
    assert!(told(format!("{x}01234567").as_bytes()).is_empty());
    let lines = told(b"89abcdef and more\n\n \nun");
    assert_eq!(lines[1..], ["[redacted] and more", "", " "]);
    assert!(told(b"finished\x1b]title").is_empty());
    assert_eq!(told(b""), ["unfinished"]);
    assert!(told(b"").is_empty());
    writer.note("next");
    let long = "y".repeat(MAX_LINE);
    writer.line(&long);
    drop(writer);
    let stored = fs::read_to_string(room.journal.file(&deploy())).unwrap();
    let (before, after) = stored.split_once("unfinished\n").unwrap();
    assert_eq!(before, format!("{x}\n[redacted] and more\n\n \n"));
    assert!(after.ends_with(&format!(" next\n{long}\n")) && after.lines().count() == 2, "{after}");
}

#[test]
fn a_deploys_log_stops_growing_at_its_limit_and_says_so() {
    let room = room(HALF_APP_LOG);
    let writer = room.journal.begin(deploy(), Redactor::default()).unwrap();
    let line = "z".repeat(MAX_LINE - 10);
    for _ in 0..MAX_DEPLOY_LOG / MAX_LINE as u64 + 10 {
        writer.line(&line);
    }
    drop(writer);
    let stored = fs::read(room.journal.file(&deploy())).unwrap();
    assert!(stored.len() as u64 <= MAX_DEPLOY_LOG);
    assert!(stored.ends_with(b"[this log has reached 10 MiB; what follows is not kept]\n"));
}

#[test]
fn a_follower_takes_no_more_than_it_asks_for() {
    let room = room(HALF_APP_LOG);
    let writer = room.journal.begin(deploy(), Redactor::default()).unwrap();
    for i in 0..5_000 {
        writer.line(&format!("line {i}"));
    }
    let mut follower = room.journal.follow(&deploy(), Position::default()).unwrap().unwrap();
    let mut next = 0;
    loop {
        let lines = follower.read(500);
        if lines.is_empty() {
            break;
        }
        let mut size = 0;
        for line in lines {
            size += line.len();
            assert_eq!(line, format!("line {next}"));
            next += 1;
        }
        assert!(size <= 500 + MAX_LINE);
    }
    assert_eq!(next, 5_000);
}

#[test]
fn an_apps_log_is_followed_from_its_last_lines_on() {
    let room = room(HALF_APP_LOG);
    let mut process = process(&room);
    for i in 0..300 {
        writeln!(process, "line {i}").unwrap();
    }
    let mut follower = follow(&room, 200, secret("s3cr3t!"));
    let first = drain(&mut follower);
    assert_eq!((first.len(), first[0].as_str()), (200, "line 100"));
    assert!(!woken(&follower, Duration::ZERO));
    write!(process, "pass s3c").unwrap();
    assert!(woken(&follower, Duration::from_secs(5)));
    assert!(drain(&mut follower).is_empty());
    process.write_all(b"r3t! \xff\x1b[2J\n").unwrap();
    assert!(woken(&follower, Duration::from_secs(5)));
    assert_eq!(drain(&mut follower), ["pass [redacted] \u{fffd}"]);
}

#[test]
fn who_follows_an_app_before_its_first_line_is_woken_by_it() {
    let room = room(HALF_APP_LOG);
    let mut follower = follow(&room, 10, Redactor::default());
    assert!(drain(&mut follower).is_empty());
    writeln!(process(&room), "first").unwrap();
    assert!(woken(&follower, Duration::from_secs(5)));
    assert_eq!(drain(&mut follower), ["first"]);
}

#[test]
fn a_new_secret_is_kept_from_those_who_follow_already() {
    let room = room(HALF_APP_LOG);
    let mut follower = follow(&room, 10, secret("old-secret"));
    room.journal.hide_also(&app(), &secret("new-secret"));
    room.journal.note_app(&app(), "old-secret new-secret");
    let noted: Vec<_> = drain(&mut follower).iter().map(|line| without_time(line)).collect();
    assert_eq!(noted, ["[better-paas] [redacted] [redacted]"]);
}

#[test]
fn the_tail_holds_the_last_lines_and_the_platforms_own() {
    let room = room(HALF_APP_LOG);
    let none = Redactor::default();
    assert_eq!(room.journal.app_tail(&app(), 20, &none).unwrap(), Vec::<String>::new());
    let mut process = process(&room);
    write!(process, "one\ntwo\r\nunfinished").unwrap();
    room.journal.note_app(&app(), "stopped\nwith \u{1b}[1mexit code 1");
    write!(process, "more").unwrap();
    let all = ["one", "two", "unfinished", "[better-paas] stopped with exit code 1", "more"];
    let tail = |lines| {
        let tail = room.journal.app_tail(&app(), lines, &none).unwrap();
        tail.iter().map(|line| without_time(line)).collect::<Vec<_>>()
    };
    assert_eq!(tail(20), all);
    assert_eq!(tail(2), all[3..]);
    assert_eq!(room.journal.app_tail(&app(), 0, &none).unwrap(), Vec::<String>::new());
}

#[test]
fn a_log_that_is_followed_loses_no_line_and_its_tail_reaches_into_the_older_half() {
    let room = room(4_000);
    let mut process = process(&room);
    let mut follower = follow(&room, 200, Redactor::default());
    let mut seen = Vec::new();
    for i in 0..2_000 {
        writeln!(process, "line number {i}").unwrap();
        if i % 50 == 0 {
            seen.extend(drain(&mut follower));
        }
    }
    seen.extend(drain(&mut follower));
    let expected: Vec<_> = (0..2_000).map(|i| format!("line number {i}")).collect();
    assert_eq!(seen, expected);
    let files = fs::read_dir(room.journal.apps.clone()).unwrap();
    let size: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 8_000, "{size}");
    let tail = room.journal.app_tail(&app(), 220, &Redactor::default()).unwrap();
    assert_eq!(tail.len(), 220, "{tail:?}");
    assert_eq!((tail[0].as_str(), tail[219].as_str()), ("line number 1780", "line number 1999"));
}

#[test]
fn who_is_overtaken_by_an_app_hears_so_and_sees_no_half_of_a_line() {
    let room = room(1_000);
    let mut process = process(&room);
    let mut follower = follow(&room, 200, secret("0123456789abcdef"));
    for _ in 0..1_000 {
        writeln!(process, "a secret is 0123456789abcdef").unwrap();
    }
    writeln!(process, "end").unwrap();
    let seen = drain(&mut follower);
    let first = &seen[0];
    assert!(first.contains("too fast"), "{first}");
    let (last, middle) = seen[1..].split_last().unwrap();
    assert_eq!(last, "end");
    assert!(middle.iter().all(|line| line == "a secret is [redacted]"));
}

#[test]
fn a_log_that_somebody_else_emptied_is_read_from_its_start() {
    let room = room(HALF_APP_LOG);
    let mut process = process(&room);
    writeln!(process, "before, and longer").unwrap();
    let mut follower = follow(&room, 200, Redactor::default());
    assert_eq!(drain(&mut follower).len(), 1);
    for file in room.journal.app_log_files(&app()).unwrap() {
        file.set_len(0).unwrap();
    }
    writeln!(process, "after").unwrap();
    assert!(drain(&mut follower).contains(&"after".to_owned()));
}

#[test]
fn removing_an_app_removes_its_files_and_sends_its_followers_away() {
    let room = room(10);
    let mut process = process(&room);
    writeln!(process, "more than ten bytes").unwrap();
    drop(room.journal.begin(deploy(), Redactor::default()).unwrap());
    let mut follower = follow(&room, 0, Redactor::default());
    room.journal.remove_app(&app(), &[deploy(), LogOf::Run(RunId::from_random([1; 10]))]);
    assert!(woken(&follower, Duration::from_secs(5)));
    assert!(is_over(&mut follower));
    for part in [&room.journal.apps, &room.journal.deploys, &room.journal.runs] {
        assert_eq!(fs::read_dir(part).unwrap().count(), 0);
    }
}

#[test]
fn every_file_is_private_whatever_the_umask_p25() {
    let room = room(10);
    let loose = room.journal.apps.join(format!("{}.log", app()));
    fs::write(&loose, "more than ten bytes\n").unwrap();
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o666)).unwrap();
    drop(process(&room));
    room.journal.note_app(&app(), "note");
    drop(room.journal.begin(deploy(), Redactor::default()).unwrap());
    for part in [&room.journal.apps, &room.journal.deploys, &room.journal.runs] {
        for entry in fs::read_dir(part).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
        }
    }
}

#[test]
fn a_link_in_place_of_a_log_is_not_followed() {
    let room = room(HALF_APP_LOG);
    let target = room.folder.path().join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, room.journal.apps.join(format!("{}.log", app()))).unwrap();
    std::os::unix::fs::symlink(&target, room.journal.file(&deploy())).unwrap();
    assert!(room.journal.app_log_files(&app()).is_err());
    assert!(room.journal.begin(deploy(), Redactor::default()).is_err());
    assert!(room.journal.follow(&deploy(), Position::default()).is_err());
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
}

#[test]
fn of_a_line_that_is_too_long_the_end_is_shown_without_half_of_a_secret() {
    let room = room(HALF_APP_LOG);
    let mut process = process(&room);
    // A secret everywhere: wherever the cut is, it is inside one.
    for _ in 0..3 * 1024 * 1024 / 16 / 1024 {
        write!(process, "{}", "0123456789abcdef".repeat(1024)).unwrap();
    }
    let redactor = secret("0123456789abcdef");
    let tail = |lines| room.journal.app_tail(&app(), lines, &redactor).unwrap();
    let shown = tail(5);
    assert_eq!(shown.len(), 5);
    assert!(shown.iter().all(|line| line.replace("[redacted]", "").is_empty()), "{:?}", shown[0]);
    write!(process, "\nend\n").unwrap();
    assert_eq!(tail(1), ["end"]);
    let shown = tail(5_000);
    assert!(shown.len() > 2 && shown.last().unwrap() == "end");
    let whole = shown[..shown.len() - 1].concat();
    assert_eq!(whole.replace("[redacted]", ""), "", "half of a secret");
    // Also where the whole of what is kept begins in the middle of a line.
    let mut follower = follow(&room, 5_000, redactor.clone());
    let lines = drain(&mut follower);
    assert_eq!(lines.last().map(String::as_str), Some("end"));
}

#[test]
fn threads_write_and_follow_at_once_and_nothing_is_lost() {
    let room = room(HALF_APP_LOG);
    let writer = room.journal.begin(deploy(), Redactor::default()).unwrap();
    let journal = &room.journal;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let mut follower = journal.follow(&deploy(), Position::default()).unwrap().unwrap();
                let mut seen = 0;
                loop {
                    assert!(woken(&follower, Duration::from_secs(10)) || seen == 0);
                    for line in drain(&mut follower) {
                        assert_eq!(line, format!("{seen}"));
                        seen += 1;
                    }
                    if follower.is_over() {
                        return assert_eq!(seen, 3_000);
                    }
                }
            });
        }
        scope.spawn(move || {
            for i in 0..3_000 {
                writer.line(&i.to_string());
            }
            drop(writer);
        });
    });
}

#[test]
fn nothing_stays_open_when_all_is_over() {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let room = room(HALF_APP_LOG);
    let cycle = || {
        let writer = room.journal.begin(deploy(), Redactor::default()).unwrap();
        let mut one = room.journal.follow(&deploy(), Position::default()).unwrap().unwrap();
        let mut two = follow(&room, 3, Redactor::default());
        writer.line("x");
        drop(writer);
        drain(&mut one);
        drain(&mut two);
    };
    // Other tests of this process open files meanwhile, so the bound is loose:
    // one descriptor a round would exceed it by far.
    let before = open();
    (0..400).for_each(|_| cycle());
    assert!(open() < before + 300, "{} then {}", before, open());
}
