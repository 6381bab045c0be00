//! Landlock (landlock(7)): recordings may be created and written, media and cache files read;
//! nothing else of the file system, and no TCP. Sockets and directories opened before stay usable.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use super::Needs;

/// The newest version whose rights are understood here; older kernels enforce what they know.
const VERSION: ABI = ABI::V5;

/// Restricts this thread and those it starts.
pub(super) fn restrict(needs: &Needs<'_>) -> String {
    match try_restrict(needs) {
        Ok(RulesetStatus::FullyEnforced) => "fully enforced".to_owned(),
        Ok(RulesetStatus::PartiallyEnforced) => "partially enforced".to_owned(),
        Ok(RulesetStatus::NotEnforced) => "not supported by this kernel".to_owned(),
        Err(error) => format!("not enforced: {error}"),
    }
}

fn try_restrict(needs: &Needs<'_>) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .create()?;
    let record = AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate;
    ruleset = allow(ruleset, needs.recording_dir, record)?;
    for dir in &needs.readable {
        ruleset = allow(ruleset, dir, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// A directory that does not exist needs no rule.
fn allow(
    ruleset: RulesetCreated,
    dir: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(dir) {
        Ok(dir) => ruleset.add_rule(PathBeneath::new(dir, access)),
        Err(_) => Ok(ruleset),
    }
}
