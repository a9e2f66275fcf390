use super::*;

#[test]
fn a_mask_is_4_to_14_bits_next_to_each_other() {
    for mask in [0, 0x7, 0x00f0_f000, u32::MAX, 0x7fff] {
        assert_eq!(MarkSpace::new(mask), None, "{mask:#x}");
    }
    let space = MarkSpace::new(0x00ff_0000).unwrap();
    assert_eq!((space.highest(), space.mark(0x12), space.number(0xff12_ffff)), (255, 0x0012_0000, 0x12));
    assert_eq!((space.branch(0x12), space.branch_mark(1)), (1, (0x0010_0000, 0x00f0_0000)));
    let odd = MarkSpace::new(0x7c00_0000).unwrap();
    assert_eq!((odd.highest(), odd.branch(31), odd.branch_mark(7)), (31, 7, (0x7000_0000, 0x7000_0000)));
}
