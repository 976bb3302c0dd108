//! Apps as they are stored, and what their owner may change of them.

use super::app::{App, Process};
use super::app_row::{SELECT, read_app};
use super::audit::{Act, append};
use super::columns::{exists, first, rows};
use super::draft::{AppDraft, TokenChange};
use super::draining::replaced;
use super::env::EnvInput;
use super::settings::Setting;
use super::{Store, StoreError, random_id};
use crate::model::{AppId, AppName, Domain, Job, RepoUrl, Secret, Wanted, unix_millis};
use crate::sync::lock;
use crate::vault::Place;
use rusqlite::{Connection, Transaction, params};
use std::sync::Arc;

/// Slots are the numbers 0 to 59,999: what fits into a usual range of
/// subordinate uids (65,536) with room at its end.
const SLOTS: i64 = 60_000;

/// An app that comes from elsewhere, with all that its owner gave it there.
#[derive(Debug)]
pub struct MovedIn {
    /// What its owner wants.
    pub draft: AppDraft,
    /// Its environment.
    pub env: Vec<EnvInput>,
    /// Its jobs.
    pub jobs: Vec<Job>,
}

impl Store {
    /// All apps, by name.
    ///
    /// # Errors
    /// When the database does not answer or holds something that is no app.
    pub fn apps(&self) -> Result<Vec<App>, StoreError> {
        Ok(self.shared_apps()?.to_vec())
    }

    /// The same without a copy. They are read again only when another connection, in this
    /// process or not, has written since: the list is what is asked for all the time.
    ///
    /// # Errors
    /// As [`Store::apps`].
    pub fn shared_apps(&self) -> Result<Arc<[App]>, StoreError> {
        let connection = self.read();
        // Asked before the apps are read: what is written in between is seen the next time.
        let version = first(&connection, "PRAGMA data_version", [], |row| Ok(row.get(0)?))?;
        let mut known = lock(&self.known_apps);
        if known.0 != version {
            let sql = format!("{SELECT} ORDER BY a.name");
            *known = (version, rows(&connection, &sql, [], read_app)?.into());
        }
        Ok(Arc::clone(&known.1))
    }

