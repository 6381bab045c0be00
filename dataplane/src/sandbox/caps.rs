//! Capabilities (capabilities(7)) and no_new_privs. An unprivileged process has none to lose, so
//! nothing here fails on it.

use std::io;

/// Highest capability number that any kernel may know; unknown ones are skipped.
const MAX_CAPABILITY: libc::c_ulong = 63;
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the bounding, ambient, effective, permitted and inheritable sets.
pub(super) fn drop_all() -> String {
    let mut bounding = true;
    for capability in 0..=MAX_CAPABILITY {
        // SAFETY: prctl with plain numbers. EINVAL (no such capability) is expected at the end.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        bounding &= dropped == 0 || last_errno() == libc::EINVAL;
    }
    // SAFETY: prctl with plain numbers.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let none = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: header and data have the layout of version 3, which wants two data elements.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) };
    match (set, bounding) {
        (0, true) => "all dropped".to_owned(),
        // Dropping from the bounding set takes CAP_SETPCAP; who has none has nothing to gain either.
        (0, false) => "all dropped (bounding set unchanged)".to_owned(),
        _ => format!("not dropped: {}", io::Error::last_os_error()),
    }
}

/// No exec gives us or our children more than we have.
pub(super) fn forbid_new_privileges() -> String {
    // SAFETY: prctl with plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => "on".to_owned(),
        _ => format!("off: {}", io::Error::last_os_error()),
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
