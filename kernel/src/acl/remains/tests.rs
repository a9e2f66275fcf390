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
