//! What one fetch may take of the machine, so that no repository fills it.

use crate::disk::space::Space;
use std::time::Duration;

/// Bytes that Git needs to make an empty repository.
const GIT_ITSELF: u64 = 1 << 20;

/// What one fetch may take of the machine.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Bytes of the pack, and bytes of the files that are checked out.
    pub bytes: u64,
    /// Files that are checked out.
    pub files: u64,
    /// How long the transfer may take.
    pub time: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            // Without history; hosts ask to stay below 1 GiB with all of it. Six
            // releases of this size fit on a small VPS, six of 4 GiB do not.
            bytes: 2 << 30,
            // Three times the Linux kernel. A file is an inode and a block at
            // least, and a file system of 25 GB has 1.6 million of them.
            files: 250_000,
            // A shallow fetch of a large repository over a slow line takes a minute or two.
            time: Duration::from_secs(300),
        }
    }
}

impl FetchLimits {
    /// With no more than the disk has to give; but Git needs a few bytes before it can say
    /// that a repository does not fit.
    #[must_use]
    pub fn within(mut self, space: Space) -> Self {
        self.bytes = self.bytes.min(space.room().max(GIT_ITSELF));
        self.files = self.files.min(space.room_for_files());
        self
    }

    /// The limit in bytes, in words.
    pub(super) fn largest(&self) -> String {
        let mib = self.bytes >> 20;
        if self.bytes < Self::default().bytes {
            format!("{mib} MiB, for which the disk has room")
        } else {
            format!("{mib} MiB, which is the most that is fetched")
        }
    }

    /// Refuses so many files, of so many bytes together, in a commit or an archive.
    pub(super) fn check(&self, what: &str, files: u64, bytes: u64) -> Result<(), String> {
        if files > self.files {
            let few = self.files < Self::default().files;
            let why = if few {
                "for which the disk has inodes"
            } else {
                "which is the most that is checked out"
            };
            return Err(format!("the {what} holds more than {} files, {why}", self.files));
        }
        if bytes > self.bytes {
            return Err(format!("the files of the {what} are larger than {}", self.largest()));
        }
        Ok(())
    }
}
