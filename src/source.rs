//! From a Git address, or an [`archive`], to a tree that is checked out and understood.
//!
//! [`fetch`] runs Git in a sandbox, with its own [`git_config`] and a [`cache`], after a look at the
//! [`commit_size`] and within [`limits`]; what Git says when it fails is put into a sentence by
//! [`git_errors`]. [`detect`] then finds out how the tree is built and started.

pub mod archive;
pub mod cache;
mod commit_size;
pub mod detect;
pub mod error;
pub mod fetch;
mod git_config;
mod git_errors;
pub mod limits;
