//! Programs that a test runs to their end, and what they leave.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Runs a program that must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("a program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

/// Appends what comes, line by line, to a log.
pub fn follow(from: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            log.lock().expect("log").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// Appends what comes, as it comes, until it ends or fails, as a terminal does.
pub fn follow_pieces(mut from: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            log.lock().expect("log").push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    });
}

/// Reads what comes to its end.
pub fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("output");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
