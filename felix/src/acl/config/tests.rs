use super::*;

#[test]
fn the_bits_of_a_mask_carry_numbers_and_their_branches() {
    let space = MarkSpace::new(MarkMask::default());
    assert_eq!((space.highest(), space.mark(0x12), space.number(0xff12_ffff)), (255, 0x0012_0000, 0x12));
    assert_eq!((space.branch(0x12), space.branch_mark(1)), (1, (0x0010_0000, 0x00f0_0000)));
    let odd = MarkSpace::narrow(0x7c00_0000);
    assert_eq!((odd.highest(), odd.branch(31), odd.branch_mark(7)), (31, 7, (0x7000_0000, 0x7000_0000)));
}
