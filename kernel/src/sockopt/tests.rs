use super::*;

/// A packet that the kernel has kept, in hexadecimal digits.
fn read(hex: &str) -> Option<Syn> {
    let digit = |index: usize| hex.get(index * 2..index * 2 + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    Syn::read(&(0..hex.len() / 2).map_while(digit).collect::<Vec<_>>())
}

/// An IPv4 packet, with the MD5 option behind two others.
const SIGNED: &str = "45000048ec7f40004006502e7f0000017f0000018b1e9ea942b0e7f500000000d002ffd7fe3c00000101\
                      13123524890268221535f14c47abbbf7a26e0204ffd7010104020103030a";

#[test]
fn rfc2385_3_0_a_saved_syn_says_its_ttl_and_whether_it_is_signed() {
    assert_eq!(read(SIGNED), Some(Syn { ttl: 64, is_signed: true }));
    // The same without the option, over IPv6 with a hop limit of 255.
    let header = "60000000001806ff".to_owned() + &("00".repeat(15) + "01").repeat(2);
    let unsigned = header + "a430db3d57fc6fa1000000006002ffc400000000020405b4";
    assert_eq!(read(&unsigned), Some(Syn { ttl: 255, is_signed: false }));
}

#[test]
fn a_packet_that_is_cut_off_says_nothing() {
    for length in 0..SIGNED.len() / 2 {
        assert_eq!(SIGNED.get(..length * 2).and_then(read), None, "{length} octets");
    }
    assert_eq!(read(""), None);
    // An option whose length lies about itself ends the search.
    assert!(has_option(&[2, 2, 19, 18], MD5_SIGNATURE));
    assert!(!has_option(&[5, 200, 19], MD5_SIGNATURE));
    assert!(!has_option(&[0, 19, 18], MD5_SIGNATURE), "nothing is behind the end of options");
}
