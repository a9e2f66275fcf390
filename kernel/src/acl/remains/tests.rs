use super::*;
use crate::acl::{SetKind, SetName, SetSpec, Sets as _};
use crate::fake::acl::FakeAcl;

const OURS: &str = r#"*mangle
:manx-forward - [0:0]
:manx-from - [0:0]
:others - [0:0]
-A FORWARD -j others
-A FORWARD -m comment --comment "manx:2a" -j manx-forward
-A FORWARD -m comment --comment "they say \"-j manx-forward\"" -j ACCEPT
-A FORWARD -m comment --comment "not manx:2a" -j ACCEPT
-A manx-forward -m comment --comment "manx:2b" -j manx-from
-A manx-from -m set --match-set manx-c4 src -m comment --comment "manx:2c" -j manx-forward-not
-A others -s 192.0.2.1/32 -g manx-from
-A others -j MARK --set-xmark 0x1/0x1
COMMIT
"#;

fn node() -> FakeAcl {
    let acl = FakeAcl::new();
    let spec = SetSpec { kind: SetKind::Addresses, family: Family::Ipv4, max_elements: 16, hash_size: 16 };
    acl.sets().create_set(&SetName::new("manx-c4").unwrap(), &spec).unwrap();
    acl.foreign_restore(Family::Ipv4, &OURS.replace("manx-forward-not", "RETURN")).unwrap();
    acl
}

#[test]
fn what_bears_our_names_or_leads_to_them_is_ours_and_goes_at_once() {
    let acl = node();
    let mut tables = acl.tables(IptablesVariant::Nft);
    let found = Remains::of_family(&mut tables, Family::Ipv4).unwrap();
    let [remains] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(remains.to_string(), "ipv4 table mangle (nft): 2 chains, 2 rules");
    assert!(Remains::of_family(&mut tables, Family::Ipv6).unwrap().is_empty());

    tables.restore(Family::Ipv4, &remains.removal()).unwrap();
    let left = acl.rules(Family::Ipv4, "mangle", "FORWARD").unwrap();
    assert_eq!(
        left,
        [
            "-j others",
            r#"-m comment --comment "they say \"-j manx-forward\"" -j ACCEPT"#,
            r#"-m comment --comment "not manx:2a" -j ACCEPT"#
        ]
    );
    assert_eq!(acl.rules(Family::Ipv4, "mangle", "others").unwrap(), ["-j MARK --set-xmark 0x1/0x1"]);
    assert!(acl.chains(Family::Ipv4, "mangle").iter().all(|chain| !ours::is_our_chain(chain)));
    assert!(Remains::of_family(&mut tables, Family::Ipv4).unwrap().is_empty(), "nothing is left to do");
}

const MAPPED: &str = r#"*nat
:CNI-DN-aaaa - [0:0]
:CNI-DN-bbbb - [0:0]
:CNI-DN-cccc - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-DN-aaaa -p tcp -m tcp --dport 20000 -j DNAT --to-destination 10.65.0.2:8080
-A CNI-DN-bbbb -p tcp -m tcp --dport 20001 -j DNAT --to-destination 10.65.0.3:8080
-A CNI-DN-cccc -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.65.0.3:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"manx-hostports-mxaaaaaaaaaaaaa\" id: \"c1\"" -m multiport --dports 20000 -j CNI-DN-aaaa
-A CNI-HOSTPORT-DNAT -p udp -m comment --comment "dnat name: \"manx-hostports-mxaaaaaaaaaaaaa\" id: \"c1\"" -m multiport --dports 20000 -j CNI-DN-aaaa
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"manx-hostports-mxbbbbbbbbbbbbb\" id: \"c2\"" -m multiport --dports 20001 -j CNI-DN-bbbb
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"manx\" id: \"c2\"" -m multiport --dports 80 -j CNI-DN-cccc
COMMIT
"#;

#[test]
fn of_portmap_only_what_it_has_mapped_for_us_is_ours_and_that_of_one_attachment_is_told_apart() {
    let acl = FakeAcl::new();
    acl.foreign_restore(Family::Ipv4, MAPPED).unwrap();
    let mut tables = acl.tables(IptablesVariant::Nft);
    let first = "mxaaaaaaaaaaaaa".parse().unwrap();
    let remains = Remains::of_host_ports(&mut tables, Family::Ipv4, &first).unwrap().unwrap();
    assert_eq!(remains.to_string(), "ipv4 table nat (nft): 1 chain, 2 rules");
    tables.restore(Family::Ipv4, &remains.removal()).unwrap();
    assert_eq!(Remains::of_host_ports(&mut tables, Family::Ipv4, &first).unwrap(), None);
    assert_eq!(Remains::of_host_ports(&mut tables, Family::Ipv6, &first).unwrap(), None);
    assert_eq!(acl.rules(Family::Ipv4, "nat", "CNI-HOSTPORT-DNAT").unwrap().len(), 2, "others' stay");

    let all = Remains::of_family(&mut tables, Family::Ipv4).unwrap();
    let [remains] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(remains.chains, ["CNI-DN-bbbb"]);
    tables.restore(Family::Ipv4, &remains.removal()).unwrap();
    let left = acl.rules(Family::Ipv4, "nat", "CNI-HOSTPORT-DNAT").unwrap();
    assert!(matches!(left.as_slice(), [rule] if rule.contains(r#"\"manx\""#)), "{left:?}");
    assert_eq!(acl.rules(Family::Ipv4, "nat", "CNI-DN-cccc").unwrap().len(), 1, "the runtime's own ports stay mapped");
}
