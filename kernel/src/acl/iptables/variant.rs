//! Which variant of iptables is in use.

use std::ffi::OsStr;

use types::Family;

use super::super::{IPTABLES_TIME_LIMIT, IptablesVariant};
use super::process::Program;
use crate::{Failure, KernelError};

/// Chains that say in which variant kube-proxy and the kubelet work (the first is there for that purpose alone).
const HINTS: [&str; 3] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY ", ":KUBE-PROXY-CANARY "];

/// `ip6tables-nft-save` and so on.
pub(super) fn program(family: Family, variant: IptablesVariant, action: &str) -> String {
    let family = match family {
        Family::Ipv4 => "iptables",
        Family::Ipv6 => "ip6tables",
    };
    let variant = match variant {
        IptablesVariant::Nft => "nft",
        IptablesVariant::Legacy => "legacy",
    };
    format!("{family}-{variant}-{action}")
}

/// Looks at both variants' tables, both families, and at the host's `iptables`.
pub(super) fn detect(path: Option<&OsStr>) -> Result<IptablesVariant, KernelError> {
    let output = |name: &str, arguments: &[&str]| {
        let program = Program { name, arguments, input: "", path };
        let ended = program.run(IPTABLES_TIME_LIMIT, |_| {}).ok()?;
        (ended.code == Some(0)).then(|| String::from_utf8_lossy(&ended.output).into_owned())
    };
    let saved = |variant| {
        let families = Family::ALL.map(|family| output(&program(family, variant, "save"), &[]));
        families.into_iter().flatten().reduce(|all, more| all + &more)
    };
    let found = Found {
        nft: saved(IptablesVariant::Nft),
        legacy: saved(IptablesVariant::Legacy),
        host: output("iptables", &["--version"]),
    };
    found.choose().ok_or_else(|| {
        KernelError::Gone(Failure {
            operation: "cannot tell which iptables is in use".to_owned(),
            errno: libc::ENOENT,
            message: Some("neither iptables-nft-save nor iptables-legacy-save can be run".to_owned()),
        })
    })
}

/// What was found; a program that could not be run has said nothing.
#[derive(Debug, Default)]
struct Found {
    /// What `iptables-nft-save` and its sister for IPv6 print.
    nft: Option<String>,
    /// The same of the legacy variant.
    legacy: Option<String>,
    /// What `iptables --version` prints.
    host: Option<String>,
}

impl Found {
    fn choose(&self) -> Option<IptablesVariant> {
        let (nft, legacy) = match (&self.nft, &self.legacy) {
            (Some(nft), Some(legacy)) => (nft.as_str(), legacy.as_str()),
            (Some(_), None) => return Some(IptablesVariant::Nft),
            (None, Some(_)) => return Some(IptablesVariant::Legacy),
            (None, None) => return None,
        };
        // The surest sign first; what both have as much of says nothing.
        let signs: [fn(&str) -> usize; 3] = [
            |saved| saved.lines().filter(|line| HINTS.iter().any(|hint| line.starts_with(hint))).count(),
            |saved| saved.lines().filter(|line| line.starts_with(":KUBE-")).count(),
            |saved| saved.lines().filter(|line| line.starts_with("-A ")).count(),
        ];
        for sign in signs {
            match sign(nft).cmp(&sign(legacy)) {
                std::cmp::Ordering::Greater => return Some(IptablesVariant::Nft),
                std::cmp::Ordering::Less => return Some(IptablesVariant::Legacy),
                std::cmp::Ordering::Equal => {}
            }
        }
        // Releases before 1.8.0 were legacy and did not say so.
        let host_is_legacy = self.host.as_ref().is_some_and(|version| !version.contains("nf_tables"));
        Some(if host_is_legacy { IptablesVariant::Legacy } else { IptablesVariant::Nft })
    }
}

#[cfg(test)]
mod tests;
