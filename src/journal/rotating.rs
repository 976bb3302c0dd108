//! A log in two files that are filled in turn: at any rate of writing it takes no more of the disk.
//!
//! Each file begins with a line that numbers its filling; the one with the higher number is
//! being written to. Its writers are other processes, the first process of each of an app's
//! sandboxes and the server, which take turns by a lock on a file (flock(2)). Readers wait for
//! nobody: what they have read counts if the file has the same number as before.

use crate::model::Invalid;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Bytes of the line with the number: 16 hexadecimal digits and a line end. A file without
/// one is of an older version, or was emptied by an operator; its number is 0.
const HEAD: usize = 17;

/// How long a writer waits for others, which take microseconds. One that was stopped with the
/// lock is an app's: it must not hold up those who look after all apps.
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(1);

/// The two files of a log.
#[derive(Debug)]
pub struct Rotating {
    files: [File; 2],
    /// Bytes that one file may have.
    half: u64,
}

/// A place in a log: so many bytes into a filling. A log in one file has the number 0.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub(super) number: u64,
    pub(super) offset: u64,
}

impl Position {
    /// Reads what `Display` wrote.
    ///
    /// # Errors
    /// When it did not.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let digits = |part: &str| {
            let short = (1..=15).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|_| short)
        };
        let parts = text.split_once('-');
        let numbers = parts.and_then(|(number, offset)| digits(number).zip(digits(offset)));
        let (number, offset) =
            numbers.ok_or(Invalid("is no place in a log; take it from a page of that log"))?;
        Ok(Self { number, offset })
    }

    /// Where to begin reading for what follows this place, and whether that is inside a line. It
    /// may be anybody's: if no line ends here, only what follows the next end of one counts, and
    /// no half of a secret is shown.
    pub(super) const fn resumed(self) -> (Self, bool) {
        if self.offset > first_byte(self.number) {
            return (Self { offset: self.offset - 1, ..self }, true);
        }
        (self, self.number > 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.offset)
    }
}

/// What there was to read at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes; the place is behind them now.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// What was there has been written over; the place is at the oldest that is left.
    Lost {
        /// Maybe inside a line.
        inside_line: bool,
    },
}

