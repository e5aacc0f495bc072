//! The writing side of a connection: many tasks add frames, few system calls carry them.
//!
//! Whoever adds a frame while nobody writes may write at once, from the thread it is on: no hop, no wake-up. Frames
//! that are added meanwhile are taken along by whoever is writing. A frame that can wait a moment is left to the
//! flusher, which lets the tasks that are ready run first, so that their frames go with it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::Violation;
use super::frame::{self, Body, FrameLimits};
use crate::handler::yield_now;
use crate::runtime::shared::{Arena, Gathered, IDLE, Place, SHARED_FROM};

/// A buffer that grew beyond this is given back after use.
const KEPT_BUFFER: usize = 1 << 20;

/// When a frame has to be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Now: somebody waits for it and nothing else is under way.
    Now,
    /// After the tasks that are ready have run.
    Soon,
    /// With the next frame, whenever that is.
    Whenever,
}

/// Frames on their way out of a stream. Shared by all who send.
#[derive(Debug)]
pub struct Outbox {
    stream: Arc<UnixStream>,
    limits: FrameLimits,
    /// Where large bodies go, if there is shared memory.
    arena: Option<Arc<Arena>>,
    queue: Mutex<Queue>,
    /// Whether the flusher has been asked to come and has not come yet.
    is_called: AtomicBool,
    call: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Encoded and not taken by a writer.
    waiting: Vec<u8>,
    /// An empty buffer, kept for its allocation.
    spare: Vec<u8>,
    /// Taken by a writer and not wholly written, because the socket was full: the flusher's to go on with.
    stalled: Option<(Vec<u8>, usize)>,
    /// Somebody writes, or the socket is full.
    is_busy: bool,
    /// The other side is gone; frames are thrown away.
    is_broken: bool,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    /// Nothing is left, or somebody else is at it.
    Done,
    /// The socket is full.
    Stalled,
    /// The other side is gone.
    Broken,
}

impl Outbox {
    /// Sends raw `greeting` first and frames within `limits` after it, whose large bodies go through `arena` while it has
    /// room.
    pub fn new(
        stream: Arc<UnixStream>,
        limits: FrameLimits,
        arena: Option<Arc<Arena>>,
        greeting: &[u8],
    ) -> Self {
        let queue = Queue {
            waiting: greeting.to_vec(),
            ..Queue::default()
        };
        Self {
            stream,
            limits,
            arena,
            queue: Mutex::new(queue),
            is_called: AtomicBool::new(false),
            call: Notify::new(),
        }
    }

    /// Adds a frame. An error means that the frame breaks the limits and was not added; that the other side is gone is
    /// no error here: the reading side learns of it.
    pub fn send<H: Serialize>(
        &self,
        header: &H,
        body: &[&[u8]],
        urgency: Urgency,
    ) -> Result<(), Violation> {
        self.add(header, body)?;
        match urgency {
            Urgency::Now => self.flush_or_call(),
            Urgency::Soon => self.call_flusher(),
            Urgency::Whenever => {}
        }
        Ok(())
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Writes what others leave to it, until the other side is gone. To be run once, in a task of its own.
    pub async fn run_flusher(&self) {
        loop {
            self.call.notified().await;
            yield_now().await;
            self.is_called.store(false, Ordering::Release);
            if self.flush_when_writable().await == Flushed::Broken {
                return;
            }
        }
    }

    /// Writes everything that waits, or finds that the other side is gone.
    pub async fn flush_all(&self) {
        while self.flush_when_writable().await == Flushed::Done && self.is_waiting() {
            yield_now().await;
        }
    }

    fn is_waiting(&self) -> bool {
        let queue = self.queue.lock();
        !queue.is_broken && (queue.is_busy || !queue.waiting.is_empty())
    }

    async fn flush_when_writable(&self) -> Flushed {
        let mut flushed = self.resume();
        while flushed == Flushed::Stalled {
            if self.stream.writable().await.is_err() {
                return self.give_up();
            }
            flushed = self.resume();
        }
        flushed
    }

    fn add<H: Serialize>(&self, header: &H, body: &[&[u8]]) -> Result<(), Violation> {
        let shared = self.share(body);
        let body = shared.map_or(Body::Here(body), |(_, place)| Body::Shared(place));
        let mut queue = self.queue.lock();
        if queue.is_broken {
            return Ok(());
        }
        let added = frame::encode(&mut queue.waiting, self.limits, header, body);
        if let (Err(_), Some((arena, place))) = (&added, shared) {
            arena.give_back(place.offset);
        }
        added
    }

    /// Room for a body of `length` bytes where the other side sees it, if it is large and there is some.
    pub fn gather(&self, length: usize) -> Option<Gathered> {
        let is_large = (SHARED_FROM..=self.limits.body).contains(&length);
        is_large
            .then(|| self.arena.as_ref()?.gather(length))
            .flatten()
    }

    /// Puts a large body where the other side sees it, if there is room.
    fn share(&self, body: &[&[u8]]) -> Option<(&Arena, Place)> {
        let arena = self.arena.as_deref()?;
        let is_large = (SHARED_FROM..=self.limits.body).contains(&frame::length_of(body));
        let place = is_large.then(|| arena.put(body)).flatten()?;
        Some((arena, place))
    }

    /// Has what waits for the next frame written, and gives back shared memory that was not in use for a while.
    pub fn tidy(&self) {
        if self.backlog() > 0 {
            self.call_flusher();
        }
        if let Some(arena) = &self.arena {
            arena.tidy(IDLE);
        }
    }

    /// Gives back all shared memory that nobody holds: the other side is gone.
    pub fn give_up_memory(&self) {
        if let Some(arena) = &self.arena {
            arena.tidy(Duration::ZERO);
        }
    }

    /// Takes back a stretch of shared memory that the other side has done with. False if it never got it.
    pub fn released(&self, offset: u64) -> bool {
        let arena = self.arena.as_ref();
        arena.is_some_and(|arena| arena.give_back(offset))
    }

    /// Bytes of shared memory in use.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.arena.as_ref().map_or(0, |arena| arena.used())
    }

