//! The map of the house.
//!
//! Better-PaaS is one synchronous program. A request lives like this: the
//! [`gate`] accepts the connection, reads and judges the whole request and
//! relays it over a Unix socket to `tiny_http`, where one thread gives those
//! that read to [`api`], and another one those that change something: one match
//! finds the handler, [`auth`] decides who asks, and the handler reads or changes
//! the [`store`], whose secrets go through the [`vault`]. What takes long is the
//! business of further threads: [`deploy`] is the pipeline from Git to a running app, which
//! gets its [`source`], builds it in a [`sandbox`], has it started and checked by the
//! [`runtime`], which keeps it running from then on, and switches the [`router`] over to it.
//! The files of apps are on the [`disk`]; every program is started through [`proc`], and the
//! first one in a sandbox is this one again ([`inside`]). Apps, the router and a running server
//! are asked through the [`http_client`]. [`journal`] keeps the log lines, and
//! [`live`] streams them over WebSockets. [`serve`] builds all of this and takes it down
//! again; [`ops`] are the operator's commands, and [`root`] is all that runs as root. What could
//! be wrong with all of it [`checks`] say, and [`notify`] sends that to the owner. The
//! [`manual`] is in the program, in the words of this version.
//!
//! They speak in the values of [`model`]; how their threads wait for one another is
//! [`sync`], which knows nothing of what the program does. Which room may use which is
//! a rule with a test (`tests/it/tidy.rs`).
#![warn(clippy::too_many_lines)]

pub mod model;
pub mod sync;

pub mod checks;
pub mod cli;
pub mod config;
pub mod data_dir;
pub mod http_client;
pub mod manual;
pub mod proc;
pub mod root;

pub mod gate;
pub mod vault;

pub mod auth;
pub mod journal;
pub mod store;

pub mod disk;
pub mod inside;
pub mod router;
pub mod sandbox;
pub mod source;

pub mod backup;
pub mod notify;
pub mod runtime;

pub mod deploy;

pub mod api;
pub mod live;

pub mod ops;
pub mod serve;
