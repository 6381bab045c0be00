//! seccomp: `socket()` only for Unix sockets and for IPv4 and IPv6 datagrams. Landlock alone lets
//! listen without bind, TCP fast open and MPTCP through; io_uring would go around both.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// The bits of the type argument that are not flags (SOCK_TYPE_MASK of the kernel).
const TYPE_MASK: u64 = 0xf;
const FAMILY: u8 = 0;
const TYPE: u8 = 1;
const PROTOCOL: u8 = 2;
/// System calls of the x32 ABI have this bit set and would pass by the others' rules.
#[cfg(target_arch = "x86_64")]
const X32_BIT: i64 = 0x4000_0000;

/// Restricts this thread and those it starts.
pub(super) fn restrict() -> String {
    let applied = program().map_err(Error::Backend);
    match applied.and_then(|program| apply_filter(&program)) {
        Ok(()) => "sockets: unix and udp only".to_owned(),
        Err(error) => format!("not enforced: {error}"),
    }
}

fn program() -> Result<BpfProgram, BackendError> {
    let denied = SeccompAction::Errno(libc::EACCES as u32);
    let mut rules = BTreeMap::from([
        (libc::SYS_socket, forbidden_sockets()?),
        (libc::SYS_io_uring_setup, Vec::new()),
    ]);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(X32_BIT | libc::SYS_socket, Vec::new());
        rules.insert(X32_BIT | libc::SYS_io_uring_setup, Vec::new());
    }
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?;
    filter.try_into()
}

/// Rules are alternatives, the conditions of one must all hold.
fn forbidden_sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let internet = [libc::AF_INET, libc::AF_INET6];
    let mut rules = vec![SeccompRule::new(vec![
        argument(FAMILY, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?,
        argument(FAMILY, SeccompCmpOp::Ne, libc::AF_INET as u64)?,
        argument(FAMILY, SeccompCmpOp::Ne, libc::AF_INET6 as u64)?,
    ])?];
    for family in internet {
        let family = argument(FAMILY, SeccompCmpOp::Eq, family as u64)?;
        for kind in (0..=TYPE_MASK).filter(|kind| *kind != libc::SOCK_DGRAM as u64) {
            rules.push(SeccompRule::new(vec![
                family.clone(),
                argument(TYPE, SeccompCmpOp::MaskedEq(TYPE_MASK), kind)?,
            ])?);
        }
        rules.push(SeccompRule::new(vec![
            family,
            argument(PROTOCOL, SeccompCmpOp::Ne, 0)?,
            argument(PROTOCOL, SeccompCmpOp::Ne, libc::IPPROTO_UDP as u64)?,
        ])?);
    }
    Ok(rules)
}

fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)
}
