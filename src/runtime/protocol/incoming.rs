//! The reading side of a connection: greeting first, then frames. The same on both ends.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::busy_poll::{BusyPoll, POLL_LIMIT};
use super::frame::{Decoder, FrameLimits};
use super::{GREETING, Violation};

/// Why nothing more can be read.
#[derive(Debug)]
pub enum Ending {
    /// The other side closed its end, as it does when it dies.
    Closed,
    /// The socket failed.
    Failed(io::Error),
    /// The other side broke a rule of the protocol.
    Violated(Violation),
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

/// What comes in.
#[derive(Debug)]
pub struct Incoming {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    is_greeted: bool,
    busy_poll: BusyPoll,
}

impl Incoming {
    /// Reads from `stream`, nothing beyond `limits`.
    pub fn new(stream: Arc<UnixStream>, limits: FrameLimits) -> Self {
        Self {
            stream,
            decoder: Decoder::new(limits),
            is_greeted: false,
            busy_poll: BusyPoll::default(),
        }
    }

    /// The next message and its body. Safe to cancel. `is_lively` says, when there is nothing to read, whether a message
    /// may be expected at once, so that polling for it may pay.
    pub async fn next<H: DeserializeOwned>(
        &mut self,
        is_lively: impl Fn() -> bool,
    ) -> Result<(H, Bytes), Ending> {
        loop {
            if self.greet()?
                && let Some(frame) = self.decoder.next()?
            {
                return Ok(frame);
            }
            self.read_some(is_lively()).await?;
        }
    }

    /// Whether the other side has greeted as it must.
    fn greet(&mut self) -> Result<bool, Violation> {
        if !self.is_greeted
            && let Some(greeting) = self.decoder.take()
        {
            if greeting != GREETING {
                return Err(Violation::Greeting(greeting));
            }
            self.is_greeted = true;
        }
        Ok(self.is_greeted)
    }

    async fn read_some(&mut self, is_lively: bool) -> Result<(), Ending> {
        let started = Instant::now();
        let polls = is_lively && self.busy_poll.is_worth_it();
        loop {
            match self.stream.try_read_buf(self.decoder.space()) {
                Ok(0) => return Err(Ending::Closed),
                Ok(_) => {
                    self.busy_poll.note(started.elapsed(), polls);
                    return Ok(());
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(Ending::Failed(error));
                }
                Err(_) if polls && started.elapsed() < POLL_LIMIT => {
                    self.yield_until_readable().await;
                }
                Err(_) => self.stream.readable().await.map_err(Ending::Failed)?,
            }
        }
    }

    /// Yields, but for no longer than there is nothing to read: the thread that this task yields on may be held by a run,
    /// and another one learns of the socket then.
    async fn yield_until_readable(&self) {
        let mut yielded = pin!(tokio::task::yield_now());
        poll_fn(|ctx| match self.stream.poll_read_ready(ctx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => yielded.as_mut().poll(ctx),
        })
        .await;
    }
}
