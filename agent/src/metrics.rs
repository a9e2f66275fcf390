//! What is measured, in the text form of OpenMetrics. Numbers are read from their owners at each scrape.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use types::api::NodeStatus;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    peer: String,
    origin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

/// The exposition of one moment.
pub(crate) fn render(status: &NodeStatus) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("manx");
    let single = |registry: &mut Registry, name: &str, help: &str, value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    single(&mut registry, "ready", "1 where ADD is served and routes are programmed", i64::from(status.ready));
    let connected = i64::from(status.datastore_connected);
    single(&mut registry, "datastore_connected", "1 while the datastore answers", connected);
    single(&mut registry, "endpoints", "Pods attached to this node", count(status.endpoints as u64));

    let routes = Family::<Source, Gauge>::default();
    let counts = &status.routes;
    for (source, value) in [("local", counts.local), ("block", counts.blocks), ("bgp", counts.bgp)] {
        routes.get_or_create(&Source { source }).set(count(value));
    }
    registry.register("routes", "Kernel routes that are ours", routes);
    single(&mut registry, "routes_failed", "Routes that are wanted but not in the kernel", count(counts.failed));

    for (name, help, value) in PEER_GAUGES {
        let family = Family::<Peer, Gauge>::default();
        for peer in &status.peers {
            let labels = Peer { peer: peer.address.to_string(), origin: peer.origin.clone() };
            family.get_or_create(&labels).set(value(peer));
        }
        registry.register(*name, *help, family);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

type PeerGauge = (&'static str, &'static str, fn(&types::api::PeerStatus) -> i64);

const PEER_GAUGES: &[PeerGauge] = &[
    ("bgp_peer_established", "1 while the session is Established", |peer| i64::from(peer.state == "established")),
    ("bgp_peer_since_seconds", "Seconds since the session came up or went down", |peer| {
        count(peer.since_secs.unwrap_or(0))
    }),
    ("bgp_peer_received", "Routes in the peer's Adj-RIB-In", |peer| count(peer.received)),
    ("bgp_peer_accepted", "Routes of the peer that import policy accepts", |peer| count(peer.accepted)),
    ("bgp_peer_refused", "Routes of the peer that import policy refuses", |peer| count(peer.refused)),
    ("bgp_peer_stale", "Routes kept while the peer restarts", |peer| count(peer.stale)),
];

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
