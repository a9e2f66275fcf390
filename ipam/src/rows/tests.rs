use std::time::Duration;

use super::*;
use crate::fence::Reading;
use crate::testing::{endpoint, node};

fn rows(writes: Vec<JournalWrite>) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for write in writes {
        match write {
            JournalWrite::Put(row) => drop(rows.insert((row.kind, row.key.clone()), row)),
            JournalWrite::Delete { kind, key } => drop(rows.remove(&(kind, key))),
            JournalWrite::Clear(kind) => rows.retain(|(other, _), _| *other != kind),
        }
    }
    rows.into_values().collect()
}

#[test]
fn what_was_written_is_read_back() {
    let (stays, goes) = (endpoint("a", &["10.0.0.1", "fd00::1"]), endpoint("b", &["10.0.0.2", "fd00::2"]));
    let (kept, lost): (Prefix, Prefix) = ("10.0.0.0/26".parse().unwrap(), "fd00::/122".parse().unwrap());
    let node = node("n1");
    let at = Reading { boot: Duration::from_millis(1_500), wall: Duration::from_secs(9) };
    let confirmation = Confirmation { boot_id: "two".to_owned(), at };
    let mut writes = vec![boot_id("one"), boot_id("two"), committed(&stays), committed(&goes)];
    writes.push(confirmed(&confirmation));
    writes.extend([block_owned(&kept, &node), block_owned(&lost, &node), block_lost(&lost)]);
    writes.extend([shared(&kept, &"lan".parse().unwrap()), shared(&lost, &"other".parse().unwrap()), unshared(&lost)]);
    writes.extend(released(&goes));
    writes.push(rested("10.0.0.2".parse().unwrap()));
    writes.push(JournalWrite::put(RowKind::Meta, "another's", vec![0xff]));
    let restored = restore(rows(writes), &node).unwrap();
    let expected = Restored {
        boot_id: Some("two".to_owned()),
        endpoints: vec![stays],
        resting: BTreeMap::from([("fd00::2".parse().unwrap(), goes.id)]),
        blocks: BTreeSet::from([kept]),
        shared: BTreeMap::from([(kept, "lan".parse().unwrap())]),
        confirmed: Some(confirmation),
    };
    assert_eq!(restored, expected);
}

#[test]
fn blocks_claimed_under_another_name_are_not_this_nodes() {
    let writes = vec![block_owned(&"10.0.0.0/26".parse().unwrap(), &node("old"))];
    assert!(restore(rows(writes), &node("new")).unwrap().blocks.is_empty());
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let row = |kind, key: &str, value: &[u8]| vec![Row { kind, key: key.to_owned(), value: value.to_vec() }];
    let error = |rows| restore(rows, &node("n1")).unwrap_err().to_string();
    let newer = error(row(RowKind::Endpoint, "manx/a/eth0", br#"{"version":2,"spec":0}"#));
    assert!(newer.starts_with("journal: endpoint/manx/a/eth0: value version 2 is newer"), "{newer}");
    let address = error(row(RowKind::CoolDown, "10.0.0", b""));
    assert!(address.starts_with("journal: cool_down \"10.0.0\": "), "{address}");
    let block = error(row(RowKind::Block, "10.0.0.1/26", b""));
    assert!(block.contains("10.0.0.1/26"), "{block}");
}
