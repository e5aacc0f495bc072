//! Addresses to listen on, as TorchServe writes them: `http://HOST[:PORT]`, `https://HOST[:PORT]`, `unix:PATH`.
//!
//! It says what was meant and binds nothing. Only a host's name is looked up, so that a typing error in one is
//! found with all others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};

use crate::listen::Address;

/// What the kernel has room for in a socket's path.
const LONGEST_PATH: usize = 107;
/// What an address must be.
pub const SHAPE: &str = "http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH";
/// What the host of a gRPC listener must be.
pub const HOST_SHAPE: &str = "a host's name or address, without scheme and port";

/// The ports where none is written, as in TorchServe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultPorts {
    /// After `http://`.
    pub http: u16,
    /// After `https://`.
    pub https: u16,
}

/// Reads an address, or says what is wrong with it, in TorchServe's words where it has some.
pub fn parse(text: &str, ports: DefaultPorts) -> Result<Address, String> {
    let text = text.trim();
    let malformed = || invalid(text, &format!("must be {SHAPE}"));
    let (scheme, rest) = text.split_once(':').ok_or_else(malformed)?;
    let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
        "unix" => return unix(text, rest),
        "http" => (false, ports.http),
        "https" => (true, ports.https),
        _ => return Err(malformed()),
    };
    let authority = rest.strip_prefix("//").ok_or_else(malformed)?;
    let socket = socket(text, authority.strip_suffix('/').unwrap_or(authority), port)?;
    Ok(Address::Tcp { socket, tls })
}

/// Reads the host of a gRPC listener, whose port is a setting of its own.
pub fn parse_host(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    ip(text).ok_or_else(|| invalid(text, &format!("must be {HOST_SHAPE}")))
}

fn invalid(text: &str, rule: &str) -> String {
    let shown: String = text.chars().take(80).collect();
    format!("Invalid binding address: {shown}: {rule}")
}

fn unix(text: &str, path: &str) -> Result<Address, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(invalid(text, "a Unix socket needs an absolute path"));
    }
    if path.len() > LONGEST_PATH || path.contains('\0') {
        let rule = format!("a socket's path has at most {LONGEST_PATH} bytes");
        return Err(invalid(text, &rule));
    }
    Ok(Address::Unix(path.into()))
}

fn socket(text: &str, authority: &str, default: u16) -> Result<SocketAddr, String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, parse_port(port)?),
        _ => (authority, default),
    };
    let ip = ip(host)
        .ok_or_else(|| invalid(text, "its host must be a name or address that is known"))?;
    Ok(SocketAddr::new(ip, port))
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(20).collect();
        format!("Invalid port number: {shown}: it must be from 0 to 65535")
    })
}

fn ip(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(six) => six.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4).or_else(|| lookup(host)),
    }
}

/// Asks the system for a name's address, IPv4 before IPv6, as TorchServe's Java does.
fn lookup(host: &str) -> Option<IpAddr> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // A number that is no address is nobody's name: resolvers would read 127.1 as one.
    let is_numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_numeric || host.len() > 253 || !host.bytes().all(is_name) {
        return None;
    }
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .ok()?
        .map(|at| at.ip())
        .collect();
    found
        .iter()
        .find(|ip| ip.is_ipv4())
        .or(found.first())
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: DefaultPorts = DefaultPorts {
        http: 8081,
        https: 8444,
    };

    fn read(text: &str) -> Result<String, String> {
        parse(text, PORTS).map(|address| address.to_string())
    }

    #[test]
    fn hosts_and_ports_are_read() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("HTTP://localhost:0/", "http://127.0.0.1:0"),
            ("http://0.0.0.0", "http://0.0.0.0:8081"),
            ("https://0.0.0.0", "https://0.0.0.0:8444"),
            ("https://127.0.0.1:65535", "https://127.0.0.1:65535"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("http://[::1]", "http://[::1]:8081"),
            ("unix:/tmp/a.sock", "unix:/tmp/a.sock"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn others_are_refused_in_torchserves_words() {
        let long = format!("unix:/{}", "x".repeat(200));
        for text in [
            "",
            "127.0.0.1:8080",
            "http://",
            "http:127.0.0.1",
            "ftp://127.0.0.1",
            "http://::1:80",
            "http://127.1:80",
            "http://evil@127.0.0.1:80",
            "http://no.such.host.invalid:80",
            "unix:relative",
            "unix:/",
            &long,
        ] {
            let message = read(text).expect_err(text);
            assert!(
                message.starts_with("Invalid binding address: "),
                "{message}"
            );
        }
        for text in ["http://127.0.0.1:65536", "http://127.0.0.1:x", "https://h:"] {
            let message = read(text).expect_err(text);
            assert!(message.starts_with("Invalid port number: "), "{message}");
        }
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_private() {
        for (text, is_public) in [
            ("http://127.0.0.1:1", false),
            ("https://[::1]:1", false),
            ("unix:/s", false),
            ("http://0.0.0.0:1", true),
            ("http://10.0.0.1:1", true),
        ] {
            let address = parse(text, PORTS).expect(text);
            assert_eq!(!address.is_local(), is_public, "{text}");
        }
    }

    #[test]
    fn grpc_hosts_have_no_scheme() {
        assert_eq!(parse_host("0.0.0.0"), Ok(IpAddr::from([0, 0, 0, 0])));
        assert!(parse_host("http://0.0.0.0").is_err());
        assert!(parse_host("").is_err());
    }
}
