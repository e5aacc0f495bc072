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
use super::frame::{Decoder, FrameLimits, ReadBody};
use super::{GREETING, Violation};
use crate::runtime::shared::View;

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

/// The body of a message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Bytes of this process's own.
    Own(Bytes),
    /// Bytes that the process which sent them may change at any time.
    Shared(Bytes),
}

impl Received {
    /// How many there are.
    pub const fn length(&self) -> usize {
        match self {
            Self::Own(bytes) | Self::Shared(bytes) => bytes.len(),
        }
    }

    /// As it is: where the other process is trusted, or the bytes are passed on unread.
    pub fn unchanged(self) -> Bytes {
        match self {
            Self::Own(bytes) | Self::Shared(bytes) => bytes,
        }
    }

    /// As bytes that nobody changes.
    pub fn copied(self) -> Bytes {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => Bytes::copy_from_slice(&bytes),
        }
    }
}

/// What comes in.
#[derive(Debug)]
pub struct Incoming {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    /// Where large bodies are, if there is shared memory.
    view: Option<Arc<View>>,
    is_greeted: bool,
    busy_poll: BusyPoll,
}

impl Incoming {
    /// Reads from `stream`, nothing beyond `limits`, and bodies that are not there from `view`.
    pub fn new(stream: Arc<UnixStream>, limits: FrameLimits, view: Option<Arc<View>>) -> Self {
        Self {
            stream,
            decoder: Decoder::new(limits),
            view,
            is_greeted: false,
            busy_poll: BusyPoll::default(),
        }
    }

    /// The next message and its body. Safe to cancel. `is_lively` says, when there is nothing to read, whether a message
    /// may be expected at once, so that polling for it may pay.
    pub async fn next<H: DeserializeOwned>(
        &mut self,
        is_lively: impl Fn() -> bool,
    ) -> Result<(H, Received), Ending> {
        loop {
            if self.greet()?
                && let Some((header, body)) = self.decoder.next()?
            {
                return Ok((header, self.body(body)?));
            }
            self.read_some(is_lively()).await?;
        }
    }

    /// A body's bytes, wherever they are.
    fn body(&self, body: ReadBody) -> Result<Received, Violation> {
        match body {
            ReadBody::Here(bytes) => Ok(Received::Own(bytes)),
            ReadBody::Shared(place) => {
                let bytes = self.view.as_ref().and_then(|view| view.bytes(place));
                let missing = || Violation::Message(format!("no shared memory has {place:?}"));
                bytes.map(Received::Shared).ok_or_else(missing)
            }
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
