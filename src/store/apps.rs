//! Apps as they are stored, and what their owner may change of them.

use super::app::{App, Process};
use super::app_row::{AppText, read_app, select_app};
use super::draft::{AppDraft, TokenChange};
use super::draining::replaced;
use super::{Store, StoreError, parsed, random_id};
use crate::model::{AppId, AppName, Domain, HostSocket, RepoUrl, Secret, Wanted, unix_millis};
use crate::vault::{Form, Place};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Slots are the numbers 0 to 59,999: what fits into a usual range of
/// subordinate uids (65,536) with room at its end.
const SLOTS: i64 = 60_000;

impl Store {
    /// All apps, by name.
    ///
    /// # Errors
    /// When the database does not answer or holds something that is no app.
    pub fn apps(&self) -> Result<Vec<App>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(select_app!("ORDER BY a.name"))?;
        let mut rows = statement.query([])?;
        let mut apps = Vec::new();
        while let Some(row) = rows.next()? {
            apps.push(read_app(row)?);
        }
        Ok(apps)
    }

    /// Shows all apps, by name, one after the other as they are read. Others read the
    /// database only when this is over.
    ///
    /// # Errors
    /// As [`Store::apps`]; some may have been shown then.
    pub fn show_apps(&self, mut show: impl FnMut(&AppText<'_>)) -> Result<(), StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(select_app!("ORDER BY a.name"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            show(&AppText::of(row)?);
        }
        Ok(())
    }

    /// Shows one app; `None` when it does not exist. Others read the database only when
    /// this is over.
    ///
    /// # Errors
    /// As [`Store::apps`].
    pub fn show_app<T>(
        &self,
        id: &AppId,
        show: impl FnOnce(&AppText<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(select_app!("WHERE a.id = ?1"))?;
        let mut rows = statement.query([id.as_str()])?;
        rows.next()?.map(|row| Ok(show(&AppText::of(row)?))).transpose()
    }

    /// One app, or `None`.
    ///
    /// # Errors
    /// As [`Store::apps`].
    pub fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        self.one_app(select_app!("WHERE a.id = ?1"), id.as_str())
    }

    /// The app of a name, or `None`.
    ///
    /// # Errors
    /// As [`Store::apps`].
    pub fn app_named(&self, name: &AppName) -> Result<Option<App>, StoreError> {
        self.one_app(select_app!("WHERE a.name = ?1"), name.as_str())
    }

    fn one_app(&self, sql: &'static str, value: &str) -> Result<Option<App>, StoreError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([value])?;
        rows.next()?.map(read_app).transpose()
    }

    /// Stores a new app.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::DomainTaken`], or when it could not be written.
    pub fn create_app(&self, draft: &AppDraft) -> Result<AppId, StoreError> {
        let id = AppId::from_random(random_id()?);
        let token = match &draft.git_token {
            TokenChange::Set(token) => {
                Some(self.vault.seal(&token_place(&id, &draft.git_repo), token.expose())?)
            }
            TokenChange::Keep | TokenChange::Remove => None,
        };
        self.write(|tx| {
            // Blank but for what its owner has no say in: `write_draft` fills it.
            tx.execute(
                "INSERT INTO apps (id, name, slot, git_repo, branch, root_dir, build_command, \
                 start_command, health_path, health_timeout_seconds, wanted, created_at) \
                 VALUES (?1, ?1, ?2, '', '', '', '', '', '', 0, ?3, ?4)",
                params![id.as_str(), free_slot(tx)?, Wanted::Running.as_str(), unix_millis()],
            )?;
            write_draft(tx, &id, draft, token.as_deref())
        })?;
        Ok(id)
    }

    /// Makes an app what its owner wants it to be; `false` when it does not exist.
    ///
    /// A token moves to no other host: when the repository's origin changes and
    /// no token is given, the stored one is dropped (P16).
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::DomainTaken`], or when it could not be written.
    pub fn update_app(&self, id: &AppId, draft: &AppDraft) -> Result<bool, StoreError> {
        let Some(app) = self.app(id)? else { return Ok(false) };
        self.write_secrets(Some(id), |tx| {
            let token = self.token_after(tx, &app, &draft.git_repo, &draft.git_token)?;
            write_draft(tx, id, draft, token.as_deref())
        })
    }

    /// The envelope that `git_token` holds after a change.
    fn token_after(
        &self,
        tx: &Transaction<'_>,
        app: &App,
        repo: &RepoUrl,
        change: &TokenChange,
    ) -> Result<Option<String>, StoreError> {
        match change {
            TokenChange::Remove => Ok(None),
            TokenChange::Set(token) => {
                Ok(Some(self.vault.seal(&token_place(&app.id, repo), token.expose())?))
            }
            TokenChange::Keep if repo.origin() != app.git_repo.origin() => Ok(None),
            TokenChange::Keep => {
                let stored = stored_token(tx, &app.id)?;
                let place = token_place(&app.id, repo);
                // A value of an older form is upgraded by this write (P17); one that
                // does not open stays as it is, it is not ours to lose (P18).
                Ok(match stored.as_deref().map(|s| self.vault.open(&place, s)) {
                    Some(Ok(opened)) if opened.form != Form::V2 => {
                        Some(self.vault.seal(&place, opened.secret.expose())?)
                    }
                    _ => stored,
                })
            }
        }
    }

    /// The token for an app's repository: its own, else the saved GitHub token
    /// when the repository is on `https://github.com`.
    ///
    /// # Errors
    /// When a stored token does not open.
    pub fn git_credential(&self, app: &App) -> Result<Option<Secret>, StoreError> {
        self.credential_for(&self.read(), &app.id, &app.git_repo)
    }

    /// The same of an app that may not be there.
    pub(super) fn credential(
        &self,
        connection: &Connection,
        id: &AppId,
    ) -> Result<Option<Secret>, StoreError> {
        let mut statement = connection.prepare_cached("SELECT git_repo FROM apps WHERE id = ?1")?;
        let repo: Option<String> =
            statement.query_row([id.as_str()], |row| row.get(0)).optional()?;
        let Some(repo) = repo else { return Ok(None) };
        self.credential_for(connection, id, &parsed(&repo, RepoUrl::parse)?)
    }

    fn credential_for(
        &self,
        connection: &Connection,
        id: &AppId,
        repo: &RepoUrl,
    ) -> Result<Option<Secret>, StoreError> {
        match stored_token(connection, id)? {
            Some(stored) => Ok(Some(self.vault.open(&token_place(id, repo), &stored)?.secret)),
            None if repo.origin() == "https://github.com" => self.github_token(connection),
            None => Ok(None),
        }
    }

    /// Says what the owner wants of an app; `false` when it does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_wanted(&self, id: &AppId, wanted: Wanted) -> Result<bool, StoreError> {
        self.write(|tx| {
            let sql = "UPDATE apps SET wanted = ?2 WHERE id = ?1";
            Ok(tx.execute(sql, params![id.as_str(), wanted.as_str()])? == 1)
        })
    }

    /// Notes the process of an app's live release, or that there is none. One that ran
    /// until then becomes one of [`Store::draining`].
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_process(&self, id: &AppId, process: Option<&Process>) -> Result<(), StoreError> {
        self.write(|tx| write_process(tx, id, process))
    }

    /// Notes how a process ended; does nothing when another has taken its place.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn process_ended(&self, id: &AppId, pid: u32, how: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            let sql = "UPDATE processes SET ended = ?3 WHERE app_id = ?1 AND pid = ?2";
            tx.execute(sql, params![id.as_str(), pid, how])?;
            Ok(())
        })
    }

    /// Removes an app with its environment and its history; `false` when it does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn delete_app(&self, id: &AppId) -> Result<bool, StoreError> {
        self.write(|tx| Ok(tx.execute("DELETE FROM apps WHERE id = ?1", [id.as_str()])? == 1))
    }
}