impl Rotating {
    /// The log in these two files, open for reading and appending, of `half` bytes each.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(mut files: [File; 2], half: u64) -> io::Result<Self> {
        // The same for everybody, in whatever order they come: the first is the one to lock.
        if files[0].metadata()?.ino() > files[1].metadata()?.ino() {
            files.swap(0, 1);
        }
        Ok(Self { files, half })
    }

    /// Appends bytes as a whole, or nothing.
    ///
    /// # Errors
    /// When the disk takes no more.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(|_, _| Ok(bytes.to_vec()))
    }

    /// Appends a line of the platform's own, which begins as a line.
    ///
    /// # Errors
    /// As [`Rotating::append`].
    pub fn append_line(&self, line: &str) -> io::Result<()> {
        self.write(|file, length| {
            let mut last = [b'\n'];
            if let Some(at) = length.checked_sub(1) {
                file.read_exact_at(&mut last, at)?;
            }
            let end_before = if last == [b'\n'] { "" } else { "\n" };
            Ok(format!("{end_before}{line}\n").into_bytes())
        })
    }

    fn write(&self, bytes: impl Fn(&File, u64) -> io::Result<Vec<u8>>) -> io::Result<()> {
        self.take_turn()?;
        let written = self.write_in_turn(bytes);
        let _ = self.files[0].unlock();
        written
    }

    fn take_turn(&self) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.files[0].try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(PAUSE),
                taken => return Ok(taken?),
            }
        }
    }

    fn write_in_turn(&self, bytes: impl Fn(&File, u64) -> io::Result<Vec<u8>>) -> io::Result<()> {
        let numbers = self.numbers()?;
        let mut current = newer(numbers);
        let mut length = self.files[current].metadata()?.len();
        let bytes = bytes(&self.files[current], length)?;
        let is_full = length + bytes.len() as u64 > self.half && length > HEAD as u64;
        if is_full || length == 0 {
            let number = numbers[current] + 1;
            current = if is_full { 1 - current } else { current };
            self.files[current].set_len(0)?;
            self.files[current].write_all_at(format!("{number:016x}\n").as_bytes(), 0)?;
            length = HEAD as u64;
        }
        let file = &self.files[current];
        file.write_all_at(&bytes, length).inspect_err(|_| {
            // Half of it would be taken for the beginning of what comes next.
            let _ = file.set_len(length);
        })
    }

    /// Whether its files were deleted.
    pub(super) fn is_removed(&self) -> bool {
        self.files.iter().any(|file| file.metadata().is_ok_and(|about| about.nlink() == 0))
    }

    /// Both files, that which is being written to first.
    pub(super) fn into_files(self) -> io::Result<[File; 2]> {
        let current = newer(self.numbers()?);
        let mut files = self.files;
        files.rotate_left(current);
        Ok(files)
    }

    /// Behind the last byte.
    pub(super) fn end(&self) -> io::Result<Position> {
        let numbers = self.numbers()?;
        let current = newer(numbers);
        let offset = self.files[current].metadata()?.len();
        Ok(Position { number: numbers[current], offset })
    }

    /// The place so many bytes before another, or where the log begins; and whether that may be
    /// inside a line.
    pub(super) fn back(&self, from: Position, most: u64) -> io::Result<(Position, bool)> {
        let Position { mut number, offset } = from;
        let mut there = offset.saturating_sub(first_byte(number));
        let mut most = most;
        let older = self.numbers()?.iter().position(|n| Some(*n) == number.checked_sub(1));
        if let Some(older) = older.filter(|_| there < most) {
            (most, number) = (most - there, number - 1);
            there = self.files[older].metadata()?.len().saturating_sub(first_byte(number));
        }
        let before = there.saturating_sub(most);
        // The first of all fillings begins with a line, and no other need.
        Ok((Position { number, offset: first_byte(number) + before }, before > 0 || number > 1))
    }

    /// Reads on from a place.
    pub(super) fn read(&self, place: &mut Position, buffer: &mut [u8]) -> io::Result<Read> {
        loop {
            let numbers = self.numbers()?;
            let Some(index) = numbers.iter().position(|n| *n == place.number) else {
                // On with the oldest that is left and was not read. There is none when the files
                // were emptied, by an operator perhaps; then what is there is read again.
                let unread = numbers.into_iter().filter(|n| *n > place.number).min();
                let number = unread.unwrap_or(numbers[newer(numbers)]);
                *place = Position { number, offset: 0 };
                return Ok(Read::Lost { inside_line: number > 1 });
            };
            if self.files[index].metadata()?.len() < place.offset {
                // Emptied likewise.
                place.offset = 0;
                return Ok(Read::Lost { inside_line: place.number > 1 });
            }
            place.offset = place.offset.max(first_byte(place.number));
            let read = self.files[index].read_at(buffer, place.offset)?;
            if number(&self.files[index])? != place.number {
                continue;
            }
            if read > 0 {
                place.offset += read as u64;
                return Ok(Read::Bytes(read));
            }
            // Known before the read: nothing was written there after that.
            if numbers[1 - index] != place.number + 1 {
                return Ok(Read::Nothing);
            }
            *place = Position { number: place.number + 1, offset: 0 };
        }
    }

    fn numbers(&self) -> io::Result<[u64; 2]> {
        Ok([number(&self.files[0])?, number(&self.files[1])?])
    }
}

/// The file that is being written to.
const fn newer(numbers: [u64; 2]) -> usize {
    if numbers[1] > numbers[0] { 1 } else { 0 }
}

/// Where what was written begins in a file with this number.
const fn first_byte(number: u64) -> u64 {
    if number == 0 { 0 } else { HEAD as u64 }
}

