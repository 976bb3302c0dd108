//! A process of an app that was started, and what the database is to remember of it.

use super::instance::Instance;
use crate::model::{DeployId, ProcessId};
use crate::store::{EnvMark, Process, Store, StoreError, Worker};

/// A process of an app.
pub struct Launched {
    /// Which one it is.
    pub id: ProcessId,
    /// The deploy whose release it is of: the one that has made that live, or will.
    pub deploy: DeployId,
    /// Where it is to listen; a worker does not.
    pub port: Option<u16>,
    /// The variables that it was started with; `None` where that is not known any more.
    pub env: Option<Vec<EnvMark>>,
    /// The process itself.
    pub instance: Instance,
}

impl Launched {
    /// What the database remembers of it, if it has a port.
    pub fn process(&self) -> Option<Process> {
        let (deploy, port) = (self.deploy.clone(), self.port?);
        let (pid, start_ticks) = (self.instance.pid(), self.instance.start_ticks());
        Some(Process { deploy, pid, start_ticks, port, ended: None, env: self.env.clone() })
    }

    /// Has the database remember it.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn note(&self, store: &Store) -> Result<(), StoreError> {
        if let Some(process) = self.process() {
            return store.set_process(&self.id.app, Some(&process));
        }
        let (id, deploy) = (self.id.clone(), self.deploy.clone());
        let (pid, start_ticks) = (self.instance.pid(), self.instance.start_ticks());
        store.set_worker(&Worker { id, deploy, pid, start_ticks })
    }
}
