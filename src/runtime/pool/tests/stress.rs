//! Many requests, of which some fail, leave or come late, while workers come and go: whoever stays is answered, and
//! nothing is left behind. What would hang here is a wake-up that was missed.

use proptest::prelude::*;

use super::*;

/// What one request is like.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// Waits for its answer.
    Stays,
    /// Makes its batch fail.
    Fails,
    /// Makes the session panic.
    Panics,
    /// Leaves before it is answered, or just when it is.
    Leaves,
    /// Has no time left.
    IsLate,
}

fn client() -> impl Strategy<Value = Client> {
    prop_oneof![
        20 => Just(Client::Stays),
        1 => Just(Client::Fails),
        1 => Just(Client::Panics),
        3 => Just(Client::Leaves),
        1 => Just(Client::IsLate),
    ]
}

/// One round: the clients, the batch size, and the number of workers after each quarter.
#[derive(Debug, Clone)]
struct Round {
    clients: Vec<Client>,
    batch_size: usize,
    workers: [usize; 4],
    is_quick: bool,
}

fn round() -> impl Strategy<Value = Round> {
    (
        prop::collection::vec(client(), 4..300),
        1usize..9,
        prop::array::uniform4(1usize..4),
        any::<bool>(),
    )
        .prop_map(|(clients, batch_size, workers, is_quick)| Round {
            clients,
            batch_size,
            workers,
            is_quick,
        })
}

async fn play(round: Round) {
    let backend = FakeBackend::new()
        .with_mark("x", Outcome::Fail)
        .with_mark("p", Outcome::Panic);
    let fixture = pool(backend, settings(round.batch_size, 1), 1).await;
    let mut requests = Vec::new();
    for (quarter, workers) in round
        .clients
        .chunks(round.clients.len().div_ceil(4))
        .zip(round.workers)
    {
        if round.is_quick {
            fixture.quicken();
        }
        for client in quarter {
            requests.push((*client, send(&fixture, *client)));
        }
        tokio::task::yield_now().await;
        fixture
            .supervisor
            .scale(Bounds::exactly(workers))
            .await
            .unwrap();
    }
    for (client, request) in requests {
        check(client, request.await);
    }
    // Those that were abandoned are looked at as well.
    fixture.queued(0).await;
}

fn send(fixture: &Fixture, client: Client) -> Request {
    match client {
        Client::Stays => fixture.send(b"a"),
        Client::Fails => fixture.send(b"x"),
        Client::Panics => fixture.send(b"p"),
        Client::IsLate => fixture.send_until(b"l", Instant::now()),
        Client::Leaves => {
            let request = fixture.send(b"g");
            let leaving = request.abort_handle();
            tokio::spawn(async move { leaving.abort() });
            request
        }
    }
}

fn check(client: Client, ended: Result<Result<Answer, Error>, tokio::task::JoinError>) {
    match client {
        Client::Stays => assert_eq!(marks(&ended.unwrap().unwrap().outputs), b"a"),
        Client::Fails | Client::Panics => {
            assert_eq!(kind(ended.unwrap()), Kind::InferenceFailed);
        }
        Client::IsLate => assert_eq!(kind(ended.unwrap()), Kind::Expired),
        Client::Leaves => {
            if let Ok(answer) = ended {
                assert_eq!(marks(&answer.unwrap().outputs), b"g");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_stays_is_answered(round in round(), threads in 1usize..4) {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        tokio.block_on(play(round));
    }
}
