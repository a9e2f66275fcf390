//! The speaker's own values as the messages of the local API.

use std::time::Instant;

use bgp_proto::wire::Families;
use bgp_proto::{PeerConfig, PeerEvent, PeerStatus, Source};
use types::api::{self, PathView, RejectedRoute, RouteView};
use types::{Family, Hops, SessionState};

/// A peer as the local API shows it.
pub(crate) fn peer(status: &PeerStatus<'_>, now: Instant) -> api::PeerStatus {
    let count = |of: fn(&bgp_proto::RouteCounts) -> u32| -> u64 {
        Family::ALL.iter().map(|family| u64::from(of(status.routes.of(*family)))).sum()
    };
    let not_kept: u64 = Family::ALL.iter().map(|family| *status.not_kept.of(*family)).sum();
    // A refused route is one that was offered, kept or not.
    let (received, refused) = (count(|routes| routes.received) + not_kept, count(|routes| routes.refused) + not_kept);
    let families = status.negotiated.map_or(status.config.families, |terms| terms.families);
    api::PeerStatus {
        address: status.config.address,
        port: status.config.port,
        origin: status.config.description.clone(),
        asn: status.config.asn,
        state: status.state,
        since_secs: status.counters.since.map(|since| now.saturating_duration_since(since).as_secs()),
        families: families.iter().collect(),
        received,
        accepted: received.saturating_sub(refused),
        refused,
        stale: count(|routes| routes.stale),
        refused_connections: status.counters.refused_connections,
        refusals: status.refusals.iter().map(|(refusal, count)| (refusal.as_str().to_owned(), *count)).collect(),
        rejected: status.refused_example.as_ref().map(|(prefix, reason)| format!("{prefix}: {reason}")),
        max_prefixes: Some(status.limit),
        last_error: status.counters.last_down.as_ref().map(ToString::to_string),
        has_password: false,
        least_ttl: None,
        obstacle: None,
    }
}

/// A peer that has no session, for this reason, as the local API shows it.
pub(crate) fn withheld(config: &PeerConfig, why: &str) -> api::PeerStatus {
    api::PeerStatus {
        address: config.address,
        port: config.port,
        origin: config.description.clone(),
        asn: config.asn,
        state: SessionState::Idle,
        since_secs: None,
        families: config.families.iter().collect(),
        received: 0,
        accepted: 0,
        refused: 0,
        refusals: Default::default(),
        rejected: None,
        max_prefixes: None,
        stale: 0,
        refused_connections: 0,
        last_error: Some(why.to_owned()),
        has_password: config.security.password.is_some(),
        least_ttl: config.security.ttl_security.map(Hops::least_ttl),
        obstacle: None,
    }
}

/// A destination as the local API shows it.
pub(crate) fn route(route: &bgp_proto::RouteView<'_>) -> RouteView {
    RouteView { prefix: route.prefix, own: route.own, paths: route.paths.iter().map(path).collect() }
}

/// A refused route as the local API shows it.
pub(crate) fn rejected(route: &bgp_proto::RejectedView) -> RejectedRoute {
    RejectedRoute {
        prefix: route.prefix,
        peer: route.peer,
        next_hop: route.next_hop,
        used: route.used,
        kind: route.refusal.as_str().to_owned(),
        reason: route.reason.clone(),
    }
}

fn path(path: &bgp_proto::PathView<'_>) -> PathView {
    let source = match path.source {
        Source::External => ", external",
        Source::Client => ", client",
        Source::Internal | Source::Local => "",
    };
    PathView {
        peer: path.peer,
        next_hop: path.next_hop,
        as_path: path.attributes.as_path.to_string(),
        origin: path.attributes.origin.to_string(),
        local_pref: path.attributes.local_pref,
        med: path.attributes.med,
        best: path.verdict == bgp_proto::Verdict::Best,
        used: path.verdict.is_used(),
        stale: path.stale,
        reason: format!("{}{source}", path.verdict),
    }
}

/// What the log says of a peer's event, and whether it is a warning.
pub(crate) fn event(event: &PeerEvent) -> (String, bool) {
    match event {
        PeerEvent::Established(families) => (format!("the session is established ({})", list(*families)), false),
        PeerEvent::Down { reason, retained } if *retained == Families::NONE => {
            (format!("the session is down: {reason}"), true)
        }
        PeerEvent::Down { reason, retained } => (
            format!("the session is down: {reason}; the peer's {} routes stay while it restarts", list(*retained)),
            true,
        ),
        PeerEvent::AttemptFailed(reason) => (format!("the session could not be established: {reason}"), false),
        PeerEvent::EndOfRib(family) => (format!("the peer has sent all its {family} routes"), false),
        PeerEvent::StaleExpired(family) => (
            format!(
                "the peer has not come back and sent its {family} routes again in time; those that were kept are gone"
            ),
            true,
        ),
        PeerEvent::Fault(fault) => (format!("the peer sent a malformed UPDATE: {fault}"), true),
        PeerEvent::SecondRefused(count) => (
            format!(
                "the session is alive, so {count} further connections from its peer's address are closed: somebody else \
                 opens them, or a second speaker runs there"
            ),
            true,
        ),
        PeerEvent::Refused { count, prefix, reason } => (
            format!("the peer announced routes that are not its to announce ({count} in all); {prefix}: {reason}"),
            true,
        ),
        PeerEvent::NearLimit { family, accepted, limit } => (
            format!("the peer has {accepted} {family} prefixes in use, of {limit} that it may have (maxPrefixes)"),
            true,
        ),
        PeerEvent::CannotAskAgain(family) => (
            format!(
                "{family} routes that were refused may be good now, and the peer does not send routes again when it is \
                 asked to; a new session would bring them"
            ),
            true,
        ),
        PeerEvent::Rejected => ("a connection from an address that is no configured peer is closed".to_owned(), false),
        PeerEvent::TooManyPeers => {
            ("the speaker has as many peers as it can have; this one is ignored".to_owned(), true)
        }
    }
}

fn list(families: Families) -> String {
    families.iter().map(|family| family.to_string()).collect::<Vec<_>>().join(", ")
}