fn number(file: &File) -> io::Result<u64> {
    let mut bytes = [0; HEAD];
    // Of a shorter file the last one stays what it is, which is no line end.
    file.read_at(&mut bytes, 0)?;
    let digits = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
    Ok(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::path::Path;

    impl Rotating {
        /// All that it holds.
        pub(crate) fn text(&self) -> String {
            let (mut place, _) = self.back(self.end().unwrap(), u64::MAX).unwrap();
            let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            while let Read::Bytes(count) = self.read(&mut place, &mut buffer).unwrap() {
                all.extend_from_slice(&buffer[..count]);
            }
            String::from_utf8(all).unwrap()
        }
    }

    fn open(dir: &Path, half: u64) -> Rotating {
        let file = |name| {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true).open(dir.join(name)).unwrap()
        };
        Rotating::new([file("a"), file("b")], half).unwrap()
    }

    fn size(dir: &Path) -> u64 {
        ["a", "b"].iter().map(|name| dir.join(name).metadata().unwrap().len()).sum()
    }

    #[test]
    fn whatever_is_written_it_takes_no_more_than_two_halves_and_ends_with_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 1000);
        for n in 0..5000 {
            log.append(format!("{n}\n").as_bytes()).unwrap();
            assert!(size(dir.path()) <= 2000);
        }
        let text = log.text();
        assert!(text.ends_with("\n4998\n4999\n") && text.len() > 900, "{text}");
        assert!(log.back(log.end().unwrap(), 1_000_000).unwrap().1);
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }

    #[test]
    fn a_reader_goes_from_one_file_to_the_other_and_hears_when_it_was_overtaken() {
        let dir = tempfile::tempdir().unwrap();
        let (log, other) = (open(dir.path(), 100), open(dir.path(), 100));
        let mut place = log.end().unwrap();
        let mut buffer = [0; 64];
        let mut seen = Vec::new();
        for n in 0..200 {
            other.append(format!("line {n}\n").as_bytes()).unwrap();
            while let Read::Bytes(count) = log.read(&mut place, &mut buffer).unwrap() {
                seen.extend_from_slice(&buffer[..count]);
            }
        }
        let whole: String = (0..200).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8(seen).unwrap(), whole);
        for n in 0..200 {
            other.append(format!("more {n}\n").as_bytes()).unwrap();
        }
        let lost = log.read(&mut place, &mut buffer).unwrap();
        assert_eq!(lost, Read::Lost { inside_line: true });
        assert!(matches!(log.read(&mut place, &mut buffer).unwrap(), Read::Bytes(_)));
    }

    #[test]
    fn what_another_emptied_is_read_from_its_start_and_written_to_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 100);
        log.append(b"before\n").unwrap();
        let mut place = log.end().unwrap();
        for name in ["a", "b"] {
            OpenOptions::new().write(true).open(dir.path().join(name)).unwrap().set_len(0).unwrap();
        }
        let mut buffer = [0; 64];
        let lost = log.read(&mut place, &mut buffer).unwrap();
        assert_eq!(lost, Read::Lost { inside_line: false });
        log.append(b"after\n").unwrap();
        assert_eq!(log.read(&mut place, &mut buffer).unwrap(), Read::Bytes(6));
        assert_eq!(&buffer[..6], b"after\n");
    }

    #[test]
    fn a_writer_that_was_stopped_with_the_lock_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let (log, stopped) = (open(dir.path(), 100), open(dir.path(), 100));
        stopped.take_turn().unwrap();
        assert!(log.append_line("note").is_err());
        assert_eq!(log.text(), "");
    }

    #[test]
    fn what_an_older_version_has_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "old\n").unwrap();
        let log = open(dir.path(), 100);
        log.append_line("new").unwrap();
        assert_eq!(log.text(), "old\nnew\n");
    }

    #[test]
    fn a_line_of_the_platforms_begins_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 1000);
        log.append(b"unfinished").unwrap();
        log.append_line("note").unwrap();
        log.append_line("another").unwrap();
        assert_eq!(log.text(), "unfinished\nnote\nanother\n");
    }

    #[test]
    fn writers_of_several_processes_lose_nothing_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in ["x", "y", "z"] {
                let log = open(dir.path(), 1 << 20);
                scope.spawn(move || {
                    (0..500).for_each(|n| log.append(format!("{writer}{n}\n").as_bytes()).unwrap());
                });
            }
        });
        let text = open(dir.path(), 1).text();
        assert_eq!(text.lines().count(), 1500);
        let of = |writer: char| text.lines().filter(move |line| line.starts_with(writer));
        for writer in ['x', 'y', 'z'] {
            assert!(of(writer).zip(0..).all(|(line, n)| line[1..] == n.to_string()));
        }
    }
}
