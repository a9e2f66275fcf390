use rtnetlink::packet_core::NetlinkSerializable;

use super::*;

#[test]
fn tuples_are_read_as_they_are_written() {
    for (source, destination) in [("10.65.0.5", "10.65.0.6"), ("fd00::5", "fd00::6")] {
        for (protocol, source_port, destination_port) in
            [(6, 40_000, 443), (17, 5, 53), (132, 1, 2), (ICMP, 77, 0x0800), (ICMPV6, 78, 0x8000), (47, 0, 0)]
        {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let tuple = Tuple { source, destination, protocol, source_port, destination_port };
            let mut request = request(DELETE, Family::of(source));
            let header = request.buffer_len();
            put_tuple(&mut request, &tuple);
            let mut bytes = vec![0; request.buffer_len()];
            request.serialize(&mut bytes);
            assert_eq!(parse_tuple(&bytes[header..]), Some(tuple));
        }
    }
}
