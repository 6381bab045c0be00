//! Frames on the socket: a 4-byte little-endian length, then a bincode 2 body. The only place that
//! knows bincode. A frame over [`MAX_FRAME_BYTES`], one that does not decode, and one with bytes
//! left over are errors after which the connection is useless. Nothing is allocated on the word of a
//! length: the body buffer grows with what has arrived.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest body.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;
const READ_CHUNK_BYTES: usize = 16 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The length announces too large a body.
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// The body is not a message of this version.
    #[error("frame does not decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The body goes on after the message.
    #[error("{0} bytes left over after the message")]
    Trailing(usize),
    /// The message cannot be encoded within the limit.
    #[error("message does not encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The connection ended inside a frame.
    #[error("connection ended inside a frame")]
    Truncated,
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME_BYTES>()
}

/// Appends the frame of `message` to `buffer`; on error `buffer` is as it was.
pub fn encode<M: Serialize>(message: &M, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    let outcome = bincode::serde::encode_into_std_write(message, buffer, bincode_config());
    let body_bytes = buffer.len() - start - LENGTH_BYTES;
    let checked = match outcome {
        Ok(_) if body_bytes > MAX_FRAME_BYTES => Err(FrameError::TooLarge(body_bytes)),
        Ok(_) => u32::try_from(body_bytes).map_err(|_| FrameError::TooLarge(body_bytes)),
        Err(error) => Err(FrameError::Encode(error)),
    };
    match checked {
        Ok(length) => {
            buffer[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            buffer.truncate(start);
            Err(error)
        }
    }
}

/// The message that `body` is, to its last byte.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    if body.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(body.len()));
    }
    let (message, used) = bincode::serde::decode_from_slice(body, bincode_config())?;
    if used != body.len() {
        return Err(FrameError::Trailing(body.len() - used));
    }
    Ok(message)
}

/// Reads frames from one half of a connection. Cancel-safe: a dropped `read` loses nothing.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `source`, which must be at the beginning of a frame.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
        }
    }

    /// The next message, or none at a clean end of the connection.
    pub async fn read<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            if let Some(total) = self.frame_length()? {
                let message = decode(&self.buffer[LENGTH_BYTES..total])?;
                self.buffer.drain(..total);
                if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ_CHUNK_BYTES {
                    self.buffer = Vec::new();
                }
                return Ok(Some(message));
            }
            self.buffer.reserve(READ_CHUNK_BYTES);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
    }

    /// Length of the first frame, prefix included, once all of it is in the buffer.
    fn frame_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let body_bytes = u32::from_le_bytes(*prefix) as usize;
        if body_bytes > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge(body_bytes));
        }
        let total = LENGTH_BYTES + body_bytes;
        Ok((self.buffer.len() >= total).then_some(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::message::ToDataplane;

    fn framed(message: &ToDataplane) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode(message, &mut buffer).expect("encodes");
        buffer
    }

    #[tokio::test]
    async fn frames_survive_any_split() {
        let mut bytes = framed(&ToDataplane::Heartbeat);
        bytes.extend(framed(&ToDataplane::Heartbeat));
        for split in 0..bytes.len() {
            let (first, second) = bytes.split_at(split);
            let mut reader = FrameReader::new(first.chain(second));
            for _ in 0..2 {
                let message: Option<ToDataplane> = reader.read().await.expect("reads");
                assert_eq!(message, Some(ToDataplane::Heartbeat));
            }
            let end: Option<ToDataplane> = reader.read().await.expect("clean end");
            assert_eq!(end, None);
        }
    }

    #[tokio::test]
    async fn a_lying_length_is_refused_before_anything_is_allocated() {
        let mut reader = FrameReader::new(&[0xff, 0xff, 0xff, 0xff][..]);
        let outcome = reader.read::<ToDataplane>().await;
        assert!(matches!(outcome, Err(FrameError::TooLarge(_))));
        assert!(reader.buffer.capacity() <= READ_CHUNK_BYTES);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        let bytes = framed(&ToDataplane::Heartbeat);
        let mut reader = FrameReader::new(&bytes[..bytes.len() - 1]);
        assert!(matches!(
            reader.read::<ToDataplane>().await,
            Err(FrameError::Truncated)
        ));
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        let mut bytes = framed(&ToDataplane::Heartbeat);
        bytes.push(0);
        assert!(matches!(
            decode::<ToDataplane>(&bytes[LENGTH_BYTES..]),
            Err(FrameError::Trailing(1))
        ));
    }

    #[test]
    fn a_collection_length_beyond_the_body_does_not_allocate() {
        // Request { number: 0, SetLogLevel { level: <2^32 bytes> } } and then nothing.
        let mut body = framed(&ToDataplane::Request {
            number: 0,
            request: crate::ipc::Request::SetLogLevel {
                level: String::new(),
            },
        })[LENGTH_BYTES..]
            .to_vec();
        body.pop();
        body.extend([253, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert!(matches!(
            decode::<ToDataplane>(&body),
            Err(FrameError::Decode(_))
        ));
    }
}
