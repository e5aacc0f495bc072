//! Zip files written byte by byte: a zip library would refuse to write most of these.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// One entry, each of whose fields can be set to a false value.
#[derive(Debug, Clone)]
pub struct RawEntry {
    name: Vec<u8>,
    local_name: Vec<u8>,
    content: Vec<u8>,
    crc: u32,
    method: u16,
    flags: u16,
    mode: u32,
    size: u32,
}

impl RawEntry {
    /// A stored file.
    pub fn new(name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            local_name: name.as_ref().to_vec(),
            content: content.to_vec(),
            crc: crc(content),
            method: 0,
            flags: 0,
            mode: 0o100_644,
            size: u32::try_from(content.len()).unwrap(),
        }
    }

    /// A deflated file.
    pub fn deflated(name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        Self {
            content: encoder.finish().unwrap(),
            method: 8,
            ..Self {
                crc: crc(content),
                ..Self::new(name, content)
            }
        }
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub fn method(mut self, method: u16) -> Self {
        self.method = method;
        self
    }

    pub fn declared(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    pub fn local_name(mut self, name: &str) -> Self {
        self.local_name = name.into();
        self
    }

    fn common(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [20, self.flags, self.method, 0, 0x21] {
            bytes.extend(field.to_le_bytes());
        }
        let compressed = u32::try_from(self.content.len()).unwrap();
        for field in [self.crc, compressed, self.size] {
            bytes.extend(field.to_le_bytes());
        }
        bytes
    }

    fn local(&self) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend(self.common());
        bytes.extend(u16::try_from(self.local_name.len()).unwrap().to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(&self.local_name);
        bytes.extend(&self.content);
        bytes
    }

    fn central(&self, offset: u32) -> Vec<u8> {
        let mut bytes = b"PK\x01\x02\x14\x03".to_vec();
        bytes.extend(self.common());
        bytes.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend((self.mode << 16).to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(&self.name);
        bytes
    }
}

fn crc(content: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(content);
    crc.sum()
}

/// A zip of these entries.
pub fn zip(entries: &[RawEntry]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        directory.extend(entry.central(u32::try_from(bytes.len()).unwrap()));
        bytes.extend(entry.local());
    }
    let start = u32::try_from(bytes.len()).unwrap();
    let count = u16::try_from(entries.len()).unwrap();
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// A zip whose end record claims a million entries.
pub fn million_entries() -> Vec<u8> {
    let count: u64 = 1_000_000;
    let mut bytes = vec![0; usize::try_from(46 * count).unwrap()];
    let end = bytes.len() as u64;
    bytes[..4].copy_from_slice(b"PK\x01\x02");
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0]);
    bytes.extend([0; 8]);
    for field in [count, count, end, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(end.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0; 2]);
    bytes
}
