//! When backups are made, and what becomes of them.

/// What the owner has set for backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backups {
    /// `BACKUP_INTERVAL_HOURS`: hours between two of them; 0 for none.
    pub interval_hours: u16,
    /// `BACKUP_KEEP`: how many stay.
    pub keep: u16,
    /// `BACKUP_COMMAND`: what takes each elsewhere, an argument list; its path comes last.
    pub command: Vec<String>,
}
