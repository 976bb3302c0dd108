//! Databases that an app keeps beside its code, where the next deploy leaves them behind.

use super::Attempt;
use crate::disk::layout::Layout;
use crate::disk::tree::Tree;
use crate::model::{AppId, DeployId};
use crate::source::detect::repo::Repo;

/// How the files of databases end.
const DATABASES: [&str; 3] = [".db", ".sqlite", ".sqlite3"];

impl Attempt<'_> {
    /// Says, in the deploy's log and the app's, that a release holds what will be missed.
    pub(super) fn tell_of_a_database(&self, release: &DeployId) {
        if let Some(sentence) = database(&self.tools.layout, &self.app.id, release) {
            self.say(&sentence);
            self.tools.journal.note_app(&self.app.id, &sentence);
        }
    }
}

/// What to tell the owner of a database that was written into a release after that was built.
fn database(layout: &Layout, app: &AppId, release: &DeployId) -> Option<String> {
    let spec = layout.start_spec(app, release)?;
    let built = layout.completed(app, release)?;
    let tree = Tree::open(&layout.release(app, release), &spec.root).ok()?;
    let files = Repo { tree: &tree, top: None }.own(&DATABASES);
    let written = |file: &String| tree.modified(file).is_some_and(|at| at > built);
    let file = files.into_iter().find(written)?;
    Some(format!(
        "The app writes its database {file} beside its code, where each deploy leaves it behind: \
         what must stay belongs into /data (the variable DATA_DIR names it)"
    ))
}