pub(super) fn write_process(
    tx: &Transaction<'_>,
    id: &AppId,
    process: Option<&Process>,
) -> Result<(), StoreError> {
    replaced(tx, id, process)?;
    let Some(p) = process else {
        tx.execute("DELETE FROM processes WHERE app_id = ?1", [id.as_str()])?;
        return Ok(());
    };
    let ticks = i64::try_from(p.start_ticks).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT INTO processes (app_id, deploy_id, pid, start_ticks, port, ended) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM apps WHERE id = ?1) \
         ON CONFLICT (app_id) DO UPDATE SET deploy_id = excluded.deploy_id, pid = excluded.pid, \
         start_ticks = excluded.start_ticks, port = excluded.port, ended = excluded.ended",
        params![id.as_str(), p.deploy.as_str(), p.pid, ticks, p.port, p.ended],
    )?;
    Ok(())
}

fn token_place<'a>(id: &'a AppId, repo: &'a RepoUrl) -> Place<'a> {
    Place { table: "apps", column: "git_token", row: id.as_str(), context: repo.origin() }
}

fn stored_token(c: &Connection, id: &AppId) -> Result<Option<String>, StoreError> {
    let mut statement = c.prepare_cached("SELECT git_token FROM apps WHERE id = ?1")?;
    Ok(statement.query_row([id.as_str()], |row| row.get(0)).optional()?.flatten())
}

