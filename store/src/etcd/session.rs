//! A session: one lease, kept alive until it is ended, dropped or lost.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Calls;
use super::endpoints::CallError;
use super::watch::new_backoff;
use crate::session::Keeper;
use crate::{Session, SessionId, StoreError};

/// Grants a lease of at least `ttl`, in whole seconds, and gives with it the future that keeps it alive.
pub(super) async fn open(
    calls: Arc<Calls>,
    ttl: Duration,
) -> Result<(Session, impl Future<Output = ()> + Send + 'static), StoreError> {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).max(1);
    let asked = Instant::now();
    let grant = |client: etcd_client::Client| async move { client.lease_client().grant(seconds, None).await };
    let granted = calls.endpoints.repeatable(grant).await?;
    // etcd may give more than was asked for: no less than its election timeout allows.
    let ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(1));
    let (session, keeper) = Session::new(SessionId::new(granted.id()));
    Ok((session, keep(calls, keeper, ttl, asked + ttl)))
}

/// `expires`: etcd does not let the lease go before this.
async fn keep(calls: Arc<Calls>, mut keeper: Keeper, ttl: Duration, mut expires: Instant) {
    let mut backoff = new_backoff();
    let mut pause = ttl / 3;
    loop {
        tokio::select! {
            end = &mut keeper.end => {
                if let Ok(reply) = end {
                    // Nobody takes the answer where the caller has stopped waiting.
                    let _ = reply.send(revoke(&calls, keeper.id).await);
                }
                return;
            }
            () = tokio::time::sleep(pause) => {}
        }
        let asked = Instant::now();
        match tokio::time::timeout_at(expires, is_kept(&calls, keeper.id)).await {
            Ok(Ok(true)) => {
                expires = asked + ttl;
                backoff.reset();
                pause = ttl / 3;
            }
            Ok(Err(_)) if Instant::now() < expires => pause = backoff.delay().min(expires - Instant::now()),
            Ok(Ok(false) | Err(_)) | Err(_) => {
                tracing::warn!(session = %keeper.id, "the lease in etcd is lost: what was written under it has gone, or will go");
                keeper.lost.cancel();
                return;
            }
        }
    }
}

/// Keeps the lease alive once; false: etcd does not know it any more.
async fn is_kept(calls: &Calls, session: SessionId) -> Result<bool, StoreError> {
    let id = session.id();
    let keep = |client: etcd_client::Client| async move {
        let mut leases = client.lease_client();
        match leases.keep_alive(id).await {
            Ok(_) => Ok(true),
            // The client says this of an expired lease and of a broken stream alike.
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(leases.time_to_live(id, None).await?.ttl() > 0),
            Err(error) => Err(error),
        }
    };
    match calls.endpoints.repeatable(keep).await {
        Err(CallError::NotFound) => Ok(false),
        other => Ok(other?),
    }
}

async fn revoke(calls: &Calls, session: SessionId) -> Result<(), StoreError> {
    let id = session.id();
    let revoke = |client: etcd_client::Client| async move { client.lease_client().revoke(id).await.map(drop) };
    match calls.endpoints.repeatable(revoke).await {
        // The lease has expired already, which is what was wanted.
        Err(CallError::NotFound) => Ok(()),
        other => Ok(other?),
    }
}
