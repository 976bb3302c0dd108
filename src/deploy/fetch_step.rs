//! The first step of a deploy: the source, as far as there is room for it.

use super::{Attempt, Halt};
use crate::disk::space::watched;
use crate::sandbox::host::Machine;
use crate::source::fetch::{self, TokenOf};
use crate::source::limits::Limits;

impl Attempt<'_> {
    /// Fetches the source into the release's directory, as long as there is room.
    pub fn fetch(&self, machine: &Machine) -> Result<(), Halt> {
        let (app, places) = (&self.app, &self.shared.places);
        let branch = match app.settings.branch.as_str() {
            "" => "the default branch".to_owned(),
            name => format!("branch {name}"),
        };
        self.say(&format!("Fetching {branch} of {}", app.git_repo));
        let token_of = if app.has_git_token { TokenOf::App } else { TokenOf::Settings };
        let space = || places.space().unwrap_or_default();
        let fetch = fetch::Fetch {
            machine,
            slot: app.slot,
            url: &app.git_repo,
            branch: &app.settings.branch,
            token: self.token.clone().map(|token| (token, token_of)),
            root: app.settings.root_dir.as_str(),
            cache: &places.repo(&app.id),
            release: &places.release(&app.id, self.id),
            redactor: &self.redactor,
            limits: Limits::default().within(space()),
            space: &space,
        };
        let fetched = watched(self.cancel, &|| self.shared.no_room(), |stop| {
            fetch.run(stop, &mut |l| self.say(l))
        });
        let commit = match fetched.map_err(|e| e.to_string())? {
            (Ok(commit), _) => commit,
            (Err(fetch::FetchError::Failed(sentence)), _) => return Err(sentence.into()),
            (Err(fetch::FetchError::TooLarge(sentence)), _) => {
                return Err(self.too_large(sentence));
            }
            (Err(fetch::FetchError::Cancelled), Some(why)) => {
                return Err(self.too_large(format!("the fetch was ended: {why}")));
            }
            (Err(fetch::FetchError::Cancelled), None) => return Err(Halt::Cancelled),
        };
        self.say(&format!("Commit {} {}", commit.hash, commit.subject));
        let fetch::Commit { hash, author, subject } = commit;
        let noted = self.shared.store.set_commit(self.id, &hash, &subject, &author);
        Ok(noted.map_err(|e| e.to_string())?)
    }

    /// What was fetched of a repository for which there is no room serves nobody.
    fn too_large(&self, sentence: String) -> Halt {
        if let Err(error) = self.shared.places.discard_repo(&self.app.id) {
            log::warn!("the Git cache of app {} could not be removed: {error}", self.app.id);
        }
        Halt::Failed(sentence)
    }
}
