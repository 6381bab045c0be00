//! Having memory fetched into the processor's caches before it is needed.

/// Bytes fetched at a time.
const LINE: usize = 64;
/// More than this is not worth it.
const MAX_LINES: usize = 32;

/// Begins to fetch `length` bytes at `address`, without waiting and without reading them: any address
/// may be given.
pub(crate) fn fetch(address: *const u8, length: usize) {
    for line in 0..length.div_ceil(LINE).min(MAX_LINES) {
        fetch_line(address.wrapping_add(line * LINE));
    }
}

#[cfg(target_arch = "x86_64")]
fn fetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which accesses nothing and cannot fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(target_arch = "aarch64")]
fn fetch_line(address: *const u8) {
    // SAFETY: a hint, which accesses nothing and cannot fault.
    unsafe { std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly)) }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fetch_line(_address: *const u8) {}
