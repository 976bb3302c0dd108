//! Users of this machine, out of its own file: what else may know users is asked by loading code
//! into this process, which is root's.

use std::fs;

/// The server's user.
pub(super) const SERVER: &str = "paas";

/// The numbers of a user and its group, the first whose name and number are meant.
pub(super) fn find(is_meant: impl Fn(&str, u32) -> bool) -> Option<(u32, u32)> {
    find_in(&fs::read_to_string("/etc/passwd").unwrap_or_default(), is_meant)
}

/// Lines are as passwd(5) has them.
fn find_in(passwd: &str, is_meant: impl Fn(&str, u32) -> bool) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        let (uid, gid) = (number(2)?, number(3)?);
        is_meant(fields[0], uid).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let text = "root:x:0:0:root:/root:/bin/bash\nodd\npaas:x:998:997::/opt:/usr/sbin/nologin\n";
        assert_eq!(find_in(text, |name, _| name == SERVER), Some((998, 997)));
        assert_eq!(find_in(text, |_, uid| uid == 998), Some((998, 997)));
        assert_eq!(find_in(text, |name, _| name == "pa"), None);
    }
}
