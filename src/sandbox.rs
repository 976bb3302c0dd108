//! The only place in which the code of others runs, and what the machine offers for it.
//!
//! A sandbox is bubblewrap ([`bwrap`]) with a filter of system calls ([`seccomp`]), [`limits`] held by a
//! [`cgroup`] where there is one, and an `/etc` of its own ([`etc_files`]). All of it stands on what a
//! [`host_probe`] knows of the [`host`], and on [`fences`] that are tried from time to time.

pub mod bwrap;
mod cgroup;
mod etc_files;
pub mod fences;
pub mod host;
mod host_probe;
pub mod host_watch;
pub mod limits;
pub mod limits_report;
pub mod memory_limit;
pub mod port_range;
pub mod proxy_env;
mod seccomp;
