//! One message with descriptors over a socket pair, before anything else is said there.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that a message may have.
const MOST_BYTES: usize = 1 << 20;
/// Descriptors that go with a message, at most.
const MOST_DESCRIPTORS: usize = 4;
/// Bytes before a message that say how long it is.
const PREFIX: usize = 4;

/// Sends `message` and copies of `descriptors`. Waits while the socket takes nothing.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    if body.len() > MOST_BYTES || descriptors.len() > MOST_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = [&length.to_le_bytes()[..], &body].concat();
    // A process behind walls cannot send descriptors.
    let mut sent = if descriptors.is_empty() {
        0
    } else {
        send_with(socket, &bytes, descriptors)?
    };
    while sent < bytes.len() {
        sent += when_ready(socket, PollFlags::OUT, || {
            rustix::net::send(socket, &bytes[sent..], SendFlags::NOSIGNAL)
        })?;
    }
    Ok(())
}

/// Sends some of `bytes` and all descriptors.
fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    when_ready(socket, PollFlags::OUT, || {
        let from = [IoSlice::new(bytes)];
        sendmsg(socket, &from, &mut control, SendFlags::NOSIGNAL)
    })
}

/// Waits for a message and what descriptors go with it. Reads not one byte more.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let mut prefix = [0; PREFIX];
    fill(socket, &mut prefix, &mut descriptors)?;
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    fill(socket, &mut body, &mut descriptors)?;
    let message = postcard::from_bytes(&body).map_err(io::Error::other)?;
    Ok((message, descriptors))
}

fn fill(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read = read(socket, &mut buffer[filled..], descriptors)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    Ok(())
}

fn read(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = when_ready(socket, PollFlags::IN, || {
        let into = &mut [IoSliceMut::new(buffer)];
        recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Does `attempt` until it neither would block nor was interrupted.
fn when_ready<T>(
    socket: BorrowedFd<'_>,
    flags: PollFlags,
    mut attempt: impl FnMut() -> rustix::io::Result<T>,
) -> io::Result<T> {
    loop {
        match attempt() {
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(socket, flags)], None)?;
            }
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors_and_nothing_that_follows_is_lost() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"code").unwrap();
        let message = vec!["a".to_owned(); 1000];
        let receiving = std::thread::spawn(move || {
            let received = receive::<Vec<String>>(theirs.as_fd()).unwrap();
            theirs.set_nonblocking(false).unwrap();
            let mut rest = [0; 4];
            theirs.read_exact(&mut rest).unwrap();
            (received, rest)
        });
        send(ours.as_fd(), &message, &[file.as_fd(), ours.as_fd()]).unwrap();
        ours.write_all(b"rest").unwrap();
        let ((received, descriptors), rest) = receiving.join().unwrap();
        assert_eq!(received, message);
        assert_eq!(&rest, b"rest");
        assert_eq!(descriptors.len(), 2);
        let length = std::fs::File::from(descriptors.into_iter().next().unwrap());
        assert_eq!(length.metadata().unwrap().len(), 4);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [
            &b""[..],
            b"\xff\xff\xff\xff",
            b"\x04\0\0\0ab",
            b"\x01\0\0\0\xff",
        ] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).unwrap();
            drop(ours);
            assert!(receive::<Vec<String>>(theirs.as_fd()).is_err(), "{bytes:?}");
        }
    }
}
