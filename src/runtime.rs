//! What runs, from its start to its end.
//!
//! A release is started by [`launch`] as an [`instance`], has to pass its [`health_check`], and is
//! from then on for the [`supervisor`], which tells what it does on the [`status_board`]: with its
//! workers, which have no port and no check, it is one of the [`processes`] that are held there as
//! they were [`launched`]. When one that ended starts again, [`restart`] says. What a release replaces ends in [`draining`], before it where an app cannot
//! run twice, while requests wait at a [`hold`]; [`exit_reason`] says why one ended. What runs to
//! its end and is no app, such as a build, runs [`once`]; an app's own commands are [`runs`], at
//! times its [`jobs`]. All of it works with the same [`tools`].

pub mod draining;
pub mod environment;
pub mod exit_reason;
pub mod health_check;
pub mod hold;
pub mod instance;
pub mod jobs;
pub mod launch;
pub mod launched;
pub mod once;
pub mod port_guard;
pub mod ports;
pub mod processes;
pub mod recovery;
pub mod restart;
pub mod runs;
pub mod status_board;
pub mod supervisor;
pub mod tcp_sockets;
pub mod tools;
