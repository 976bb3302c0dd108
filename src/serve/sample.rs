//! The app that the program brings along: a site that shows a new owner that all of it works.

use crate::deploy::Deployer;
use crate::model::{AnyError, AppName, failed};
use crate::store::{App, AppDraft, AppSettings, TokenChange};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use tar::{Builder, Header};

/// A name that nobody chooses for an app of his own.
const NAME: &str = "better-paas-sample";

const FILES: [(&str, &str); 2] = [
    ("index.html", include_str!("../../assets/sample/index.html")),
    ("style.css", include_str!("../../assets/sample/style.css")),
];

/// The app, which is made when it is not there yet.
pub(super) fn app(deployer: &Deployer) -> Result<App, AnyError> {
    let name = AppName::parse(NAME).map_err(|invalid| invalid.to_string())?;
    match deployer.tools.store.app_named(&name)? {
        Some(app) if app.git_repo.is_none() => Ok(app),
        Some(_) => Err(format!("the app {NAME} is one of your own, not the sample").into()),
        None => {
            let (git_token, settings) = (TokenChange::Keep, AppSettings::default());
            Ok(deployer.make(&AppDraft { name, git_repo: None, git_token, settings })?)
        }
    }
}

/// Its archive. It is far smaller than what a pipe holds (pipe(7)), so nobody waits.
pub(super) fn archive() -> Result<OwnedFd, AnyError> {
    let mut archive = Builder::new(Vec::new());
    for (name, text) in FILES {
        let mut header = Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    let (read, mut write) = io::pipe().map_err(failed("no pipe could be made"))?;
    write.write_all(&archive.into_inner()?)?;
    Ok(read.into())
}
