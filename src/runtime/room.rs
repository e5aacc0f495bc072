//! Where a large body is gathered while it arrives.

use bytes::{Bytes, BytesMut};

use super::shared::Gathered;

/// Memory for one body. What is gathered in memory that a worker process sees need not be copied to hand it over.
#[derive(Debug)]
pub enum Room {
    /// In memory of this process.
    Own(BytesMut),
    /// In memory that it shares with the worker process of the body's model, which may write there at any time: the bytes may be
    /// handed on and copied, and nothing else.
    Shared(Gathered),
}

impl Room {
    /// Room for `length` bytes in memory of this process.
    pub fn own(length: usize) -> Self {
        Self::Own(BytesMut::with_capacity(length))
    }

    /// Adds a piece of the body. A body that is longer than was said goes on in memory of this process.
    pub fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Own(bytes) => bytes.extend_from_slice(piece),
            Self::Shared(gathered) => {
                if !gathered.push(piece) {
                    let so_far: &[u8] = (*gathered).as_ref();
                    let mut bytes = BytesMut::with_capacity(so_far.len() + piece.len());
                    bytes.extend_from_slice(so_far);
                    bytes.extend_from_slice(piece);
                    *self = Self::Own(bytes);
                }
            }
        }
    }

    /// All pieces, one after the other.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Own(bytes) => bytes.freeze(),
            Self::Shared(gathered) => Bytes::from_owner(gathered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::shared::Regions;

    #[test]
    fn a_body_is_whole_wherever_it_is_gathered_and_however_long_it_becomes() {
        let ends = Regions::new(1 << 20).unwrap().of_front().unwrap();
        let rooms = [Room::own(6), Room::Shared(ends.out.gather(6).unwrap())];
        for mut room in rooms {
            for piece in ["one ", "two", " three"] {
                room.push(piece.as_bytes());
            }
            assert_eq!(room.into_bytes(), "one two three");
        }
        assert_eq!(ends.out.used(), 0);
    }

    #[test]
    fn a_gathered_body_is_in_use_until_both_processes_are_done_with_it() {
        let ends = Regions::new(1 << 20).unwrap().of_front().unwrap();
        let mut room = Room::Shared(ends.out.gather(7).unwrap());
        room.push(b"one two");
        let body = room.into_bytes();
        let tail = body.slice(4..);
        let place = ends.out.put(&[&body[..4], &tail]).unwrap();
        assert_eq!(place.length, 7);
        let copy = ends.out.put(&[&body]).unwrap();
        assert_ne!(copy.offset, place.offset, "one process reads a place once");
        assert!(ends.out.give_back(copy.offset));
        drop(body);
        assert!(ends.out.give_back(place.offset));
        assert!(ends.out.used() > 0);
        drop(tail);
        assert_eq!(ends.out.used(), 0);
    }
}
