//! Accepting: one loop for every kind of socket and every protocol.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::progress::WriteProgress;
use super::socket::Listener;
use super::stream::Io;
use super::{Connections, Peer, Socket, Stream, Tls};

/// How long accepting pauses after it failed because a resource, such as file descriptors, was used up.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts on `socket` until `stop`. Each connection gets a task that runs `serve`, after the handshake if the socket
/// speaks TLS. After `stop` it takes the connections that the kernel has accepted already, closes the socket, and returns
/// when every connection has ended. `serve` must watch for the stop itself, and end soon after it.
pub async fn accept<F>(
    socket: Socket,
    stop: CancellationToken,
    serve: impl Fn(Stream, Peer) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let manner = Manner {
        tls: socket.tls,
        connections: socket.connections,
        write_timeout: socket.write_timeout,
    };
    let begin = |accepted| begin(&tasks, manner.clone(), accepted, serve.clone());
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                is_failing = false;
                begin(accepted);
                if manner.connections.is_full() {
                    // Those that make room get the time to.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!("cannot accept connections: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    accept_waiting(socket.listener, begin);
    tasks.close();
    tasks.wait().await;
}

/// How the connections of a socket are served.
#[derive(Clone)]
struct Manner {
    tls: Option<Tls>,
    connections: Connections,
    write_timeout: Duration,
}

/// Serves a connection in a task of its own, if there is a place for it, and as long as nobody else needs that.
fn begin<F>(
    tasks: &TaskTracker,
    manner: Manner,
    (io, peer): (Io, Peer),
    serve: impl Fn(Stream, Peer) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(seat) = manner.connections.seat(peer, io.descriptor()) else {
        return;
    };
    tasks.spawn(async move {
        let place = &seat;
        let served = async move {
            let io = match (manner.tls, io) {
                (Some(tls), Io::Tcp(stream)) => tls.establish(stream).await,
                (_, io) => Some(io),
            };
            if let Some(io) = io {
                let progress = WriteProgress::new(manner.write_timeout);
                serve(Stream::new(io, progress, place), peer).await;
            }
        };
        tokio::select! {
            () = served => {}
            () = seat.evicted() => tracing::debug!(%peer, "an idle connection made room for another"),
        }
    });
}

/// Takes every connection that waits in the kernel, since their clients may have sent a request and closing the socket
/// would reset them. The kernel is asked directly: tokio may return `pending` without asking it, if it has not yet been told
/// of the newest connections or this task has used up its budget.
fn accept_waiting(listener: Listener, mut begin: impl FnMut((Io, Peer))) {
    let waiting = match listener.into_last() {
        Ok(last) => last,
        Err(error) => return tracing::warn!("cannot take the last connections: {error}"),
    };
    loop {
        match waiting.accept() {
            Ok(accepted) => begin(accepted),
            Err(error) if is_of_one(&error) => {}
            Err(_) => return,
        }
    }
}

/// Whether an error of accepting is about one connection, so that the next can be accepted at once.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use tokio::io::AsyncWriteExt as _;

    use super::super::Address;
    use super::*;

    async fn greet(mut stream: Stream, _: Peer) {
        stream.write_all(b"hello").await.unwrap();
    }

    /// More connections than the runtime lets a task accept in one turn, all of them made before the stop and none
    /// accepted by then: this runtime has one thread, and the test does not leave it.
    #[tokio::test]
    async fn every_connection_that_waits_at_the_stop_is_served() {
        let address = Address::plain("127.0.0.1:0".parse().unwrap());
        let socket = Socket::bind(&address, None, 0o600).unwrap();
        let address = socket.address().socket().unwrap();
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(accept(socket, stop.clone(), greet));
        tokio::task::yield_now().await;
        let clients: Vec<_> = (0..300)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        stop.cancel();
        accepting.await.unwrap();
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "hello");
        }
        assert!(TcpStream::connect(address).is_err());
    }

    #[tokio::test]
    async fn unix_sockets_are_served_alike_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = Socket::bind(&Address::Unix(path.clone()), None, 0o600).unwrap();
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(accept(socket, stop.clone(), greet));
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stop.cancel();
        accepting.await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((answer.as_str(), path.exists()), ("hello", false));
    }
}
