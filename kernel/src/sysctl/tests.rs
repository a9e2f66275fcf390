use super::*;

#[test]
fn an_interface_name_with_dots_stays_one_path_element() {
    let vlan = InterfaceName::new("eth0.100").unwrap();
    assert_eq!(SysctlKey::ipv4_conf(&vlan, "proxy_arp").path(), "net/ipv4/conf/eth0.100/proxy_arp");
    assert_eq!(SysctlKey::ipv4_neigh(&vlan, "proxy_delay").path(), "net/ipv4/neigh/eth0.100/proxy_delay");
    assert_eq!(SysctlKey::ipv6_conf(&vlan, "accept_dad").path(), "net/ipv6/conf/eth0.100/accept_dad");
    assert_eq!(SysctlKey::global("ipv4/ip_forward").path(), "net/ipv4/ip_forward");
}

#[test]
fn a_sysctl_that_does_not_exist_is_gone() {
    let error = read(&SysctlKey::global("ipv4/no_such_key")).unwrap_err();
    assert!(matches!(error, KernelError::Gone(_)), "{error}");
    assert!(error.to_string().starts_with("cannot read sysctl net/ipv4/no_such_key: "), "{error}");
}
