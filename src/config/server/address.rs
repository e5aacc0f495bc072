//! Addresses to listen on, as TorchServe writes them: `http://HOST[:PORT]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port where none is written, as in TorchServe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultPort(pub u16);

/// Reads an address, or says what is wrong with it.
pub fn parse(text: &str, port: DefaultPort) -> Result<SocketAddr, &'static str> {
    let text = text.trim();
    if text.starts_with("https://") {
        return Err("must start with http://: this release does not serve TLS");
    }
    if text.starts_with("unix:") {
        return Err("must start with http://: this release does not listen on Unix sockets");
    }
    let Some(rest) = text.strip_prefix("http://") else {
        return Err("must be http://HOST:PORT");
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Ok(address) = rest.parse() {
        return Ok(address);
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, text)) if !rest.ends_with(']') => (
            host,
            text.parse()
                .map_err(|_| "must have a port from 0 to 65535")?,
        ),
        _ => (rest, port.0),
    };
    match ip(host) {
        Some(ip) => Ok(SocketAddr::new(ip, port)),
        None => Err("must have an IP address or localhost as its host"),
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    if host == "localhost" {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(six) => six.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, &'static str> {
        parse(text, DefaultPort(8081)).map(|address| address.to_string())
    }

    #[test]
    fn hosts_and_ports_are_read() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost:0/", "127.0.0.1:0"),
            ("http://0.0.0.0", "0.0.0.0:8081"),
            ("http://[::1]:9", "[::1]:9"),
            ("http://[::1]", "[::1]:8081"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "127.0.0.1:8080",
            "http://",
            "http://127.0.0.1:65536",
            "http://127.0.0.1:x",
            "http://example.com:80",
            "http://::1:80",
            "http://evil@127.0.0.1:80",
            "https://127.0.0.1",
            "unix:/tmp/s",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
