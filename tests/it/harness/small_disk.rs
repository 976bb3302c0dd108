//! A file system of a few MiB.

use super::server::run;
use std::path::PathBuf;
use std::process::Command;

/// A small file system of its own; goes away with its value.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; nothing when that is not allowed here.
    pub fn at(place: PathBuf) -> Option<Self> {
        std::fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).arg(&place);
        let mounted = mount.output().unwrap().status.success();
        mounted.then_some(Self(place))
    }

    pub fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _left = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
