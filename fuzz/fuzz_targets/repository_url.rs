//! Feeds hostile text to the reader of repository URLs: what it accepts, it accepts
//! again in the form that it keeps.
#![no_main]

use better_paas::model::RepoUrl;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(url) = RepoUrl::parse(text) {
        assert!(RepoUrl::parse(url.as_str()).is_ok_and(|again| again.origin() == url.origin()));
    }
});
