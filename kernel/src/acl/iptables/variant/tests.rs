use super::*;
use IptablesVariant::{Legacy, Nft};

fn choose(nft: &str, legacy: &str, host: &str) -> Option<IptablesVariant> {
    Found { nft: Some(nft.to_owned()), legacy: Some(legacy.to_owned()), host: Some(host.to_owned()) }.choose()
}

const NFT_HOST: &str = "iptables v1.8.9 (nf_tables)";
const LEGACY_HOST: &str = "iptables v1.8.9 (legacy)";
const MANY: &str = "-A FORWARD -j ACCEPT\n-A FORWARD -j DROP\n-A INPUT -j DROP\n";

#[test]
fn kubernetes_hints_count_more_than_rules_and_rules_more_than_the_host() {
    let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
    assert_eq!(choose(MANY, hint, NFT_HOST), Some(Legacy));
    assert_eq!(choose(hint, MANY, LEGACY_HOST), Some(Nft));
    assert_eq!(choose(MANY, ":KUBE-SERVICES - [0:0]\n", NFT_HOST), Some(Legacy));
    assert_eq!(choose("", MANY, NFT_HOST), Some(Legacy));
    assert_eq!(choose(MANY, "", LEGACY_HOST), Some(Nft));
}

#[test]
fn where_nobody_has_rules_the_hosts_own_iptables_decides() {
    assert_eq!(choose("", "", NFT_HOST), Some(Nft));
    assert_eq!(choose("", "", LEGACY_HOST), Some(Legacy));
    assert_eq!(choose("", "", "iptables v1.6.1"), Some(Legacy));
    assert_eq!(Found { host: None, nft: Some(String::new()), legacy: Some(String::new()) }.choose(), Some(Nft));
}

#[test]
fn a_variant_whose_programs_are_missing_is_not_chosen() {
    let only = |nft: Option<&str>, legacy: Option<&str>| {
        Found { nft: nft.map(str::to_owned), legacy: legacy.map(str::to_owned), host: None }.choose()
    };
    assert_eq!(only(Some(""), None), Some(Nft));
    assert_eq!(only(None, Some("")), Some(Legacy));
    assert_eq!(only(None, None), None);
}

#[test]
fn programs_are_named_by_family_and_variant() {
    assert_eq!(program(Family::Ipv6, Nft, "restore"), "ip6tables-nft-restore");
    assert_eq!(program(Family::Ipv4, Legacy, "save"), "iptables-legacy-save");
}
