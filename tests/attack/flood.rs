//! A process that says that it has loaded its version, as any does, and then sends the front far more than it may.
//!
//! Its messages are written out here byte by byte, as native code would do that has taken a process over: frames of two
//! lengths and a header in postcard's encoding.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

use crate::report::Flood;

/// Bytes of the greeting, which is the same both ways.
const GREETING: usize = 8;

/// Bytes that are written at once.
const PORTION: usize = 256 << 10;

/// Workers in a list.
const WORKERS: u32 = 4096;

/// Bytes of a text that is too long.
const LONG: usize = 250_000;

/// Floods the front until it does not read any more.
pub fn flood(flood: Flood) -> io::Result<()> {
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut greeting = [0; GREETING];
    read_all(&mut socket, &mut greeting)?;
    write_all(&mut socket, &greeting)?;
    write_all(&mut socket, &frame(&ready()))?;
    let message = frame(&message(flood));
    let portion = message.repeat((PORTION / message.len()).max(1));
    loop {
        write_all(&mut socket, &portion)?;
    }
}

/// The socket does not block: waits until there is something.
fn read_all(socket: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes everything, as fast as it is read.
fn write_all(socket: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A header behind its lengths, without a body.
fn frame(header: &[u8]) -> Vec<u8> {
    let length = (header.len() as u32).to_le_bytes();
    [&length[..], &length, header].concat()
}

/// The version is loaded: nothing is known of its inputs and outputs, and there is one worker.
fn ready() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 0, 1];
    worker(&mut message, 0);
    message
}

fn message(flood: Flood) -> Vec<u8> {
    let long = "x".repeat(LONG);
    let mut message = Vec::new();
    match flood {
        Flood::Workers => {
            message.push(6);
            number(&mut message, WORKERS);
            (0..WORKERS).for_each(|id| worker(&mut message, id));
        }
        Flood::Lines => line(&mut message, "a line of a log, as any is", "value"),
        Flood::LongLines => line(&mut message, &long, &long),
        Flood::Observations => observation(&mut message, "value"),
        Flood::LongLabels => observation(&mut message, &long),
        Flood::SignsOfLife => message.extend([11, 0, 0]),
    }
    message
}

/// One that takes jobs on the processor.
fn worker(message: &mut Vec<u8>, id: u32) {
    number(message, id);
    message.extend([0, 1]);
}

/// A warning with one field.
fn line(message: &mut Vec<u8>, what: &str, value: &str) {
    message.extend([7, 3]);
    text(message, what);
    message.push(1);
    text(message, "field");
    text(message, value);
    text(message, "");
}

/// A counter with one label.
fn observation(message: &mut Vec<u8>, value: &str) {
    message.push(8);
    text(message, "flood");
    message.push(0);
    text(message, "count");
    message.push(1);
    text(message, "label");
    message.push(1);
    text(message, value);
    message.extend(1f64.to_le_bytes());
    text(message, "");
}

fn text(message: &mut Vec<u8>, text: &str) {
    number(message, text.len() as u32);
    message.extend(text.as_bytes());
}

/// Seven bits a byte, the lowest first.
fn number(message: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}
