//! What Landlock (landlock(7)) keeps from an app on the machine's network, which it shares.
//!
//! A kernel that is too old for a part leaves that part out, and nothing here fails: what is
//! really fenced is tried from a sandbox ([`super::probe`]) and shown.

use landlock::{ABI, RulesetError, Scope};
use landlock::{
    Access as _, AccessNet, NetPort, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
};

/// A port of the kernel's choice: above all that the server or an app of ours is given.
const ANY_PORT: u16 = 0;

/// From here on this process and all that it starts listen on TCP at this port alone and at
/// those that the kernel chooses (Linux 6.7), reach no abstract Unix socket of others and send
/// no signal to them (Linux 6.12).
///
/// # Errors
/// When the kernel knows Landlock and refuses.
pub(super) fn fence(port: Option<u16>) -> Result<(), RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    for port in port.into_iter().chain([ANY_PORT]) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}
