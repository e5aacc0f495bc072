//! Where messages begin and end in the bytes of a call, as gRPC frames them: a byte that says whether the message is
//! compressed, four bytes of its length, and the message.

/// The most bytes that one compressed byte unpacks to, in gzip and deflate.
const MOST_RATIO: usize = 1032;
const HEAD: usize = 5;

/// A place in the bytes of a call.
#[derive(Debug, Default)]
pub(super) struct Framing {
    head: [u8; HEAD],
    /// Bytes of the head that were seen.
    seen: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Framing {
    /// Goes on behind `piece`. Returns how many bytes the messages that begin in it may have more than were sent, because they are
    /// compressed; each has at most `limit` bytes.
    pub(super) fn take(&mut self, mut piece: &[u8], limit: usize) -> usize {
        let mut unpacked = 0;
        while !piece.is_empty() {
            if self.left > 0 {
                piece = self.skip(piece);
                continue;
            }
            self.head[self.seen] = piece[0];
            self.seen += 1;
            piece = &piece[1..];
            if self.seen == HEAD {
                let [flag, a, b, c, d] = self.head;
                let length =
                    usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                (self.seen, self.left) = (0, length);
                if flag != 0 {
                    unpacked += length.saturating_mul(MOST_RATIO).min(limit);
                }
            }
        }
        unpacked
    }

    fn skip<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let count = self.left.min(piece.len());
        self.left -= count;
        &piece[count..]
    }

    /// Whether no message has begun that is not all there.
    pub(super) const fn is_between_messages(&self) -> bool {
        self.seen == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(is_compressed: bool, length: usize) -> Vec<u8> {
        let mut bytes = vec![u8::from(is_compressed)];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(HEAD + length, 1);
        bytes
    }

    #[test]
    fn compressed_messages_may_become_large() {
        let mut framing = Framing::default();
        assert_eq!(framing.take(&message(false, 100), 1 << 20), 0);
        assert_eq!(framing.take(&message(true, 100), 1 << 20), 100 * MOST_RATIO);
        assert_eq!(framing.take(&message(true, 10_000), 1 << 20), 1 << 20);
        assert!(framing.is_between_messages());
    }

    proptest! {
        #[test]
        fn messages_end_where_they_end_however_they_are_cut(
            lengths in prop::collection::vec(0usize..40, 1..8),
            cuts in prop::collection::vec(1usize..20, 1..40),
        ) {
            let mut ends = Vec::new();
            let mut bytes = Vec::new();
            for length in lengths {
                bytes.extend(message(false, length));
                ends.push(bytes.len());
            }
            let (mut framing, mut at) = (Framing::default(), 0);
            for cut in cuts.into_iter().cycle() {
                let end = (at + cut).min(bytes.len());
                framing.take(&bytes[at..end], 100);
                at = end;
                prop_assert_eq!(framing.is_between_messages(), ends.contains(&at));
                if at == bytes.len() {
                    break;
                }
            }
        }
    }
}
