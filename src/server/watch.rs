//! Files that may change while the server runs: a certificate that was renewed, keys that were replaced.
//!
//! They are looked at once a second. Notification by the kernel would miss what secrets in Kubernetes do (a link that
//! moves two directories up) or need as much code as there is in the rest of this module.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::listen::{Certificates, ClientAuthorities};
use crate::tenants::Tenants;
use crate::token::Tokens;

const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written down what tenants used.
const NOTED: Duration = Duration::from_secs(5);

/// Takes new certificates into use until `stop`.
pub(super) async fn certificates(certificates: Arc<Certificates>, stop: CancellationToken) {
    let look = move || match certificates.refresh() {
        Ok(true) => tracing::info!("The certificate has changed: it is used from now on."),
        Ok(false) => {}
        Err(error) => tracing::warn!("The certificate stays what it was: {error}"),
    };
    every_second(look, stop).await;
}

/// Takes new authorities of clients into use until `stop`.
pub(super) async fn clients(clients: Arc<ClientAuthorities>, stop: CancellationToken) {
    let look = move || match clients.refresh() {
        Ok(true) => {
            tracing::info!("The authorities of clients have changed: they hold from now on.");
        }
        Ok(false) => {}
        Err(error) => tracing::warn!("The authorities of clients stay what they were: {error}"),
    };
    every_second(look, stop).await;
}

/// Takes new keys of the operator's into use until `stop`.
pub(super) async fn keys(tokens: Arc<Tokens>, stop: CancellationToken) {
    let look = move || match tokens.refresh() {
        Ok(true) => tracing::info!("The file of keys has changed: it holds from now on."),
        Ok(false) => {}
        Err(error) => tracing::warn!("The keys stay what they were: {error}"),
    };
    every_second(look, stop).await;
}

/// Takes another file of tenants into use until `stop`.
pub(super) async fn tenants(tenants: Arc<Tenants>, stop: CancellationToken) {
    let others = Arc::clone(&tenants);
    // A panic was logged where it happened.
    let _ = tokio::task::spawn_blocking(move || others.clear_others()).await;
    let (swept, looked) = (Arc::clone(&tenants), Arc::clone(&tenants));
    let sweeping = every_second(move || swept.sweep(), stop.clone());
    let look = move || match looked.refresh() {
        Ok(true) => tracing::info!("The file of tenants has changed: it holds from now on."),
        Ok(false) => {}
        Err(problems) => tracing::error!("The tenants stay what they were: {problems}"),
    };
    let note = move || {
        tenants.note_usage();
        tenants.place_processes();
    };
    let noting = every(NOTED, note, stop.clone());
    tokio::join!(every_second(look, stop), sweeping, noting);
}

/// Calls `look`, which may block, until `stop`.
async fn every_second(look: impl Fn() + Clone + Send + 'static, stop: CancellationToken) {
    every(INTERVAL, look, stop).await;
}

/// Calls `look`, which may block, in such intervals until `stop`.
async fn every(
    interval: Duration,
    look: impl Fn() + Clone + Send + 'static,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A panic was logged where it happened; the next look may do better.
        let _ = tokio::task::spawn_blocking(look.clone()).await;
    }
}
