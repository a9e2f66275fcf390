//! What is measured, in the text form of OpenMetrics. Numbers are read from their owners at each scrape; those that only
//! grow are counters, from the agent's start on.

use std::fmt;

use felix::acl::{AclView, Histogram};
use felix::routes::RoutesView;
use kernel::netstat::TcpDrops;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use types::api::{NodeStatus, PeerStatus};
use types::policy::Direction;

/// The state of a node at one moment, as a scrape shows it.
#[derive(Debug)]
pub(crate) struct Moment {
    /// The status that operators see.
    pub(crate) status: NodeStatus,
    /// The kernel routes, in numbers.
    pub(crate) routes: RoutesView,
    /// The filter, in numbers.
    pub(crate) acl: AclView,
    /// Published endpoints that do not count, as their publisher does not own their addresses.
    pub(crate) refused_endpoints: usize,
    /// Ranges and addresses of Services that are announced.
    pub(crate) announced_services: usize,
    /// BGP connections that were closed as they were accepted: of strangers, and too many of one peer.
    pub(crate) turned_away: u64,
    /// What the kernel has dropped of TCP for what sessions ask of their connections, since its namespace was made.
    pub(crate) tcp_drops: TcpDrops,
}

/// The exposition of one moment.
pub(crate) fn render(moment: Moment) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("manx");
    registry.register_collector(Box::new(moment));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.node(&mut out)?;
        self.routes(&mut out)?;
        self.peers(&mut out)?;
        self.policy(&mut out)
    }
}

impl Moment {
    fn node(&self, out: &mut Out<'_>) -> fmt::Result {
        let status = &self.status;
        out.gauge("ready", "1 where ADD is served and routes and policies are in force", u64::from(status.ready))?;
        out.gauge("datastore_connected", "1 while the datastore answers", u64::from(status.datastore_connected))?;
        if let Some(ago) = status.datastore_confirmed_secs {
            let help = "Seconds since the datastore last confirmed this node's blocks";
            out.gauge("datastore_confirmed_age_seconds", help, ago)?;
        }
        out.gauge("endpoints", "Pods attached to this node", count(status.endpoints))
    }

