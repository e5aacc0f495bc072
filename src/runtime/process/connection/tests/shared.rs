//! Bodies in memory that both sides map.

use super::*;
use crate::payload::{Meter, Output, Response};
use crate::runtime::shared::{Arena, Place, Regions, SHARED_FROM};
use crate::tensor::{DType, NamedTensor, Tensor};

const SIZE: usize = 1 << 20;

/// A front, its peer, and what the peer writes to and reads from.
fn sharing() -> (Front, Peer, Ends) {
    let regions = Regions::new(SIZE).unwrap();
    let (front, peer) = pair_with(Some(regions.of_front().unwrap()));
    (front, peer, regions.of_worker().unwrap())
}

fn with_body(body: Body) -> Request {
    Request {
        body,
        ..request("a")
    }
}

impl Front {
    /// Bytes of memory in use where it writes.
    fn used(&self) -> usize {
        self.connection.outbox.used()
    }

    fn ask(&self, body: Body) -> JoinHandle<Result<Result<Reply, Error>, Lost>> {
        let (connection, request) = (self.connection.clone(), with_body(body));
        tokio::spawn(async move { connection.call(&request, false).await })
    }
}

impl Peer {
    async fn release(&mut self, offset: u64) {
        self.send(&Report::Released { offset }, b"").await;
    }

    /// Answers with a body of shared memory.
    async fn reply_at(&mut self, id: u64, status: u16, place: Place) {
        let response = Response::new(status, "text/plain".to_owned(), vec![], Bytes::new());
        let reply = Reply {
            output: Output::Response(response.unwrap()),
            ..reply()
        };
        self.answer_at(&reply_to_wire(id, &reply, Spent::default()).0, place)
            .await;
    }

    /// Sends an answer whose body lies in shared memory.
    async fn answer_at(&mut self, report: &Report<&str>, place: Place) {
        let mut bytes = Vec::new();
        let body = frame::Body::Shared(place);
        frame::encode(&mut bytes, ORDER_LIMITS, report, body).unwrap();
        self.write(&bytes).await;
    }
}

/// Writes `text` in place of what the front was told of.
fn rewrite(arena: &Arena, place: Place, text: &[u8]) {
    assert!(arena.give_back(place.offset));
    assert_eq!(arena.put(&[text]), Some(place));
}

fn tensors() -> Body {
    let tensor = Tensor::new(DType::U8, vec![1], Bytes::from_static(b"x"));
    Body::Tensors(vec![NamedTensor::new("x", tensor.unwrap())])
}

