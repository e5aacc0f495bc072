//! Where requests end on an HTTP/1 connection, and what leaves that in doubt.
//!
//! Two readers of the same bytes that see a request end at different places, such as a proxy and this server, let a
//! client hide one request in another. hyper takes several forms that others read differently, and hides them from the
//! API: lines that end with LF alone, a `Content-Length` beside a `Transfer-Encoding`, codings other than `chunked`, odd
//! lines between chunks. [`Framing`] reads along with hyper and finds them. It knows the bytes that frame requests, and
//! neither targets nor bodies; it makes no request and no answer.

/// Bytes that a line may have. Longer ones are over the limits of those who read them: of request lines and headers, of
/// chunk extensions and trailers.
const LINE_LIMIT: usize = 16 << 10;
/// Digits that the length of a chunk may have.
const CHUNK_DIGITS: usize = 16;
/// Header names of which the value says where the body ends.
const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// The place in the bytes of a connection, from its first request on.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    /// The beginning of a line of which the rest has not arrived.
    line: Vec<u8>,
    head: Head,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The rest of a line.
    Line(Kind),
    /// So many bytes of a body, then a line.
    Data(u64, Kind),
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first line of a request, or an empty one before it.
    Request,
    /// A header, or the empty line after the last.
    Header,
    /// The length of a chunk.
    ChunkLength,
    /// The empty line after a chunk.
    ChunkEnd,
    /// A header after the last chunk, or the empty line that ends the request.
    Trailer,
}

/// What a head has said so far of where its body ends.
#[derive(Debug, Default)]
struct Head {
    is_http_10: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// Why a request is refused: its end is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    /// How many of the bytes may be read. They do not complete a line.
    pub sound: usize,
    /// Whether the doubt is in the head of a request, and not in its body.
    pub is_in_head: bool,
    /// For the log.
    pub reason: &'static str,
}

impl Framing {
    /// The beginning of a connection.
    pub(super) const fn new() -> Self {
        Self {
            place: Place::Line(Kind::Request),
            line: Vec::new(),
            head: Head {
                is_http_10: false,
                length: None,
                is_chunked: false,
            },
        }
    }

    /// Reads the next bytes of the connection. After a doubt nothing of the connection may be read any more.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Doubt> {
        let mut sound = 0;
        while sound < bytes.len() {
            let rest = &bytes[sound..];
            sound += match self.place {
                Place::Line(kind) => self.read_line(kind, rest).map_err(|reason| Doubt {
                    sound,
                    is_in_head: matches!(kind, Kind::Request | Kind::Header),
                    reason,
                })?,
                Place::Data(left, then) => self.pass_data(left, then, rest.len()),
            };
        }
        Ok(())
    }

    /// Passes over data of a body, and returns how many bytes that were.
    fn pass_data(&mut self, left: u64, then: Kind, arrived: usize) -> usize {
        let passed = usize::try_from(left).map_or(arrived, |left| left.min(arrived));
        let left = left - passed as u64;
        self.place = match left {
            0 => Place::Line(then),
            left => Place::Data(left, then),
        };
        passed
    }

    /// Reads to the end of a line, if it has arrived, and returns how many bytes that were.
    fn read_line(&mut self, kind: Kind, bytes: &[u8]) -> Result<usize, &'static str> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let arrived = &bytes[..end.unwrap_or(bytes.len())];
        if self.line.len() + arrived.len() > LINE_LIMIT {
            return Err("a line is too long");
        }
        let Some(end) = end else {
            self.line.extend_from_slice(arrived);
            return Ok(bytes.len());
        };
        self.place = if self.line.is_empty() {
            self.head.after(kind, arrived)?
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(arrived);
            self.head.after(kind, &line)?
        };
        Ok(end + 1)
    }
}

impl Head {
    /// What comes after `line`, which has arrived up to its LF.
    fn after(&mut self, kind: Kind, line: &[u8]) -> Result<Place, &'static str> {
        let line = line
            .strip_suffix(b"\r")
            .ok_or("a line ends with LF alone")?;
        Ok(match kind {
            Kind::Request | Kind::Trailer if line.is_empty() => Place::Line(Kind::Request),
            Kind::Request => {
                *self = Self {
                    is_http_10: line.ends_with(b" HTTP/1.0"),
                    ..Self::default()
                };
                Place::Line(Kind::Header)
            }
            Kind::Header if line.is_empty() => self.body()?,
            Kind::Header => {
                self.read_header(line)?;
                Place::Line(Kind::Header)
            }
            Kind::ChunkLength => match chunk_length(line)? {
                0 => Place::Line(Kind::Trailer),
                length => Place::Data(length, Kind::ChunkEnd),
            },
            Kind::ChunkEnd if line.is_empty() => Place::Line(Kind::ChunkLength),
            Kind::ChunkEnd => return Err("a chunk is longer than its length"),
            Kind::Trailer => Place::Line(Kind::Trailer),
        })
    }

    /// Other headers, and those that are none, are hyper's business.
    fn read_header(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if let Some(value) = value_of(CONTENT_LENGTH, line) {
            let length = content_length(value).ok_or("Content-Length is not one number")?;
            if self.length.replace(length).is_some() {
                return Err("there are two headers Content-Length");
            }
        }
        if let Some(value) = value_of(TRANSFER_ENCODING, line) {
            if self.is_http_10 {
                return Err("HTTP/1.0 has no Transfer-Encoding");
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("Transfer-Encoding is not chunked alone");
            }
            if std::mem::replace(&mut self.is_chunked, true) {
                return Err("there are two headers Transfer-Encoding");
            }
        }
        Ok(())
    }

    /// What comes after the head.
    fn body(&self) -> Result<Place, &'static str> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => Err("there are both Content-Length and Transfer-Encoding"),
            (None, true) => Ok(Place::Line(Kind::ChunkLength)),
            (None | Some(0), false) => Ok(Place::Line(Kind::Request)),
            (Some(length), false) => Ok(Place::Data(length, Kind::Request)),
        }
    }
}

/// The value of the header, without the white space around it, if that is its name. `name` ends with a colon.
fn value_of<'l>(name: &[u8], line: &'l [u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| trimmed(value))
}

fn content_length(value: &[u8]) -> Option<u64> {
    let is_number = value.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    value.parse().ok()
}

/// The length that the line before a chunk tells. Extensions are of printable characters.
fn chunk_length(line: &[u8]) -> Result<u64, &'static str> {
    let (digits, extensions) = match line.iter().position(|byte| *byte == b';') {
        Some(at) => (trimmed_end(&line[..at]), &line[at..]),
        None => (line, &[][..]),
    };
    let is_number =
        (1..=CHUNK_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_number || !extensions.iter().copied().all(is_printable) {
        return Err("the line before a chunk is not its length");
    }
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| "the line before a chunk is not its length")
}

/// Without the white space that HTTP allows around a value.
fn trimmed(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|byte| !is_space(*byte));
    trimmed_end(&value[start.unwrap_or(value.len())..])
}

fn trimmed_end(value: &[u8]) -> &[u8] {
    let last = value.iter().rposition(|byte| !is_space(*byte));
    &value[..last.map_or(0, |last| last + 1)]
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn is_printable(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests;
