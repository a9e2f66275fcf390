//! The resource BGPConfiguration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bgp_import::OriginValidation;
use super::session_password::{self, BgpPassword};
use crate::{Asn, PasswordSource, Prefix, ServiceRanges};

/// What holds for every node's speaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpConfigurationSpec {
    /// The AS number of nodes that have none of their own (default 64512).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<Asn>,
    /// Whether every node peers with every other (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// The TCP port that nodes listen on and reach each other at (default 179).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// How long mesh peers keep a restarting node's routes, such as `120s` (default: the agent's restartTime).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<String>,
    /// Ranges of Services' cluster addresses, announced by every node.
    #[serde(default, rename = "serviceClusterIPs", skip_serializing_if = "Option::is_none")]
    pub service_cluster_ips: Option<Vec<ServiceBlock>>,
    /// Ranges of the external addresses of Services that are announced.
    #[serde(default, rename = "serviceExternalIPs", skip_serializing_if = "Option::is_none")]
    pub service_external_ips: Option<Vec<ServiceBlock>>,
    /// Ranges of the addresses of Services of type LoadBalancer that are announced.
    #[serde(default, rename = "serviceLoadBalancerIPs", skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_ips: Option<Vec<ServiceBlock>>,
    /// Whether ranges of `serviceLoadBalancerIPs` are announced as such (default), or only addresses that Services have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<Aggregation>,
    /// Where the password of the mesh's sessions is (TCP MD5, RFC 2385). Without the password there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<BgpPassword>,
    /// The password is in this file of every node, for installations without Kubernetes (not in Calico's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password_file: Option<PathBuf>,
    /// Whether nodes of the mesh that share a subnet drop what comes from farther away (RFC 5082; not in Calico's).
    #[serde(default, rename = "nodeMeshTTLSecurity", skip_serializing_if = "Option::is_none")]
    pub node_mesh_ttl_security: Option<MeshTtlSecurity>,
    /// What follows from a learned route in a pool that does not come from who owns the block (default `enforce`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_validation: Option<OriginValidation>,
}

/// Whether nodes of the mesh that share a subnet drop what comes from farther away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MeshTtlSecurity {
    /// They do where both say that they are on one subnet (default).
    Enabled,
    /// They do not: where packets between nodes of one subnet pass a router all the same.
    Disabled,
}

/// A range of Services' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceBlock {
    /// The range.
    pub cidr: Prefix,
}

/// Whether whole ranges are announced instead of the addresses in use in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregation {
    /// The whole ranges are announced.
    Enabled,
    /// Only the addresses that Services have are announced.
    Disabled,
}

impl BgpConfigurationSpec {
    /// The mesh's restart time, where one is set.
    pub fn mesh_restart_time(&self) -> Option<Duration> {
        self.node_mesh_max_restart_time.as_deref().and_then(duration)
    }

    /// Where the password of the mesh's sessions is, where they have one.
    pub fn mesh_password_source(&self) -> Option<PasswordSource> {
        session_password::source(self.node_mesh_password.as_ref(), self.node_mesh_password_file.as_deref())
    }

    /// The ranges of Services' addresses that are announced.
    pub fn service_ranges(&self) -> ServiceRanges {
        let ranges = |blocks: &Option<Vec<ServiceBlock>>| blocks.iter().flatten().map(|block| block.cidr).collect();
        ServiceRanges {
            cluster: ranges(&self.service_cluster_ips),
            external: ranges(&self.service_external_ips),
            load_balancer: ranges(&self.service_load_balancer_ips),
            load_balancer_apart: self.service_load_balancer_aggregation == Some(Aggregation::Disabled),
        }
    }

    pub(super) fn problem(&self) -> Option<String> {
        let (password, file) = (self.node_mesh_password.as_ref(), self.node_mesh_password_file.as_ref());
        let fields = (("nodeMeshPassword", password), ("nodeMeshPasswordFile", file));
        if let Some(problem) = session_password::problem(fields.0, fields.1) {
            return Some(problem);
        }
        if self.listen_port == Some(0) {
            return Some("listenPort 0 is not a port".to_owned());
        }
        if let Some(range) = self.service_ranges().all().find(|range| range.len() == 0) {
            return Some(format!("{range} is every address, not a range of Services' addresses"));
        }
        let text = self.node_mesh_max_restart_time.as_ref()?;
        duration(text).is_none().then(|| bad_restart_time("nodeMeshMaxRestartTime", text))
    }
}

/// Says what is wrong with a restart time; none if nothing is.
pub(super) fn bad_restart_time(field: &str, text: &str) -> String {
    format!("{field}: {text:?} is not a duration of 1s to 4095s such as 120s or 2m (RFC 4724 section 3)")
}

/// A restart time: whole seconds that fit the twelve bits of RFC 4724 section 3, as Go prints them (`120s`, `2m`, `1m30s`).
pub(super) fn duration(text: &str) -> Option<Duration> {
    // Milliseconds are refused even where they make whole seconds: agents of older versions do not know them.
    let duration = crate::duration::parse(text).filter(|_| !text.contains("ms"))?;
    (1..=4_095).contains(&duration.as_secs()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4724_3_restart_times_are_whole_seconds_of_twelve_bits() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3_600)));
        for bad in ["", "s", "90", "0s", "2h", "1.5s", "-1s", "2000ms", "1 m", "9999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
