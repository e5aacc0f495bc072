//! Binding: one socket for each address, whatever is served there.

use super::front::Front;
use super::secure::TlsParts;
use super::{ServerError, secure};
use crate::api::Listener;
use crate::listen::{Address, Socket, Tls};

/// A socket and what is served on it.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(super) socket: Socket,
}

/// Binds every address before any is served; the files of Unix sockets have `socket_mode`. Speaks TLS by `parts`, which are
/// there if any address needs them. Connections are within the limits of `front`.
pub(super) fn bind(
    listeners: Vec<(Listener, Address)>,
    parts: Option<&TlsParts>,
    front: &Front,
    socket_mode: u32,
) -> Result<Vec<Bound>, ServerError> {
    let shared = by_address(listeners).into_iter();
    shared
        .map(|(listeners, address)| {
            let tls = tls(&listeners, parts, front)?;
            let connections = front.connections(&listeners);
            match Socket::bind(&address, tls, socket_mode) {
                Ok(socket) => Ok(Bound {
                    listeners,
                    socket: socket.within(connections, front.write_timeout()),
                }),
                Err(source) => Err(ServerError::Bind {
                    address,
                    listener: listeners[0],
                    source,
                }),
            }
        })
        .collect()
}

fn tls(
    listeners: &[Listener],
    parts: Option<&TlsParts>,
    front: &Front,
) -> Result<Option<Tls>, rustls::Error> {
    let made = parts.map(|parts| secure::tls(listeners[0], parts, front.handshakes()));
    made.transpose()
}

/// Listeners that were given the same address share it. As in TorchServe, metrics are shown where predictions and
/// models meet, besides where they are shown anyway. Port 0 is another port each time. gRPC shares with nobody: binding
/// then says that the address is taken.
fn by_address(listeners: Vec<(Listener, Address)>) -> Vec<(Vec<Listener>, Address)> {
    let has_metrics = listeners.iter().any(|(one, _)| *one == Listener::Metrics);
    let mut shared: Vec<(Vec<Listener>, Address)> = Vec::new();
    for (listener, address) in listeners {
        let is_any = address.socket().is_some_and(|socket| socket.port() == 0);
        let may_share = !is_any && !listener.is_grpc();
        match shared
            .iter_mut()
            .find(|(_, other)| *other == address && may_share)
        {
            Some((sharing, _)) => sharing.push(listener),
            None => shared.push((vec![listener], address)),
        }
    }
    for (sharing, _) in &mut shared {
        let is_combined = sharing.contains(&Listener::Inference) && sharing.len() > 1;
        if is_combined && has_metrics && !sharing.contains(&Listener::Metrics) {
            sharing.push(Listener::Metrics);
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(listeners: &[(Listener, &str)]) -> Vec<(Vec<Listener>, String)> {
        let listeners = listeners
            .iter()
            .map(|(listener, socket)| (*listener, Address::plain(socket.parse().unwrap())));
        let shared = by_address(listeners.collect()).into_iter();
        shared
            .map(|(listeners, address)| (listeners, address.to_string()))
            .collect()
    }

    #[test]
    fn the_same_address_is_one_socket() {
        use Listener::{Inference, Management, Metrics};
        let [one, two] = ["127.0.0.1:8080", "127.0.0.1:8082"];
        assert_eq!(
            at(&[(Inference, one), (Management, one), (Metrics, two)]),
            [
                (
                    vec![Inference, Management, Metrics],
                    format!("http://{one}")
                ),
                (vec![Metrics], format!("http://{two}")),
            ]
        );
        assert_eq!(
            at(&[(Inference, one), (Management, one)]),
            [(vec![Inference, Management], format!("http://{one}"))]
        );
        let any = "127.0.0.1:0";
        assert_eq!(at(&[(Inference, any), (Management, any)]).len(), 2);
    }
}