    /// One app, or `None`.
    ///
    /// # Errors
    /// As [`Store::apps`].
    pub fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        first(&self.read(), &format!("{SELECT} WHERE a.id = ?1"), [id], read_app)
    }

    /// The app of a name, or `None`.
    ///
    /// # Errors
    /// As [`Store::apps`].
    pub fn app_named(&self, name: &AppName) -> Result<Option<App>, StoreError> {
        first(&self.read(), &format!("{SELECT} WHERE a.name = ?1"), [name], read_app)
    }

    /// Stores a new app.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::DomainTaken`], or when it could not be written.
    pub fn create_app(&self, draft: &AppDraft) -> Result<AppId, StoreError> {
        self.write(|tx| self.insert_app(tx, draft))
    }

    fn insert_app(&self, tx: &Transaction<'_>, draft: &AppDraft) -> Result<AppId, StoreError> {
        let id = AppId::from_random(random_id()?);
        // Blank but for what its owner has no say in.
        tx.execute(
            "INSERT INTO apps (id, name, git_repo, slot, wanted, created_at) \
             VALUES (?1, ?1, '', ?2, ?3, ?4)",
            params![id, free_slot(tx)?, Wanted::Running, unix_millis()],
        )?;
        self.write_draft(tx, &id, draft.git_repo.as_ref(), draft)?;
        Ok(id)
    }

    /// Stores apps that come from elsewhere, all of them or none.
    ///
    /// # Errors
    /// As [`Store::create_app`]; it names the app.
    pub fn import(
        &self,
        apps: &[MovedIn],
        github_token: Option<&Secret>,
    ) -> Result<(), StoreError> {
        self.write(|tx| {
            for MovedIn { draft, env, jobs } in apps {
                let id = self.insert_app(tx, draft).map_err(|error| {
                    StoreError::Sentence(format!("app {}: {error}", draft.name.as_str()))
                })?;
                self.write_env(tx, &id, env)?;
                write_jobs(tx, &id, jobs)?;
            }
            append(tx, &Act::new("shell", "import"))?;
            github_token
                .map_or(Ok(()), |token| self.write_setting(tx, Setting::GithubToken, Some(token)))
        })
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
        self.write_secrets(Some(id), |tx| self.write_draft(tx, id, app.git_repo.as_ref(), draft))
    }

    /// Writes all that an owner chooses; `false` when the app does not exist. `before` is the
    /// repository that a stored token is for.
    fn write_draft(
        &self,
        tx: &Transaction<'_>,
        id: &AppId,
        before: Option<&RepoUrl>,
        draft: &AppDraft,
    ) -> Result<bool, StoreError> {
        refuse_taken(tx, id, draft)?;
        let AppDraft { name, git_repo, settings, git_token } = draft;
        let place = git_repo.as_ref().map(|repo| token_place(id, repo));
        let has_moved = git_repo.as_ref().map(RepoUrl::origin) != before.map(RepoUrl::origin);
        let token = match (git_token, place) {
            (TokenChange::Remove, _) | (_, None) => None,
            (TokenChange::Set(token), Some(place)) => {
                Some(self.vault().seal(&place, token.expose())?)
            }
            (TokenChange::Keep, _) if has_moved => None,
            (TokenChange::Keep, Some(place)) => {
                stored_token(tx, id)?.map(|stored| self.kept(&place, stored)).transpose()?
            }
        };
        let sql = "UPDATE apps SET name = ?2, git_repo = COALESCE(?3, ''), git_token = ?4, \
                   settings = json_set(?5, '$.jobs', settings -> '$.jobs') WHERE id = ?1";
        Ok(tx.execute(sql, params![id, name, git_repo, token, settings])? == 1)
    }

    /// The token for an app's repository: its own, else the saved GitHub token
    /// when the repository is on `https://github.com`.
    ///
    /// # Errors
    /// When a stored token does not open.
    pub fn git_credential(&self, app: &App) -> Result<Option<Secret>, StoreError> {
        let Some(repo) = &app.git_repo else { return Ok(None) };
        self.credential_for(&self.read(), &app.id, repo)
    }

    /// The same of an app that may not be there.
    pub(super) fn credential(
        &self,
        connection: &Connection,
        id: &AppId,
    ) -> Result<Option<Secret>, StoreError> {
        let sql = "SELECT git_repo FROM apps WHERE id = ?1 AND git_repo <> ''";
        let Some(repo) = first(connection, sql, [id], |row| Ok(row.get(0)?))? else {
            return Ok(None);
        };
        self.credential_for(connection, id, &repo)
    }

    /// The token that an app at this address would get.
    ///
    /// # Errors
    /// When a stored token does not open.
    pub fn credential_of(&self, repo: &RepoUrl) -> Result<Option<Secret>, StoreError> {
        let ours = repo.origin() == "https://github.com";
        if ours { self.setting(Setting::GithubToken) } else { Ok(None) }
    }

    fn credential_for(
        &self,
        connection: &Connection,
        id: &AppId,
        repo: &RepoUrl,
    ) -> Result<Option<Secret>, StoreError> {
        match stored_token(connection, id)? {
            Some(stored) => Ok(Some(self.vault().open(&token_place(id, repo), &stored)?.secret)),
            None if repo.origin() == "https://github.com" => {
                self.setting_in(connection, Setting::GithubToken)
            }
            None => Ok(None),
        }
    }

    /// Says what the owner wants of an app; `false` when it does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_wanted(&self, id: &AppId, wanted: Wanted) -> Result<bool, StoreError> {
        self.change("UPDATE apps SET wanted = ?2 WHERE id = ?1", params![id, wanted])
    }

    /// The jobs that an app's owner has given it. They stand beside what else the owner chose, and
    /// have an address of their own in the API.
    ///
    /// # Errors
    /// When the database does not answer or holds something that is no job.
    pub fn jobs(&self, id: &AppId) -> Result<Vec<Job>, StoreError> {
        let sql = "SELECT settings ->> '$.jobs' FROM apps WHERE id = ?1";
        let text: Option<String> = first(&self.read(), sql, [id], |row| Ok(row.get(0)?))?.flatten();
        let read = |text: String| serde_json::from_str(&text).map_err(|_| StoreError::Corrupt);
        text.map_or(Ok(Vec::new()), read)
    }

    /// Replaces them; `false` when there is no such app.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn set_jobs(&self, id: &AppId, jobs: &[Job]) -> Result<bool, StoreError> {
        self.write(|tx| write_jobs(tx, id, jobs))
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
        let sql = "UPDATE processes SET ended = ?3 WHERE app_id = ?1 AND pid = ?2";
        self.change(sql, params![id, pid, how]).map(drop)
    }

    /// Removes an app with its environment and its history; `false` when it does not exist.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn delete_app(&self, id: &AppId) -> Result<bool, StoreError> {
        self.change("DELETE FROM apps WHERE id = ?1", [id])
    }
}