#[tokio::test]
async fn large_bodies_are_shared_until_the_process_releases_them_and_small_ones_are_not() {
    let (front, mut peer, ends) = sharing();
    peer.greet().await;
    for (length, is_shared) in [(SHARED_FROM - 1, false), (SHARED_FROM, true)] {
        let body = vec![b'x'; length];
        let call = front.ask(Body::Raw(body.clone().into()));
        let (order, received) = peer.next().await;
        let Order::Call(sent) = order else {
            panic!("no call, but {order:?}")
        };
        match received {
            frame::ReadBody::Here(bytes) => assert_eq!((bytes, is_shared), (body.into(), false)),
            frame::ReadBody::Shared(place) => {
                assert!(is_shared);
                assert_eq!(ends.into.bytes(place).unwrap(), body);
                assert!(front.connection.outbox.released(place.offset));
            }
        }
        peer.reply(sent.id, b"").await;
        call.await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_body_for_which_there_is_no_room_goes_through_the_socket() {
    let (front, mut peer, _ends) = sharing();
    peer.greet().await;
    let half = Bytes::from(vec![1; SIZE / 2]);
    let calls: Vec<_> = (0..3).map(|_| front.ask(Body::Raw(half.clone()))).collect();
    let mut shared = 0;
    for _ in &calls {
        let (order, body) = peer.next().await;
        let Order::Call(call) = order else {
            panic!("no call, but {order:?}")
        };
        match body {
            frame::ReadBody::Here(bytes) => assert_eq!(bytes, half),
            frame::ReadBody::Shared(_) => shared += 1,
        }
        peer.reply(call.id, b"").await;
    }
    assert_eq!(shared, 2);
    for call in calls {
        call.await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_passed_on_is_not_copied_and_is_released_when_it_is_sent() {
    let (front, mut peer, ends) = sharing();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    let place = ends.out.put(&[b"answer"]).unwrap();
    peer.reply_at(id, 200, place).await;
    let response = call.await.unwrap().unwrap().unwrap();
    let body = response.into_response().unwrap().into_body();
    assert_eq!(body, "answer");
    // Where nothing else is sent, somebody tidies up.
    drop(body);
    front.connection.tidy();
    let offset = place.offset;
    assert_eq!(peer.order().await, Order::Released { offset });
}

#[tokio::test]
async fn what_the_front_reads_of_an_answer_does_not_change_any_more() {
    for (body, status) in [(Body::Raw("x".into()), 400), (tensors(), 200)] {
        let (front, mut peer, ends) = sharing();
        peer.greet().await;
        let call = front.ask(body);
        let id = peer.call().await.id;
        let place = ends.out.put(&[b"one"]).unwrap();
        peer.reply_at(id, status, place).await;
        let reply = call.await.unwrap().unwrap().unwrap();
        rewrite(&ends.out, place, b"two");
        assert_eq!(reply.into_response().unwrap().into_body(), "one");
    }
}

#[tokio::test]
async fn tensors_that_a_process_gives_do_not_change_any_more() {
    let (front, mut peer, ends) = sharing();
    peer.greet().await;
    let call = front.ask(tensors());
    let id = peer.call().await.id;
    let place = ends.out.put(&[&[1]]).unwrap();
    let tensor = Tensor::new(DType::Bool, vec![1], Bytes::from_static(&[1])).unwrap();
    let reply = Reply {
        output: Output::Tensors(vec![NamedTensor::new("y", tensor.clone())]),
        ..reply()
    };
    peer.answer_at(&reply_to_wire(id, &reply, Spent::default()).0, place)
        .await;
    let received = call.await.unwrap().unwrap().unwrap();
    rewrite(&ends.out, place, &[7]);
    assert_eq!(received.output, reply.output);
}

#[tokio::test]
async fn tensors_that_are_passed_on_stay_where_they_are_unless_they_have_to_be_looked_at() {
    for (dtype, stays) in [(DType::F32, true), (DType::U8, true), (DType::Bool, false)] {
        let (front, mut peer, ends) = sharing();
        peer.greet().await;
        let request = Request {
            passes_tensors_on: true,
            meter: Meter::default(),
            ..with_body(tensors())
        };
        let connection = front.connection.clone();
        let call = tokio::spawn(async move { connection.call(&request, false).await });
        let id = peer.call().await.id;
        let place = ends.out.put(&[&[1; 4]]).unwrap();
        let shape = vec![4 / dtype.size().unwrap()];
        let tensor = Tensor::new(dtype, shape, Bytes::from_static(&[1; 4])).unwrap();
        let reply = Reply {
            output: Output::Tensors(vec![NamedTensor::new("y", tensor)]),
            ..reply()
        };
        peer.answer_at(&reply_to_wire(id, &reply, Spent::default()).0, place)
            .await;
        let received = call.await.unwrap().unwrap().unwrap();
        rewrite(&ends.out, place, &[0; 4]);
        let Output::Tensors(tensors) = received.output else {
            panic!("{received:?}")
        };
        assert_eq!(tensors[0].tensor.data() == &[0; 4][..], stays, "{dtype}");
    }
}

#[tokio::test]
async fn a_body_that_was_gathered_where_the_process_sees_it_is_not_copied() {
    let (front, mut peer, ends) = sharing();
    peer.greet().await;
    assert!(front.connection.gather(SHARED_FROM - 1).is_none(), "small");
    let mut gathered = front.connection.gather(SHARED_FROM).unwrap();
    assert!(gathered.push(&vec![b'x'; SHARED_FROM]));
    let body = Bytes::from_owner(gathered);
    let used = front.used();
    let call = front.ask(Body::Raw(body.clone()));
    let (order, received) = peer.next().await;
    let (Order::Call(sent), frame::ReadBody::Shared(place)) = (order, received) else {
        panic!("no call with a shared body")
    };
    assert_eq!(front.used(), used);
    assert_eq!(ends.into.bytes(place).unwrap(), body);
    drop(body);
    peer.release(place.offset).await;
    peer.reply(sent.id, b"").await;
    call.await.unwrap().unwrap().unwrap();
    assert_eq!(front.used(), 0);
}

#[tokio::test]
async fn what_a_process_says_of_memory_that_it_does_not_have_ends_the_connection() {
    let size = SIZE as u64;
    for (offset, length) in [(size, 1), (1, size), (u64::MAX, u64::MAX)] {
        let (front, mut peer, _ends) = sharing();
        peer.greet().await;
        let _call = front.call("a");
        let id = peer.call().await.id;
        peer.reply_at(id, 200, Place { offset, length }).await;
        front.violation().await;
    }
    let (front, mut peer) = pair();
    peer.greet().await;
    let place = Place {
        offset: 0,
        length: 0,
    };
    peer.reply_at(0, 200, place).await;
    assert!(front.violation().await.starts_with("no shared memory has"));
}

#[tokio::test]
async fn what_a_process_did_not_get_it_cannot_release() {
    for offset in [0, 4096, u64::MAX] {
        let (front, mut peer, _ends) = sharing();
        peer.greet().await;
        peer.release(offset).await;
        let expected = format!("nothing was shared at {offset}");
        assert_eq!(front.violation().await, expected);
    }
    let (front, mut peer) = pair();
    peer.greet().await;
    peer.release(0).await;
    assert_eq!(front.violation().await, "nothing was shared at 0");
}
