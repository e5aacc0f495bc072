//! Attempts at the network and at sockets of other processes.

use std::io;
use std::mem::size_of_val;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};

use lantern::sandbox::Wall::{Landlock, Namespaces, Scopes, Seccomp, User};

use super::call::{bytes, call, reach};
use super::{Attacker, Attempt, attempt, works};

pub const ATTEMPTS: &[Attempt] = &[
    works("a pair of streams within the process", |_| {
        UnixStream::pair().map(drop)
    }),
    attempt("a socket of IPv4", &[Seccomp], |_| {
        socket(libc::AF_INET, libc::SOCK_STREAM)
    }),
    attempt("a socket of IPv6", &[Seccomp], |_| {
        socket(libc::AF_INET6, libc::SOCK_STREAM)
    }),
    attempt("a datagram socket", &[Seccomp], |_| {
        socket(libc::AF_INET, libc::SOCK_DGRAM)
    }),
    attempt("a raw socket", &[Seccomp, Namespaces], |_| raw_socket()),
    attempt("a Unix socket", &[Seccomp], |_| {
        socket(libc::AF_UNIX, libc::SOCK_STREAM)
    }),
    attempt("a socket to the kernel (netlink)", &[Seccomp], |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW)
    }),
    attempt("a socket of packets", &[Seccomp], |_| {
        reached_socket(libc::AF_PACKET, libc::SOCK_RAW)
    }),
    attempt("a socket to the hypervisor", &[Seccomp], |_| {
        reached_socket(libc::AF_VSOCK, libc::SOCK_STREAM)
    }),
    attempt("a socket for the kernel's ciphers", &[Seccomp], |_| {
        reached_socket(libc::AF_ALG, libc::SOCK_SEQPACKET)
    }),
    attempt(
        "connect to a port of the server",
        &[Seccomp, Namespaces, Landlock],
        |a| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], a.targets.port))).map(drop),
    ),
    attempt("listen on a port", &[Seccomp, Landlock], |_| {
        TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    attempt("send a datagram to a port", &[Seccomp, Namespaces], |a| {
        datagram(a.targets.port)
    }),
    attempt(
        "connect to an abstract socket",
        &[Seccomp, Namespaces, Scopes],
        |a| UnixStream::connect_addr(&UnixAddr::from_abstract_name(&a.targets.name)?).map(drop),
    ),
    attempt("connect to a socket by its path", &[Seccomp], |a| {
        UnixStream::connect(a.targets.public.join("socket")).map(drop)
    }),
    attempt(
        "connect to the front's own socket by its path",
        &[Seccomp, User],
        |a| UnixStream::connect(a.targets.private.join("socket")).map(drop),
    ),
    attempt(
        "listen on a socket by its path",
        &[Seccomp, User, Landlock],
        |a| UnixListener::bind(a.targets.public.join("store/bound")).map(drop),
    ),
    attempt("a pair of datagram sockets", &[Seccomp], |_| {
        UnixDatagram::pair().map(drop)
    }),
    attempt(
        "a datagram from a pair to a socket by its path",
        &[Seccomp],
        |a| {
            let (one, _other) = UnixDatagram::pair()?;
            one.send_to(b"x", a.targets.public.join("datagrams"))
                .map(drop)
        },
    ),
    attempt(
        "a datagram from a pair to an abstract socket",
        &[Seccomp, Namespaces, Scopes],
        |a| {
            let (one, _other) = UnixDatagram::pair()?;
            let name = format!("{}-datagrams", a.targets.name);
            one.send_to_addr(b"x", &UnixAddr::from_abstract_name(name)?)
                .map(drop)
        },
    ),
    attempt("bind the socket to the front anew", &[Seccomp], |_| {
        reach(libc::SYS_bind, &[0, 0, 0])
    }),
    attempt("connect the socket to the front anew", &[Seccomp], |_| {
        reach(libc::SYS_connect, &[0, 0, 0])
    }),
    attempt("accept on the socket to the front", &[Seccomp], |_| {
        reach(libc::SYS_accept4, &[0, 0, 0, 0])
    }),
    attempt("share the front's network", &[Namespaces], |a| {
        a.shares("net")
    }),
    attempt("share the front's IPC", &[Namespaces], |a| a.shares("ipc")),
    attempt("share the front's host name", &[Namespaces], |a| {
        a.shares("uts")
    }),
    attempt("share the front's mounts", &[Namespaces], |a| {
        a.shares("mnt")
    }),
];

impl Attacker {
    fn shares(&self, namespace: &str) -> io::Result<()> {
        let own = std::fs::read_link(format!("/proc/self/ns/{namespace}"))?;
        let mut fronts = self.targets.namespaces.iter();
        super::call::when(fronts.any(|(name, link)| name == namespace && *link == own))
    }
}

fn open(family: libc::c_int, kind: libc::c_int) -> io::Result<usize> {
    let descriptor = call(libc::SYS_socket, &[family as usize, kind as usize, 0])?;
    call(libc::SYS_close, &[descriptor])
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<()> {
    open(family, kind).map(drop)
}

/// The kernel may not have the family, and needs rights for some.
fn reached_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<()> {
    open(family, kind).map(drop)
}

fn raw_socket() -> io::Result<()> {
    let arguments =
        [libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP].map(|number| number as usize);
    let descriptor = call(libc::SYS_socket, &arguments)?;
    let sent = ping(descriptor);
    call(libc::SYS_close, &[descriptor])?;
    sent
}

/// Sends to an address of the machine's network; one of its own has no way there.
fn ping(descriptor: usize) -> io::Result<()> {
    let mut address = [0u8; 16];
    address[..8].copy_from_slice(&[2, 0, 0, 0, 127, 0, 0, 1]);
    let mut message = [8u8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let arguments = [
        descriptor,
        bytes(&mut message),
        size_of_val(&message),
        0,
        bytes(&mut address),
        16,
    ];
    call(libc::SYS_sendto, &arguments).map(drop)
}

fn datagram(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(b"x", ("127.0.0.1", port)).map(drop)
}
