//! How much of a PCAP file that is being written consists of whole records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const FILE_HEADER_BYTES: u64 = 24;
const RECORD_HEADER_BYTES: usize = 16;
/// Offset of the captured length in a record header.
const LENGTH_OFFSET: usize = 8;
const BLOCK_BYTES: usize = 256 * 1024;
/// A larger record is none of ours; what follows it cannot be trusted.
const MAX_RECORD_BYTES: u32 = 256 * 1024;

/// Bytes up to the end of the last whole record; 0 while even the file's header is not whole.
pub(super) fn length(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if size < FILE_HEADER_BYTES {
        return Ok(0);
    }
    let mut at = FILE_HEADER_BYTES;
    let mut block = vec![0; BLOCK_BYTES];
    let mut block_start = 0;
    let mut block_end = 0;
    loop {
        let header_end = at + RECORD_HEADER_BYTES as u64;
        if header_end > size {
            return Ok(at);
        }
        if at < block_start || header_end > block_end {
            let count = file.read_at(&mut block, at)?;
            block_start = at;
            block_end = at + count as u64;
            if header_end > block_end {
                return Ok(at);
            }
        }
        let offset = usize::try_from(at - block_start).unwrap_or(BLOCK_BYTES) + LENGTH_OFFSET;
        let Some(captured) = block.get(offset..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(at);
        };
        let captured = u32::from_le_bytes(*captured);
        let record_end = header_end + u64::from(captured);
        if captured > MAX_RECORD_BYTES || record_end > size {
            return Ok(at);
        }
        at = record_end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn record(captured: u32) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH_OFFSET];
        bytes.extend(captured.to_le_bytes());
        bytes.extend(captured.to_le_bytes());
        bytes.extend(vec![7; captured as usize]);
        bytes
    }

    fn length_of(bytes: &[u8]) -> u64 {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(bytes).expect("written");
        length(&file).expect("read")
    }

    #[test]
    fn a_cut_record_is_left_out_wherever_it_is_cut() {
        let mut bytes = vec![0; 24];
        for _ in 0..3000 {
            bytes.extend(record(200));
        }
        let whole = bytes.len();
        assert_eq!(length_of(&bytes), whole as u64);
        bytes.extend(record(100));
        for cut in [1, 99, 100, 101, 115] {
            assert_eq!(
                length_of(&bytes[..bytes.len() - cut]),
                whole as u64,
                "{cut}"
            );
        }
        assert_eq!(length_of(&bytes[..23]), 0);
        assert_eq!(length_of(&bytes[..24]), 24);
    }

    #[test]
    fn garbage_ends_the_count() {
        let mut bytes = vec![0; 24];
        bytes.extend(record(10));
        let whole = bytes.len() as u64;
        bytes.extend([0xff; 600]);
        assert_eq!(length_of(&bytes), whole);
    }
}
