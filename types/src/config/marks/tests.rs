use super::*;

#[test]
fn a_mask_is_8_to_14_bits_next_to_each_other_that_nobody_else_uses() {
    let refused = [
        0,
        0x7,
        0x4000,
        0x00f0_f000,
        u32::MAX,
        0x7fff,
        // felix could work with 4 to 7 bits, but the agent has never accepted fewer than 8.
        0x000f_0000,
        0x007f_0000,
        0x0000_ff00,
        0x001f_e000,
    ];
    for bits in refused {
        assert_eq!(MarkMask::new(bits), None, "{bits:#x}");
    }
    for bits in [0x00ff_0000, 0xff, 0x1fff, 0x3fff_0000, 0xfffc_0000, 0xff00_0000] {
        assert_eq!(MarkMask::new(bits).map(MarkMask::bits), Some(bits), "{bits:#x}");
    }
    assert_eq!("0x00ff0000".parse(), Ok(MarkMask::default()));
    assert_eq!("16711680".parse(), Ok(MarkMask::default()));
    assert_eq!(MarkMask::new(KernelMarks::DEFAULT.mark_mask.bits()), Some(MarkMask::default()));
}