fn write_jobs(tx: &Transaction<'_>, id: &AppId, jobs: &[Job]) -> Result<bool, StoreError> {
    let sql = "UPDATE apps SET settings = json_set(settings, '$.jobs', json(?2)) WHERE id = ?1";
    Ok(tx.execute(sql, params![id, serde_json::json!(jobs).to_string()])? > 0)
}

pub(super) fn write_process(
    tx: &Transaction<'_>,
    id: &AppId,
    process: Option<&Process>,
) -> Result<(), StoreError> {
    replaced(tx, id, process)?;
    let Some(p) = process else {
        tx.execute("DELETE FROM processes WHERE app_id = ?1", [id])?;
        return Ok(());
    };
    let env = p.env.as_ref().and_then(|marks| serde_json::to_string(marks).ok());
    tx.execute(
        "INSERT INTO processes (app_id, deploy_id, pid, start_ticks, port, ended, env) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM apps WHERE id = ?1) \
         ON CONFLICT (app_id) DO UPDATE SET deploy_id = excluded.deploy_id, pid = excluded.pid, \
         start_ticks = excluded.start_ticks, port = excluded.port, ended = excluded.ended, \
         env = excluded.env",
        params![id, p.deploy, p.pid, p.start_ticks, p.port, p.ended, env],
    )?;
    Ok(())
}

fn token_place<'a>(id: &'a AppId, repo: &'a RepoUrl) -> Place<'a> {
    Place { table: "apps", column: "git_token", row: id.as_str(), context: repo.origin() }
}

fn stored_token(c: &Connection, id: &AppId) -> Result<Option<String>, StoreError> {
    let sql = "SELECT git_token FROM apps WHERE id = ?1";
    Ok(first(c, sql, [id], |row| Ok(row.get(0)?))?.flatten())
}

/// A name belongs to one app, and so does a domain.
fn refuse_taken(tx: &Transaction<'_>, id: &AppId, draft: &AppDraft) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM apps WHERE name = ?1 AND id <> ?2";
    if exists(tx, sql, params![draft.name, id])? {
        return Err(StoreError::NameTaken);
    }
    let sql = "SELECT value FROM apps, json_each(settings, '$.domains') WHERE apps.id <> ?1";
    let others = rows(tx, sql, [id], |row| Ok(row.get::<_, String>(0)?))?;
    let taken = |domain: &&Domain| others.iter().any(|other| other == domain.as_str());
    match draft.settings.domains.iter().find(taken) {
        Some(domain) => Err(StoreError::DomainTaken(domain.clone())),
        None => Ok(()),
    }
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
        if !exists(tx, "SELECT 1 FROM apps WHERE slot = ?1", [slot])? {
            return Ok(slot);
        }
    }
}
