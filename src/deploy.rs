//! From a repository to a running app.
//!
//! `queued → fetching → building → starting → checking → live`, or `failed` with
//! one sentence that says at which step and why. The release before keeps serving
//! until the new one has proved itself, and stays untouched when it does not.
//!
//! To read it: the [`deployer`] takes what is asked for and puts it into the [`queue`], the [`worker`]
//! takes it out, and the [`pipeline`] is what happens then, as one page of named steps. The [`gc`]
//! removes what it leaves.

mod build;
mod deployer;
mod error;
mod gc;
pub mod host_names;
pub mod look;
mod outcome;
mod pipeline;
mod publish;
mod queue;
mod quote;
mod toolbox;
mod worker;

pub use deployer::Deployer;
pub use error::DeployError;
