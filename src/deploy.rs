//! The pipeline from a repository to a running app.

mod check;
mod detect;
mod fetch;
mod files;
mod instance;
mod machine;
mod network;
mod port;
mod sandbox;
