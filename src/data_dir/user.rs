//! Users by name, for sentences that an operator acts on.

use crate::proc::Exec;

/// The name of a user, or the number where this machine knows none.
pub fn name(number: u32) -> String {
    let number = number.to_string();
    let output = Exec::new("id").args(["-un", &number]).run().ok();
    let name = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_name_and_otherwise_its_number() {
        assert_eq!(name(0), "root");
        assert_eq!(name(4_000_000_000), "4000000000");
    }
}
