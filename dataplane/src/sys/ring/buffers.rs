//! Buffers that the kernel puts datagrams into (provided buffer ring). A buffer is the kernel's from
//! the time it is put back until a completion names it, and ours from then on.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rtpbridge_core::session::PacketBuffer;

/// Datagrams that can be waiting; a power of two.
const COUNT: u16 = 256;
/// A datagram with the kernel's header, the sender's name and a time stamp before it.
const SIZE: usize = PacketBuffer::MAX_DATAGRAM + 128;
const PAGE: usize = 4096;

pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    tail: u16,
}

// SAFETY: it owns its memory; nothing of it is bound to a thread.
unsafe impl Send for BufferRing {}

impl BufferRing {
    /// All buffers, the kernel's from the start.
    pub(super) fn new() -> Self {
        let mut ring = Self {
            entries: allocate(entries_layout()).cast(),
            data: allocate(data_layout()),
            tail: 0,
        };
        for buffer in 0..COUNT {
            ring.put_back(buffer);
        }
        ring.publish();
        ring
    }

    /// Makes the kernel use them as group `group`. They must live as long as the io_uring.
    pub(super) fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: page-aligned memory of COUNT entries, which the owner drops after the io_uring.
        unsafe { submitter.register_buf_ring_with_flags(address, COUNT, group, 0) }
    }

    /// Shows `read` the first `bytes` of a buffer that a completion named.
    pub(super) fn with<T>(
        &self,
        buffer: u16,
        bytes: u32,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        if buffer >= COUNT {
            return None;
        }
        let bytes = (bytes as usize).min(SIZE);
        // SAFETY: inside the allocation, initialised (zeroed at first), and ours until it is put back.
        read(unsafe {
            std::slice::from_raw_parts(self.data.as_ptr().add(usize::from(buffer) * SIZE), bytes)
        })
    }

    /// Gives a buffer to the kernel, as of the next [`publish`](Self::publish).
    pub(super) fn put_back(&mut self, buffer: u16) {
        if buffer >= COUNT {
            return;
        }
        let place = usize::from(self.tail & (COUNT - 1));
        // SAFETY: both offsets are inside their allocations; the kernel reads an entry only after
        // the tail has passed it.
        unsafe {
            let address = self.data.as_ptr().add(usize::from(buffer) * SIZE);
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(address as u64);
            entry.set_len(SIZE as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was put back.
    pub(super) fn publish(&self) {
        // SAFETY: the tail lies inside the first entry, is aligned, and is only ever accessed
        // atomically from here on.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts; the io_uring was dropped before.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout());
            dealloc(self.data.as_ptr(), data_layout());
        }
    }
}

fn entries_layout() -> Layout {
    layout(usize::from(COUNT) * size_of::<BufRingEntry>())
}

fn data_layout() -> Layout {
    layout(usize::from(COUNT) * SIZE)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE).expect("constants that fit")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
