//! Users by name, for sentences that an operator acts on.

use std::fs;

/// The name of a user, or the number where `/etc/passwd` has none (passwd(5)).
#[must_use]
pub fn name(number: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&users, number).map_or_else(|| number.to_string(), str::to_owned)
}

fn find(users: &str, number: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_its_line_and_otherwise_its_number() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\n:x:7:7::/:\nbad\npaas:x:1001:1001::/opt:/bin/sh\n";
        assert_eq!(find(users, 1001), Some("paas"));
        assert_eq!(find(users, 0), Some("root"));
        assert_eq!((find(users, 7), find(users, 100)), (None, None));
        assert_eq!(name(4_000_000_000), "4000000000");
    }
}
