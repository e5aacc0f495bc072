//! Instances and compiled code over time: reuse, recycling, cancellation, concurrency, the cache.

use std::fs;
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};

use super::fixture::{Fixture, raw};
use super::*;

#[tokio::test]
async fn a_dropped_call_leaves_the_handler_usable() {
    let handler = Fixture::new("hostile").load().await.unwrap();
    let request = raw("loop");
    let mut call = Box::pin(handler.preprocess(&request));
    assert!(poll_immediate(&mut call).await.is_none());
    drop(call);
    let request = raw("done");
    assert!(handler.preprocess(&request).await.is_ok());
}

#[tokio::test]
async fn a_long_call_lets_others_run_on_the_same_thread() {
    let handler = Fixture::new("hostile").load().await.unwrap();
    let [long, short] = ["loop", "done"].map(raw);
    let mut long = Box::pin(handler.preprocess(&long));
    assert!(poll_immediate(&mut long).await.is_none());
    assert!(handler.preprocess(&short).await.is_ok());
    assert_eq!(long.await.unwrap_err().kind(), Kind::HandlerTimedOut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_all_answered() {
    let mut fixture = Fixture::new("linear");
    fixture.limits.instances = 3;
    let handler = fixture.load().await.unwrap();
    let calls = (0..200).map(|_| {
        let handler = handler.clone();
        tokio::spawn(async move { infer(&handler, ROW).await.inputs[0].tensor.rows() })
    });
    for rows in join_all(calls).await {
        assert_eq!(rows.unwrap(), Some(1));
    }
    assert!(handler.version.pool.idle() <= 3);
}

#[tokio::test]
async fn an_instance_is_used_again_until_it_is_worn() {
    let handler = Fixture::new("linear").load().await.unwrap();
    infer(&handler, ROW).await;
    assert_eq!(handler.version.pool.idle(), 1);
    let mut lease = Lease::take(&handler.version).await.unwrap();
    assert!(lease.instance().is_usable());
    lease.instance().wear_out();
    assert!(!lease.instance().is_usable());
    lease.give_back();
    assert_eq!(handler.version.pool.idle(), 0);
    infer(&handler, ROW).await;
    assert!(handler.version.pool.idle() >= 1);
}

#[tokio::test]
async fn an_instance_near_its_memory_limit_is_not_used_again() {
    let mut fixture = Fixture::new("hostile");
    fixture.limits.memory = 16 << 20;
    let handler = fixture.load().await.unwrap();
    handler.preprocess(&raw("carry 13000000")).await.unwrap();
    assert_eq!(handler.version.pool.idle(), 0);
}

#[tokio::test]
async fn an_instance_that_has_grown_is_kept_as_long_as_it_is_needed() {
    let mut fixture = Fixture::new("hostile");
    fixture.limits.memory = 64 << 20;
    let handler = fixture.load().await.unwrap();
    let pool = &handler.version.pool;
    tokio::time::pause();
    let wait = || tokio::time::sleep(Duration::from_secs(11));
    handler.preprocess(&raw("carry 3")).await.unwrap();
    wait().await;
    assert_eq!((pool.idle(), pool.grown()), (1, 0));
    // Somebody looks after the next one, too.
    for _ in 0..2 {
        handler.preprocess(&raw("carry 13000000")).await.unwrap();
        for _ in 0..11 {
            assert_eq!(pool.grown(), 1, "it is needed");
            tokio::time::sleep(Duration::from_secs(1)).await;
            handler.preprocess(&raw("carry 3")).await.unwrap();
        }
        wait().await;
        assert_eq!((pool.idle(), pool.grown()), (1, 0), "one in its place");
    }
}

#[tokio::test]
async fn a_lost_instance_is_replaced_off_the_request_path() {
    let handler = Fixture::new("hostile").load().await.unwrap();
    handler.preprocess(&raw("trap")).await.unwrap_err();
    while handler.version.pool.idle() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn fresh_instances_are_used_once() {
    let mut fixture = Fixture::new("linear");
    fixture.settings.fresh_instances = true;
    let handler = fixture.load().await.unwrap();
    for _ in 0..3 {
        let mut lease = Lease::take(&handler.version).await.unwrap();
        assert_eq!(lease.instance().calls(), 1);
        lease.give_back();
    }
}

#[tokio::test]
async fn large_outputs_arrive_behind_handles() {
    let handler = Fixture::new("linear").load().await.unwrap();
    let prepared = infer(&handler, ROW).await;
    let values = vec![0.5; (lower::INLINE_LIMIT / 4) + 1];
    let response = handler
        .postprocess(
            "r",
            &Meter::default(),
            vec![output(&values)],
            prepared.carry,
        )
        .await
        .unwrap();
    assert_eq!(
        response.body().len(),
        r#"{"y":[]}"#.len() + values.len() * 4 - 1
    );
}

#[test]
fn what_is_no_component_does_not_compile() {
    let code = wasmtime::Engine::default()
        .precompile_component(b"\0asm\x0d\0\x01\0")
        .unwrap();
    for (wasm, says) in [
        (&b"not wasm"[..], "is not a WebAssembly component"),
        (b"\0asm\x01\0\0\0", "is a core module"),
        (b"\0asm\x0d\0\x01\0", "exports no lantern:handler/pipeline"),
        (&code, "is compiled already"),
    ] {
        let reason = compile(wasm).unwrap_err();
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn a_real_handler_is_described_without_compiling() {
    let fixture = Fixture::new("linear");
    let info = inspect(&fs::read(fixture.directory.path().join("handler.wasm")).unwrap()).unwrap();
    assert_eq!(info.world, Some("handler"));
    assert_eq!(info.forbidden, [""; 0]);
    let exports = ["describe", "pipeline"].map(|name| format!("lantern:handler/{name}@0.1.1"));
    assert_eq!(info.exports, exports);
    assert!(
        info.imports
            .iter()
            .any(|import| import == "lantern:handler/types@0.1.1")
    );
    assert!(info.modules >= 1 && info.functions > 10 && info.largest_function > 100);
}
