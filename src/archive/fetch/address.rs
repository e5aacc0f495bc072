//! Which addresses a host name may have.
//!
//! An allowed name may still have an address of this machine or its network, by mistake or because the owner of the name
//! wants it so. So a name may only have public addresses, unless the operator listed it in `lantern_private_hosts`. An
//! address that is itself in `allowed_urls` is not looked up. Only addresses that were checked are connected to.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Finds the addresses of a name.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Looks names up by the system's resolver.
pub fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// What can be reached at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    /// A machine of the same network.
    Private,
    /// This machine or its link, or nothing at all.
    Local,
}

/// Looks names up, and fails if one has an address that it must not have.
pub struct CheckedLookup {
    lookup: Lookup,
    private_hosts: Arc<BTreeSet<String>>,
}

impl CheckedLookup {
    /// Names in `private_hosts` may lead to private addresses and to this machine.
    pub fn new(lookup: Lookup, private_hosts: BTreeSet<String>) -> Self {
        Self {
            lookup,
            private_hosts: Arc::new(private_hosts),
        }
    }
}

impl CheckedLookup {
    /// Fails if `name` leads to an address that it must not have. A name that is not known passes.
    pub async fn check(&self, name: &str) -> Result<(), String> {
        match (self.lookup)(name.to_owned()).await {
            Ok(addresses) => check(name, &addresses, &self.private_hosts),
            Err(_) => Ok(()),
        }
    }
}

impl Resolve for CheckedLookup {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.lookup)(name.as_str().to_owned());
        let private_hosts = Arc::clone(&self.private_hosts);
        Box::pin(async move {
            let addresses = found.await?;
            check(name.as_str(), &addresses, &private_hosts)?;
            let addresses: Vec<_> = addresses
                .into_iter()
                .map(|ip| SocketAddr::new(ip, 0))
                .collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// One forbidden address among allowed ones is refused too: it may be the one that is connected to.
fn check(name: &str, addresses: &[IpAddr], private_hosts: &BTreeSet<String>) -> Result<(), String> {
    let is_named = name == "localhost" || private_hosts.contains(name);
    let bad = addresses.iter().find(|address| !is_public(**address));
    match bad.filter(|_| !is_named) {
        Some(bad) => Err(format!(
            "{name} leads to {bad}, which is not public: add {name} to lantern_private_hosts if it may"
        )),
        None => Ok(()),
    }
}

/// Whether an address is neither of this machine nor of its network.
pub fn is_public(address: IpAddr) -> bool {
    reach(address) == Reach::Public
}

fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(four) => reach_of_four(four),
        IpAddr::V6(six) => match embedded(six) {
            Some(four) => reach_of_four(four),
            None => reach_of_six(six),
        },
    }
}

fn reach_of_four(four: Ipv4Addr) -> Reach {
    let [first, second, third, _] = four.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_special = first == 0
        || first >= 240
        || (first, second) == (198, 18)
        || (first, second) == (198, 19)
        || (first, second, third) == (192, 0, 0);
    if four.is_loopback() || four.is_link_local() || four.is_multicast() || is_special {
        Reach::Local
    } else if four.is_private() || is_shared {
        Reach::Private
    } else {
        Reach::Public
    }
}

fn reach_of_six(six: Ipv6Addr) -> Reach {
    if six.is_unique_local() {
        Reach::Private
    } else if six.is_loopback()
        || six.is_unspecified()
        || six.is_multicast()
        || six.is_unicast_link_local()
    {
        Reach::Local
    } else {
        Reach::Public
    }
}

/// The IPv4 address inside an IPv6 address of NAT64, 6to4 or the old compatible form, which routers translate to it.
fn embedded(six: Ipv6Addr) -> Option<Ipv4Addr> {
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match six.segments() {
        [0x64, 0xff9b, _, _, _, _, high, low] | [0x2002, high, low, ..] => Some(four(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(four(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let cases = [
            (
                Reach::Public,
                ["8.8.8.8", "172.32.0.1", "2606:4700::1111"].as_slice(),
            ),
            (
                Reach::Private,
                &[
                    "10.1.2.3",
                    "172.16.0.1",
                    "192.168.1.1",
                    "100.64.0.1",
                    "fd00::1",
                    "64:ff9b::a00:1",
                ],
            ),
            (
                Reach::Local,
                &[
                    "127.0.0.1",
                    "127.9.9.9",
                    "0.0.0.0",
                    "169.254.169.254",
                    "224.0.0.1",
                    "255.255.255.255",
                    "198.18.0.1",
                    "::",
                    "::1",
                    "::ffff:127.0.0.1",
                    "::ffff:169.254.169.254",
                    "::127.0.0.1",
                    "2002:7f00:1::",
                    "64:ff9b::7f00:1",
                    "fe80::1",
                    "ff02::1",
                ],
            ),
        ];
        for (expected, addresses) in cases {
            for address in addresses {
                assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    async fn resolve(
        name: &str,
        address: &str,
        private: &[&str],
    ) -> Result<Vec<SocketAddr>, String> {
        let address: IpAddr = address.parse().unwrap();
        let lookup: Lookup = Arc::new(move |_| {
            Box::pin(async move { Ok(vec!["8.8.8.8".parse().unwrap(), address]) })
        });
        let private = private.iter().map(|name| (*name).to_owned()).collect();
        let checked = CheckedLookup::new(lookup, private);
        let found = checked.resolve(name.parse().unwrap()).await;
        found
            .map(Iterator::collect)
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn names_lead_to_public_addresses_unless_they_are_listed() {
        assert_eq!(resolve("h.org", "1.1.1.1", &[]).await.unwrap().len(), 2);
        for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1"] {
            let error = resolve("h.org", address, &["other.org"]).await.unwrap_err();
            assert!(error.contains("lantern_private_hosts"), "{error}");
            assert!(resolve("h.org", address, &["h.org"]).await.is_ok());
            assert!(resolve("localhost", address, &[]).await.is_ok());
        }
    }
}
