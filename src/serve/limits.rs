//! What the system lets this process take: as much as it may have, and enough to be of use.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Open files that are enough for all connections and all that runs beside them.
const MOST_FILES: u64 = 65_536;

/// With fewer it would start and then answer nobody: it has some 25 open when it waits, and
/// a deploy, the router and a few connections take as many again.
const LEAST_FILES: u64 = 64;

/// Bytes of memory for data, the stacks of threads included. It has some 30 MiB when it
/// waits; each deploy and each slow request has a thread with 2 MiB.
const LEAST_DATA: u64 = 64 << 20;

/// Takes as many open files as the system allows: the usual 1,024 are for programs
/// that use select(2). Sandboxes get a limit of their own.
///
/// # Errors
/// The sentence that says which limit is too low to start with.
pub(super) fn raise_and_check() -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(MOST_FILES, |hard| hard.min(MOST_FILES));
    if limit.current.is_some_and(|now| now < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!("the limit of open files could not be raised: {error}");
        }
    }
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|now| *now < LEAST_FILES) {
        return Err(format!(
            "the limit of open files is {files}, and the server needs {LEAST_FILES} at least; \
             raise it (LimitNOFILE= of its service, or ulimit -n)"
        ));
    }
    if let Some(bytes) = getrlimit(Resource::Data).current.filter(|now| *now < LEAST_DATA) {
        return Err(format!(
            "the limit of memory for data is {} MiB, and the server needs {} MiB at least; raise \
             it (LimitDATA= of its service, or ulimit -d)",
            bytes >> 20,
            LEAST_DATA >> 20
        ));
    }
    Ok(())
}