    fn flush_or_call(&self) {
        if self.flush() == Flushed::Stalled {
            self.call_flusher();
        }
    }

    fn call_flusher(&self) {
        if !self.is_called.swap(true, Ordering::AcqRel) {
            self.call.notify_one();
        }
    }

    /// Writes what waits, unless somebody else is at it.
    fn flush(&self) -> Flushed {
        let mut queue = self.queue.lock();
        if queue.is_busy || queue.waiting.is_empty() {
            return Flushed::Done;
        }
        queue.is_busy = true;
        let chunk = queue.take_waiting();
        drop(queue);
        self.write(chunk, 0)
    }

    /// Goes on where the socket was full, or writes what waits. Only the flusher may call it.
    fn resume(&self) -> Flushed {
        let stalled = self.queue.lock().stalled.take();
        match stalled {
            Some((chunk, written)) => self.write(chunk, written),
            None => self.flush(),
        }
    }

    /// Writes `chunk` from `written` on, and then what was added meanwhile. The caller has made the queue busy.
    fn write(&self, mut chunk: Vec<u8>, mut written: usize) -> Flushed {
        loop {
            match self.stream.try_write(&chunk[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.queue.lock().stalled = Some((chunk, written));
                    return Flushed::Stalled;
                }
                Err(_) => return self.give_up(),
            }
            if written < chunk.len() {
                continue;
            }
            let mut queue = self.queue.lock();
            queue.keep(chunk);
            if queue.waiting.is_empty() {
                queue.is_busy = false;
                return Flushed::Done;
            }
            chunk = queue.take_waiting();
            written = 0;
        }
    }

    fn give_up(&self) -> Flushed {
        *self.queue.lock() = Queue {
            is_broken: true,
            ..Queue::default()
        };
        Flushed::Broken
    }
}

impl Queue {
    fn take_waiting(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.waiting, std::mem::take(&mut self.spare))
    }

    fn keep(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() <= KEPT_BUFFER {
            chunk.clear();
            self.spare = chunk;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::runtime::protocol::frame::{Decoder, ReadBody};

    const LIMITS: FrameLimits = FrameLimits {
        header: 64,
        body: 1 << 20,
    };

    async fn read(stream: &mut UnixStream, decoder: &mut Decoder) -> (u32, Vec<u8>) {
        loop {
            if let Some((header, ReadBody::Here(body))) = decoder.next::<u32>().unwrap() {
                return (header, body.to_vec());
            }
            assert_ne!(stream.read_buf(decoder.space()).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn frames_arrive_once_and_in_order_although_the_socket_is_full() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(Arc::new(near), LIMITS, None, &[]));
        let flusher = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.run_flusher().await }
        });
        let urgencies = [Urgency::Now, Urgency::Soon, Urgency::Whenever];
        for number in 0u32..300 {
            let body = vec![number.to_le_bytes()[0]; number as usize * 50];
            let urgency = urgencies[number as usize % 3];
            outbox.send(&number, &[&body], urgency).unwrap();
        }
        outbox.send(&300u32, &[], Urgency::Soon).unwrap();
        let mut decoder = Decoder::new(LIMITS);
        for number in 0u32..=300 {
            let (header, body) = read(&mut far, &mut decoder).await;
            assert_eq!(header, number);
            assert!(body.iter().all(|byte| *byte == number.to_le_bytes()[0]));
        }
        drop(far);
        outbox.send(&301u32, &[], Urgency::Soon).unwrap();
        flusher.await.unwrap();
        outbox.send(&302u32, &[], Urgency::Now).unwrap();
        assert_eq!(outbox.backlog(), 0);
    }
}
