//! How well this node knows the claims of blocks: as the store has them, or as it had them before it fell silent.

use std::time::Duration;

use bgp::Freshness;
use ipam::{Ipam, Standing};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::sources::ClusterUpdate;

/// How often it is looked after.
const PAUSE: Duration = Duration::from_secs(1);

/// The store is asked about this node's blocks once a minute at least: what it has not answered for so long is a silence.
const SILENCE: Duration = Duration::from_secs(180);

/// Says how well claims are known, with every change, for as long as somebody listens.
pub(crate) async fn follow(ipam: Ipam, grace: Duration, out: mpsc::Sender<ClusterUpdate>) {
    let mut said = None;
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let freshness = freshness(&ipam.standing().await, grace);
        if said != Some(freshness) {
            said = Some(freshness);
            if out.send(ClusterUpdate::Freshness(freshness)).await.is_err() {
                return;
            }
        }
    }
}

/// What the store's last word on this node's own blocks says of all: once nobody has heard it for the grace period, blocks may have
/// been taken back and claimed anew.
fn freshness(standing: &Standing, grace: Duration) -> Freshness {
    match standing.confirmed {
        Some(ago) if ago >= grace => Freshness::Expired,
        Some(ago) if ago < SILENCE && standing.answers => Freshness::Live,
        _ => Freshness::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_live_while_the_store_answers_and_expire_with_the_grace_period() {
        let grace = Duration::from_secs(3_600);
        let after = |secs, answers| {
            let confirmed = Some(Duration::from_secs(secs));
            freshness(&Standing { confirmed, answers, ..Standing::default() }, grace)
        };
        assert_eq!(after(60, true), Freshness::Live);
        assert_eq!(after(1, false), Freshness::Stale);
        assert_eq!(after(200, true), Freshness::Stale);
        assert_eq!(after(3_600, false), Freshness::Expired);
        assert_eq!(freshness(&Standing::default(), grace), Freshness::Stale, "never confirmed");
    }
}