    fn routes(&self, out: &mut Out<'_>) -> fmt::Result {
        let routes = &self.routes;
        let sources = [("local", routes.local), ("block", routes.blocks), ("bgp", routes.bgp)];
        out.gauges("routes", "Kernel routes that are ours", "source", sources)?;
        out.gauge("routes_learned", "Routes that BGP wants, in the kernel or not", count(routes.learned))?;
        out.gauge("routes_stale", "Routes of an earlier life that wait for their source", count(routes.stale))?;
        out.gauge("routes_failed", "Routes that are wanted but not in the kernel", count(routes.failures.len()))?;
        let help = "Ranges and addresses of Services that this node announces";
        out.gauge("services_announced", help, count(self.announced_services))?;
        let help = "BGP connections closed as they were accepted: from no peer's address, or too many from one";
        out.counter("bgp_connections_refused", help, self.turned_away)?;
        let help =
            "TCP segments that the kernel dropped for their signature (TCP MD5) or TTL, of all of the node's sockets";
        let mut metric = out.0.encode_descriptor("bgp_tcp_drops", help, None, MetricType::Counter)?;
        let TcpDrops { unsigned, unexpectedly_signed, wrongly_signed, low_ttl } = self.tcp_drops;
        for (reason, count) in [
            ("md5-missing", unsigned),
            ("md5-unexpected", unexpectedly_signed),
            ("md5-wrong", wrongly_signed),
            ("low-ttl", low_ttl),
        ] {
            let labels = [("reason", reason)];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        out.counter("routes_conflicts", "Routes of others found in the place of ours", routes.conflicts)?;
        out.counter("routes_disturbed", "Routes of ours that others changed or deleted", routes.disturbed)
    }

    fn peers(&self, out: &mut Out<'_>) -> fmt::Result {
        for (name, help, value) in PEER_GAUGES {
            let mut metric = out.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for peer in &self.status.peers {
                let labels = [("peer", peer.address.to_string()), ("origin", peer.origin.clone())];
                metric.encode_family(&labels)?.encode_gauge(&value(peer))?;
            }
        }
        let help = "Routes of the peer that were refused, or that validation warned of, by reason";
        let mut metric = out.0.encode_descriptor("bgp_peer_refusals", help, None, MetricType::Counter)?;
        for peer in &self.status.peers {
            for (reason, count) in &peer.refusals {
                let labels =
                    [("peer", peer.address.to_string()), ("origin", peer.origin.clone()), ("reason", reason.clone())];
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }

    fn policy(&self, out: &mut Out<'_>) -> fmt::Result {
        let (acl, compiler) = (&self.acl, &self.acl.compiler);
        out.gauge("policy_in_sync", "1 once every source of policy is known and in force", u64::from(acl.in_sync))?;
        let policies = [("known", compiler.policies), ("active", compiler.active_policies)];
        out.gauges("policies", "Policies, and those that govern an endpoint of this node", "state", policies)?;
        let endpoints = [
            ("local", compiler.local_endpoints),
            ("remote", compiler.remote_endpoints),
            ("expected", compiler.expected_pods),
            ("refused", self.refused_endpoints),
            ("unplaced", compiler.unplaced_endpoints),
        ];
        out.gauges("policy_endpoints", "Endpoints that policy knows", "kind", endpoints)?;
        out.gauge("policy_classes", "Groups of endpoints with rules of their own", count(acl.classes))?;
        out.gauge("policy_rules", "Rules of ours in the kernel", count(acl.rules))?;
        out.gauge("policy_sets", "IP sets of ours in the kernel", count(acl.sets))?;
        out.gauge("policy_set_elements", "Members of these sets", acl.elements)?;
        out.histogram("policy_apply_seconds", "How long rounds took that changed sets", &acl.apply)?;
        out.histogram("policy_restore_seconds", "How long iptables-restore took", &acl.restore)?;
        let help = "From a change of policy being told to its being in force";
        out.histogram("policy_change_to_kernel_seconds", help, &acl.change_to_kernel)?;
        out.counter("policy_restore_failures", "Failures of iptables-restore", acl.restore_failures)?;
        out.counter("policy_repairs", "Changes of our rules by others that were repaired", acl.repairs)?;
        let unprotected = acl.unprotected.as_secs_f64();
        let mut metric = out.0.encode_descriptor(
            "policy_unprotected_seconds",
            "How long rules that protect pods were not as they should be through others' doing",
            None,
            MetricType::Counter,
        )?;
        metric.encode_counter::<NoLabelSet, _, f64>(&unprotected, None)?;
        out.counter("policy_connections_cut", "Connections ended as policies forbid them now", acl.connections_cut)?;
        out.counter(
            "policy_unknown_drops",
            "Packets of addresses behind pods' interfaces that no pod has",
            acl.unknown_drops,
        )?;
        out.counter(
            "policy_refused_drops",
            "Packets of pods to what is closed to them whatever policies say",
            acl.refused_drops,
        )?;
        out.counter(
            "policy_spoofed_drops",
            "Packets with a source that is not behind their interface",
            acl.spoofed_drops,
        )?;
        let help = "Packets that policies dropped, by local endpoint and its side";
        let mut metric = out.0.encode_descriptor("policy_drops", help, None, MetricType::Counter)?;
        for drops in &acl.drops {
            let direction = match drops.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            };
            let labels = [
                ("endpoint", drops.endpoint.to_string()),
                ("namespace", drops.namespace.clone()),
                ("pod", drops.pod.clone()),
                ("direction", direction.to_owned()),
            ];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, f64>(&drops.packets, None)?;
        }
        Ok(())
    }
}

type PeerGauge = (&'static str, &'static str, fn(&PeerStatus) -> u64);

const PEER_GAUGES: &[PeerGauge] = &[
    ("bgp_peer_established", "1 while the session is Established", |peer| u64::from(peer.state.is_established())),
    ("bgp_peer_since_seconds", "Seconds since the session came up or went down", |peer| peer.since_secs.unwrap_or(0)),
    ("bgp_peer_received", "Routes that the peer offers", |peer| peer.received),
    ("bgp_peer_accepted", "Routes of the peer that may be used", |peer| peer.accepted),
    ("bgp_peer_refused", "Routes of the peer that are refused", |peer| peer.refused),
    ("bgp_peer_refused_connections", "Connections from the peer's address closed beside a live session", |peer| {
        peer.refused_connections
    }),
    ("bgp_peer_max_prefixes", "Routes of a family that the peer may have in use", |peer| {
        peer.max_prefixes.map_or(0, u64::from)
    }),
    ("bgp_peer_stale", "Routes kept while the peer restarts", |peer| peer.stale),
];

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, usize); N],
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            let labels = [(label, of)];
            MetricEncoder::encode_gauge(&mut metric.encode_family(&labels)?, &count(value))?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let bounds = Histogram::BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts).collect();
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(histogram.sum.as_secs_f64(), histogram.count(), &buckets, None)
    }
}

fn count(value: usize) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests;
