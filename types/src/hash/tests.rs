use super::*;

#[test]
fn the_hash_never_changes() {
    for (text, hash) in
        [("", 0xfdbd_f6ac_4fc5_2e7f), ("node-1", 0x0dda_c17a_3a40_4de9), ("node-2", 0x95c1_27d0_b745_4a8c)]
    {
        assert_eq!(stable_hash(text.bytes()), hash, "{text:?}");
    }
}
