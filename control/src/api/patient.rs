//! A stream to a peer that has to take what it is sent. There are places for a bounded number of HTTP
//! connections; one whose peer reads nothing, or next to nothing, must not keep its place.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What a peer that is behind has to take within the period, unless less is left for it.
const LEAST_BYTES: usize = 64 * 1024;

/// Writes fail with [`io::ErrorKind::TimedOut`] once the peer has been behind for too long.
pub(super) struct Patient<S> {
    stream: S,
    period: Duration,
    /// Only while the peer is behind.
    window: Option<Window>,
}

struct Window {
    end: Pin<Box<Sleep>>,
    taken_bytes: usize,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, period: Duration) -> Self {
        Self {
            stream,
            period,
            window: None,
        }
    }

    /// The bare stream.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => {
                if let (Some(window), Ok(bytes)) = (&mut self.window, &written) {
                    window.taken_bytes += bytes;
                    if window.taken_bytes >= LEAST_BYTES {
                        self.window = None;
                    }
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                let window = self.window.get_or_insert_with(|| Window {
                    end: Box::pin(sleep(self.period)),
                    taken_bytes: 0,
                });
                ready!(window.end.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Comes when everything has been written, so the peer is behind no more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.window = None;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const PERIOD: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (near, _far) = duplex(16);
        let mut patient = Patient::new(near, PERIOD);
        let error = patient.write_all(&[7; 17]).await.expect_err("too late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn time_counts_only_while_the_peer_is_behind() {
        let (near, mut far) = duplex(16);
        let mut patient = Patient::new(near, PERIOD);
        for _ in 0..2 {
            let (written, read) = tokio::join!(
                async {
                    patient.write_all(&[7; 40]).await?;
                    patient.flush().await
                },
                async { far.read_exact(&mut [0; 40]).await },
            );
            written.expect("taken");
            read.expect("read");
            sleep(2 * PERIOD).await;
        }
    }

    #[tokio::test]
    async fn a_slow_peer_that_takes_enough_gets_everything() {
        let (near, mut far) = duplex(LEAST_BYTES);
        let mut patient = Patient::new(near, PERIOD);
        let reader = tokio::spawn(async move {
            let mut taken = vec![0; LEAST_BYTES];
            for _ in 0..4 {
                sleep(PERIOD / 4).await;
                far.read_exact(&mut taken).await.expect("read");
            }
        });
        let sent = patient.write_all(&vec![7; 4 * LEAST_BYTES]).await;
        sent.expect("taken in time");
        reader.await.expect("no panic");
    }
}
