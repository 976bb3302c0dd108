//! Files, directories and links of an installation.

use super::account::{self, SERVER};
use crate::data_dir::replace_filled;
use std::borrow::Cow;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown, symlink};
use std::path::Path;

/// What is to be at a place.
#[derive(Clone)]
pub(super) enum What {
    Directory,
    File(Cow<'static, [u8]>),
    /// Where it leads.
    Link(&'static str),
}

/// A place as it shall be. Every directory above it is root's.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) path: &'static str,
    /// User and group, each `root` or the server's.
    pub(super) owner: &'static str,
    pub(super) mode: u32,
    pub(super) what: What,
}

impl Place {
    /// Whether it is so already.
    pub(super) fn is_there(&self) -> bool {
        let Ok(about) = fs::symlink_metadata(self.path) else { return false };
        let is_alike = match &self.what {
            What::Link(target) => {
                return fs::read_link(self.path).is_ok_and(|found| found == Path::new(target));
            }
            What::Directory => about.is_dir(),
            What::File(content) => {
                let length = content.len() as u64;
                let is_same = || fs::read(self.path).is_ok_and(|found| found == **content);
                about.is_file() && about.len() == length && is_same()
            }
        };
        let owner = Some((about.uid(), about.gid()));
        is_alike && about.mode() & 0o7777 == self.mode && self.ids() == owner
    }

    /// Makes it so. A file is replaced whole, and never through a link.
    pub(super) fn put(&self) -> io::Result<()> {
        let (uid, gid) = self.ids().ok_or_else(|| io::Error::other("there is no such user"))?;
        match &self.what {
            What::Directory => {
                if !fs::symlink_metadata(self.path).is_ok_and(|about| about.is_dir()) {
                    fs::create_dir(self.path)?;
                }
                fs::set_permissions(self.path, Permissions::from_mode(self.mode))?;
                lchown(self.path, Some(uid), Some(gid))
            }
            What::File(content) => replace_filled(Path::new(self.path), self.mode, |file| {
                file.write_all(content)?;
                fchown(file, Some(uid), Some(gid))
            }),
            What::Link(target) => {
                let _ = fs::remove_file(self.path);
                symlink(target, self.path)
            }
        }
    }

    fn ids(&self) -> Option<(u32, u32)> {
        let server = account::find(|name, _| name == SERVER);
        let (user, group) = self.owner.split_once(':')?;
        let uid = if user == SERVER { server?.0 } else { 0 };
        Some((uid, if group == SERVER { server?.1 } else { 0 }))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, mode, what } = self;
        match what {
            What::Link(target) => write!(f, "link {path} to {target}"),
            What::Directory => write!(f, "directory {path} ({owner}, {mode:04o})"),
            What::File(_) => write!(f, "file {path} ({owner}, {mode:04o})"),
        }
    }
}
