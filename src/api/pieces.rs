//! A body of pieces that are there already, so that none is copied to stand behind another.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

/// The body.
#[derive(Debug)]
pub(super) struct Pieces {
    left: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    /// A body of `pieces`, one after the other.
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let is_some = |piece: &Bytes| !piece.is_empty();
        Self {
            left: pieces.into_iter().filter(is_some).collect(),
            trailers: None,
        }
    }

    /// The same with `trailers` behind it.
    pub(super) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self {
            trailers: Some(trailers),
            ..self
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.left.pop_front().map(Frame::data);
        let frame = piece.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length: usize = self.left.iter().map(Bytes::len).sum();
        if self.trailers.is_none() {
            return SizeHint::with_exact(length as u64);
        }
        // What is exact is told in a header, which gRPC does not have.
        let mut hint = SizeHint::new();
        hint.set_lower(length as u64);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::header::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn pieces_come_in_order_and_trailers_last() {
        let pieces = ["one ", "", "two"].map(Bytes::from);
        let trailers = HeaderMap::from_iter([(hyper::header::ETAG, HeaderValue::from_static("x"))]);
        let body = Pieces::new(pieces.clone()).with_trailers(trailers.clone());
        assert_eq!(
            (body.size_hint().lower(), body.size_hint().exact()),
            (7, None)
        );
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), "one two");
        assert_eq!(Pieces::new(pieces).size_hint().exact(), Some(7));
        assert!(Pieces::new([]).is_end_stream());
    }
}