fn refuse_taken_name(tx: &Transaction<'_>, name: &AppName, id: &AppId) -> Result<(), StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM apps WHERE name = ?1 AND id <> ?2)";
    let taken: bool = tx.query_row(sql, [name.as_str(), id.as_str()], |row| row.get(0))?;
    if taken { Err(StoreError::NameTaken) } else { Ok(()) }
}

/// Writes all that an owner chooses; `false` when the app does not exist.
fn write_draft(
    tx: &Transaction<'_>,
    id: &AppId,
    draft: &AppDraft,
    token: Option<&str>,
) -> Result<bool, StoreError> {
    refuse_taken_name(tx, &draft.name, id)?;
    let settings = &draft.settings;
    let written = tx.execute(
        "UPDATE apps SET name = ?2, git_repo = ?3, branch = ?4, git_token = ?5, root_dir = ?6, \
         build_command = ?7, start_command = ?8, health_path = ?9, health_timeout_seconds = ?10, \
         memory_mb = ?11, cpu_percent = ?12, max_processes = ?13, host_sockets = ?14, \
         auto_deploy = ?15 \
         WHERE id = ?1",
        params![
            id.as_str(),
            draft.name.as_str(),
            draft.git_repo.as_str(),
            settings.branch.as_str(),
            token,
            settings.root_dir.as_str(),
            settings.build_command.as_str(),
            settings.start_command.as_str(),
            settings.health_path.as_str(),
            settings.health_timeout.seconds(),
            settings.memory.get(),
            settings.cpu.get(),
            settings.max_processes.get(),
            joined(&settings.host_sockets),
            settings.auto_deploy,
        ],
    )?;
    if written == 1 {
        write_domains(tx, id, &settings.domains)?;
    }
    Ok(written == 1)
}

/// Replaces an app's domains; one belongs to one app.
fn write_domains(tx: &Transaction<'_>, id: &AppId, domains: &[Domain]) -> Result<(), StoreError> {
    tx.execute("DELETE FROM domains WHERE app_id = ?1", [id.as_str()])?;
    for (position, domain) in domains.iter().enumerate() {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let written = tx.execute(
            "INSERT INTO domains (domain, app_id, position) VALUES (?1, ?2, ?3) \
             ON CONFLICT (domain) DO NOTHING",
            params![domain.as_str(), id.as_str(), position],
        )?;
        if written == 0 {
            return Err(StoreError::DomainTaken(domain.clone()));
        }
    }
    Ok(())
}

fn joined(sockets: &[HostSocket]) -> String {
    sockets.iter().map(HostSocket::as_str).collect::<Vec<_>>().join("\n")
}

/// A number that no app has, by chance: the host uid of an app that was removed a
/// moment ago, and may still be ending, is not given to the next one.
fn free_slot(tx: &Transaction<'_>) -> Result<i64, StoreError> {
    let used: i64 = tx.query_row("SELECT count(*) FROM apps", [], |row| row.get(0))?;
    if used >= SLOTS / 2 {
        return Err(StoreError::TooManyApps);
    }
    loop {
        let random = random_id()?;
        let slot = i64::from(u32::from_le_bytes([random[0], random[1], random[2], 0])) % SLOTS;
        let sql = "SELECT EXISTS (SELECT 1 FROM apps WHERE slot = ?1)";
        if !tx.query_row(sql, [slot], |row| row.get::<_, bool>(0))? {
            return Ok(slot);
        }
    }
}
