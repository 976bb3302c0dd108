//! The pipeline from a repository to a running app.

mod detect;
mod fetch;
mod files;
mod machine;
mod network;
mod sandbox;
