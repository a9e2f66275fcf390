//! Octets that are wrong, each with what must follow: the NOTIFICATION that ends the session (RFC 4271 section 6), or how
//! the UPDATE is used in spite of them (RFC 7606).

use bgp_proto::wire::{
    AttributeFault, ErrorCode, Handling, HeaderError, Message, OpenError, Update, UpdateError, frame_length,
};

use super::*;

const ORIGIN: &str = "4001 01 00";
const AS_PATH: &str = "4002 06 02 01 0000fc01";
const NEXT_HOP: &str = "4003 04 c0000201";
const LOCAL_PREF: &str = "4005 04 00000064";
const IPV4: &str = "18 0a4100";
/// MP_REACH_NLRI with 2001:db8:0:1::/64.
const REACH: &str = "800e 1e 0002 01 10 20010db8000000000000000000000001 00 40 20010db800000001";

/// The NOTIFICATION's code, subcode and data, and the place in the message.
fn reset(codec: Codec, octets: &[u8]) -> (ErrorCode, Vec<u8>, usize) {
    let error = codec.decode(octets).expect_err("the session should end");
    (error.notification.error, error.notification.data, error.offset)
}

fn used(codec: Codec, octets: &[u8]) -> Update {
    match codec.decode(octets) {
        Ok(Message::Update(update)) => update,
        other => panic!("{other:?}"),
    }
}

/// An UPDATE with the mandatory attributes of an external peer, and more.
fn with(more: &str) -> Vec<u8> {
    update("", &[ORIGIN, AS_PATH, NEXT_HOP, more].join(" "), IPV4)
}

/// The only fault, by attribute and error.
fn only_fault(update: &Update) -> (u8, UpdateError, Handling) {
    match update.faults[..] {
        [AttributeFault { attribute, error, handling, .. }] => (attribute, error, handling),
        ref other => panic!("{other:?}"),
    }
}

#[track_caller]
fn treated_as_withdraw(codec: Codec, octets: &[u8], attribute: u8, error: UpdateError) {
    let update = used(codec, octets);
    assert_eq!(only_fault(&update), (attribute, error, Handling::TreatAsWithdraw));
    assert_eq!((&update.reach[..], &update.attributes), (&[][..], &None));
    assert_eq!(update.withdrawn, ["10.65.0.0/24".parse().unwrap()]);
}

#[track_caller]
fn discarded(codec: Codec, octets: &[u8], attribute: u8, error: UpdateError) -> Update {
    let update = used(codec, octets);
    assert_eq!(only_fault(&update), (attribute, error, Handling::AttributeDiscard));
    assert_eq!((update.reach.len(), update.withdrawn.len()), (1, 0));
    update
}

#[test]
fn rfc4271_6_1_faults_of_the_header_carry_what_the_peer_needs_to_find_them() {
    let keepalive = framed(4, vec![]);
    let change = |at: usize, to: &[u8]| {
        let mut octets = keepalive.clone();
        octets[at..at + to.len()].copy_from_slice(to);
        octets
    };
    for (octets, error, data, offset) in [
        (change(15, &[0xfe]), HeaderError::NotSynchronized, &[][..], 0),
        (change(16, &[0, 18]), HeaderError::BadLength, &[0, 18], 16),
        (change(16, &[0x10, 1]), HeaderError::BadLength, &[0x10, 1], 16),
        (change(16, &[0, 20]), HeaderError::BadLength, &[0, 20], 16),
        (change(18, &[0]), HeaderError::BadType, &[0], 18),
        (change(18, &[6]), HeaderError::BadType, &[6], 18),
        (change(18, &[1]), HeaderError::BadLength, &[0, 19], 16),
        (change(18, &[2]), HeaderError::BadLength, &[0, 19], 16),
        (change(18, &[3]), HeaderError::BadLength, &[0, 19], 16),
        (change(18, &[5]), HeaderError::BadLength, &[0, 19], 16),
    ] {
        let expected = (ErrorCode::Header(error), data.to_vec(), offset);
        assert_eq!(reset(INTERNAL, &octets), expected);
        let framing = frame_length(&octets).unwrap_err();
        assert_eq!((framing.notification.error, framing.notification.data, framing.offset), expected);
    }
}

#[test]
fn rfc4271_6_1_octets_that_are_more_or_less_than_the_message_are_a_bad_length() {
    let update = update("", "", "");
    let longer = [&update[..], &[0]].concat();
    for octets in [&longer[..], &update[..22]] {
        assert_eq!(reset(INTERNAL, octets).0, ErrorCode::Header(HeaderError::BadLength));
    }
}

#[test]
fn rfc4271_6_2_and_rfc7607_2_faults_of_open() {
    for (body, error, data, offset) in [
        ("03 fc00 005a 0a000001 00", OpenError::UnsupportedVersion, &[0, 4][..], 19),
        ("04 0000 005a 0a000001 00", OpenError::BadPeerAs, &[], 20),
        ("04 fc00 0001 0a000001 00", OpenError::UnacceptableHoldTime, &[0, 1], 22),
        ("04 fc00 0002 0a000001 00", OpenError::UnacceptableHoldTime, &[0, 2], 22),
        ("04 fc00 005a 00000000 00", OpenError::BadIdentifier, &[0; 4], 24),
        // The parameters are longer or shorter than they say.
        ("04 fc00 005a 0a000001 01", OpenError::Unspecific, &[], 29),
        ("04 fc00 005a 0a000001 00 00", OpenError::Unspecific, &[], 29),
        ("04 fc00 005a 0a000001 02 02 01", OpenError::Unspecific, &[], 31),
        // Authentication (deprecated by RFC 4271), and an unknown parameter.
        ("04 fc00 005a 0a000001 03 01 01 00", OpenError::UnsupportedParameter, &[], 29),
        ("04 fc00 005a 0a000001 06 02 02 0200 63 00", OpenError::UnsupportedParameter, &[], 33),
        // Capabilities that overrun their parameter, or have a wrong length.
        ("04 fc00 005a 0a000001 04 02 02 0204", OpenError::Unspecific, &[], 31),
        ("04 fc00 005a 0a000001 05 02 03 0201 00", OpenError::Unspecific, &[], 31),
        ("04 fc00 005a 0a000001 07 02 05 0103 000100", OpenError::Unspecific, &[], 31),
        ("04 fc00 005a 0a000001 05 02 03 4001 00", OpenError::Unspecific, &[], 31),
        ("04 fc00 005a 0a000001 09 02 07 4005 0078 000101", OpenError::Unspecific, &[], 31),
        ("04 fc00 005a 0a000001 06 02 04 4102 fc00", OpenError::Unspecific, &[], 31),
        // AS 0 in the capability (RFC 7607 section 2).
        ("04 5ba0 005a 0a000001 08 02 06 4104 00000000", OpenError::BadPeerAs, &[], 31),
    ] {
        let expected = (ErrorCode::Open(error), data.to_vec(), offset);
        assert_eq!(reset(INTERNAL, &message(1, body)), expected, "{body}");
    }
}

#[test]
fn rfc4271_6_3_and_rfc7606_3b_lengths_that_do_not_add_up_end_the_session() {
    for (body, offset) in [("0001 0000", 22), ("0005 0000", 21), ("0000 0001", 23), ("0000 0010 40010100", 23)] {
        let expected = (ErrorCode::Update(UpdateError::MalformedAttributeList), vec![], offset);
        assert_eq!(reset(EXTERNAL, &message(2, body)), expected, "{body}");
    }
}

#[test]
fn rfc7606_5_3_prefixes_that_cannot_be_read_end_the_session() {
    let network = |octets: &[u8]| {
        let (error, data, offset) = reset(EXTERNAL, octets);
        assert_eq!((error, data), (ErrorCode::Update(UpdateError::InvalidNetworkField), vec![]));
        offset
    };
    assert_eq!(network(&update("18 0a4100 21 0a410000 00", "", "")), 25);
    assert_eq!(network(&update("18 0a41", "", "")), 22);
    let attributes = [ORIGIN, AS_PATH, NEXT_HOP].join(" ");
    assert_eq!(network(&update("", &attributes, "18 0a4100 40 0a")), 23 + 20 + 4);
}

#[test]
fn rfc4760_7_and_rfc7606_5_3_and_7_11_multiprotocol_attributes_that_cannot_be_read_end_the_session() {
    for attribute in [
        "800e 04 0002 01 10",                                           // nothing behind the length
        "800e 14 0002 01 10 20010db8000000000000000000000001",          // no reserved octet
        "800e 09 0002 01 04 c0000201 00",                               // an IPv4 next hop
        "800e 16 0002 01 10 20010db8000000000000000000000001 00 81",    // a prefix of 129 bits
        "800e 17 0002 01 10 20010db8000000000000000000000001 00 40 20", // a cut prefix
        "800e 15 0001 01 10 20010db8000000000000000000000001 00",       // an IPv6 next hop for IPv4
        "800f 02 0002",                                                 // no SAFI
        "800f 05 0002 01 10 fd",                                        // a cut prefix
    ] {
        let octets = update("", &[ORIGIN, AS_PATH, attribute].join(" "), "");
        let Err(error) = EXTERNAL.decode(&octets) else { panic!("{attribute}") };
        assert_eq!(error.notification.error, ErrorCode::Update(UpdateError::OptionalAttribute), "{attribute}");
        assert_eq!(error.notification.data, super::octets(attribute));
        assert_eq!(error.offset, 23 + 13, "{attribute}");
    }
}

#[test]
fn rfc7606_3g_a_second_multiprotocol_attribute_ends_the_session_and_any_other_is_discarded() {
    let list = ErrorCode::Update(UpdateError::MalformedAttributeList);
    assert_eq!(reset(EXTERNAL, &with(&[REACH, REACH].join(" "))).0, list);
    assert_eq!(reset(EXTERNAL, &with("800f 03 0002 01 800f 03 0002 01")).0, list);
    let update = discarded(EXTERNAL, &with("4001 01 02"), 1, UpdateError::MalformedAttributeList);
    assert_eq!(update.attributes.unwrap().origin, bgp_proto::wire::Origin::Igp, "the first one counts");
    discarded(EXTERNAL, &with("c0c8 01 01 c0c8 01 02"), 200, UpdateError::MalformedAttributeList);
}

#[test]
fn rfc4271_6_3_an_unknown_attribute_that_says_it_is_well_known_ends_the_session_and_is_sent_back() {
    let (error, data, offset) = reset(EXTERNAL, &with("40c8 02 abcd"));
    assert_eq!(error, ErrorCode::Update(UpdateError::UnrecognizedWellKnown));
    assert_eq!((data, offset), (octets("40c8 02 abcd"), 23 + 20));
}

#[test]
fn rfc7606_3c_wrong_flags_withdraw_the_routes() {
    for (code, attributes) in [
        (1, ["c001 01 00", AS_PATH, NEXT_HOP, ""]),
        (2, [ORIGIN, "8002 06 02 01 0000fc01", NEXT_HOP, ""]),
        (3, [ORIGIN, AS_PATH, "0003 04 c0000201", ""]),
        (4, [ORIGIN, AS_PATH, NEXT_HOP, "4004 04 00000001"]),
        (6, [ORIGIN, AS_PATH, NEXT_HOP, "c006 00"]),
        (7, [ORIGIN, AS_PATH, NEXT_HOP, "8007 08 0000fc01 0a000009"]),
        (8, [ORIGIN, AS_PATH, NEXT_HOP, "4008 04 00000001"]),
    ] {
        let octets = update("", &attributes.join(" "), IPV4);
        treated_as_withdraw(EXTERNAL, &octets, code, UpdateError::AttributeFlags);
    }
    let octets = update("", &[ORIGIN, AS_PATH, LOCAL_PREF, &REACH.replace("800e", "c00e")].join(" "), "");
    let update = used(INTERNAL, &octets);
    assert_eq!(only_fault(&update), (14, UpdateError::AttributeFlags, Handling::TreatAsWithdraw));
    assert_eq!(update.withdrawn, ["2001:db8:0:1::/64".parse().unwrap()], "its routes are found all the same");
}

#[test]
fn rfc7606_3d_missing_mandatory_attributes_withdraw_the_routes() {
    let missing = |codec, code, attributes: &[&str]| {
        let octets = update("", &attributes.join(" "), IPV4);
        treated_as_withdraw(codec, &octets, code, UpdateError::MissingWellKnown);
    };
    missing(EXTERNAL, 1, &[AS_PATH, NEXT_HOP]);
    missing(EXTERNAL, 2, &[ORIGIN, NEXT_HOP]);
    missing(EXTERNAL, 3, &[ORIGIN, AS_PATH]);
    missing(INTERNAL, 5, &[ORIGIN, AS_PATH, NEXT_HOP]);
    // With MP_REACH_NLRI alone, NEXT_HOP is not missing (RFC 4760 section 3).
    let update = used(EXTERNAL, &update("", &[ORIGIN, AS_PATH, REACH].join(" "), ""));
    assert_eq!((update.faults.len(), update.reach.len()), (0, 1));
}

#[test]
fn rfc7606_4_attributes_that_overrun_their_field_withdraw_the_routes() {
    for (tail, code) in [("80", 0), ("8004", 4), ("8004 04 00", 4), ("d0c8 ffff", 200), ("90", 0)] {
        treated_as_withdraw(EXTERNAL, &with(tail), code, UpdateError::AttributeLength);
    }
}

#[test]
fn rfc7606_5_2_a_malformed_attribute_without_routes_ends_the_session() {
    let (error, _, offset) = reset(EXTERNAL, &update("", &["4001 01 07", AS_PATH].join(" "), ""));
    assert_eq!((error, offset), (ErrorCode::Update(UpdateError::InvalidOrigin), 23));
    // Attributes to be discarded are no reason.
    let update = used(EXTERNAL, &update("18 0a4200", "4006 01 00", ""));
    assert_eq!((update.withdrawn.len(), update.faults.len()), (1, 1));
}

#[test]
fn rfc7606_5_2_wrong_flags_of_mp_unreach_nlri_alone_are_forgiven() {
    let update = used(EXTERNAL, &update("", "c00f 05 0002 01 08 fd", ""));
    assert_eq!(update.withdrawn, ["fd00::/8".parse().unwrap()]);
    assert_eq!(only_fault(&update), (15, UpdateError::AttributeFlags, Handling::TreatAsWithdraw));
}

#[test]
fn rfc7606_7_1_origin() {
    let octets = |origin| update("", &[origin, AS_PATH, NEXT_HOP].join(" "), IPV4);
    treated_as_withdraw(EXTERNAL, &octets("4001 01 03"), 1, UpdateError::InvalidOrigin);
    treated_as_withdraw(EXTERNAL, &octets("4001 00"), 1, UpdateError::AttributeLength);
    treated_as_withdraw(EXTERNAL, &octets("4001 02 0000"), 1, UpdateError::AttributeLength);
}

#[test]
fn rfc7606_7_2_and_rfc7607_2_as_path() {
    for path in [
        "4002 02 02 00",             // an empty segment
        "4002 01 02",                // a cut segment
        "4002 06 02 02 0000fc01",    // an overrun
        "4002 07 02 01 0000fc01 00", // an octet too many
        "4002 06 05 01 0000fc01",    // an unknown segment type
        "4002 06 03 01 0000fc01",    // a confederation's (RFC 5065 section 5)
        "4002 06 02 01 00000000",    // AS 0 (RFC 7607 section 2)
    ] {
        let octets = update("", &[ORIGIN, path, NEXT_HOP].join(" "), IPV4);
        treated_as_withdraw(EXTERNAL, &octets, 2, UpdateError::MalformedAsPath);
    }
}

#[test]
fn rfc7606_3e_and_7_3_next_hop() {
    let octets = |next_hop: &str| update("", &[ORIGIN, AS_PATH, next_hop].join(" "), IPV4);
    treated_as_withdraw(EXTERNAL, &octets("4003 03 c00002"), 3, UpdateError::AttributeLength);
    for address in ["00000000", "e0000001", "ffffffff"] {
        let octets = octets(&format!("4003 04 {address}"));
        treated_as_withdraw(EXTERNAL, &octets, 3, UpdateError::InvalidNextHop);
    }
}

#[test]
fn rfc7606_7_4_to_7_10_lengths_of_the_other_attributes() {
    let internal = |more: &str| update("", &[ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF, more].join(" "), IPV4);
    let length = UpdateError::AttributeLength;
    treated_as_withdraw(EXTERNAL, &with("8004 03 000001"), 4, length);
    let wrong_local_pref = update("", &[ORIGIN, AS_PATH, NEXT_HOP, "4005 02 0001"].join(" "), IPV4);
    treated_as_withdraw(INTERNAL, &wrong_local_pref, 5, length);
    discarded(EXTERNAL, &with("4006 01 00"), 6, length);
    for aggregator in ["c007 06 fc01 0a000009", "c007 03 000000", "c007 0a 0000 0000fc01 0a000009"] {
        discarded(EXTERNAL, &with(aggregator), 7, length);
    }
    discarded(EXTERNAL, &with("c007 08 00000000 0a000009"), 7, UpdateError::OptionalAttribute);
    treated_as_withdraw(EXTERNAL, &with("c008 00"), 8, length);
    treated_as_withdraw(EXTERNAL, &with("c008 05 0000000000"), 8, length);
    treated_as_withdraw(INTERNAL, &internal("8009 05 0a00000700"), 9, length);
    treated_as_withdraw(INTERNAL, &internal("8009 04 00000000"), 9, UpdateError::OptionalAttribute);
    treated_as_withdraw(INTERNAL, &internal("800a 00"), 10, length);
    treated_as_withdraw(INTERNAL, &internal("800a 06 0a0000010000"), 10, length);
}

#[test]
fn rfc7606_7_5_and_7_9_and_7_10_what_only_internal_peers_may_send_is_discarded_from_an_external_one() {
    for (attribute, code) in [(LOCAL_PREF, 5), ("8009 04 0a000007", 9), ("800a 04 0a000001", 10), ("4005 01 00", 5)] {
        let update = discarded(EXTERNAL, &with(attribute), code, UpdateError::Unspecific);
        let attributes = update.attributes.unwrap();
        assert_eq!((attributes.local_pref, attributes.originator_id), (None, None));
        assert_eq!(attributes.cluster_list, []);
    }
}

#[test]
fn rfc4760_3_an_ipv6_next_hop_that_is_no_host_withdraws_the_routes() {
    let address = "20010db8000000000000000000000001";
    for wrong in ["00000000000000000000000000000000", "ff020000000000000000000000000001"] {
        let octets = update("", &[ORIGIN, AS_PATH, &REACH.replace(address, wrong)].join(" "), "");
        let update = used(EXTERNAL, &octets);
        assert_eq!(only_fault(&update), (14, UpdateError::InvalidNextHop, Handling::TreatAsWithdraw));
        assert_eq!(update.withdrawn, ["2001:db8:0:1::/64".parse().unwrap()]);
    }
}

#[test]
fn rfc6793_6_as4_attributes_between_speakers_of_four_octets_and_malformed_ones_are_discarded() {
    for (attribute, code) in [("c011 06 02 01 0000fc01", 17), ("c012 08 0000fc01 0a000009", 18)] {
        discarded(EXTERNAL, &with(attribute), code, UpdateError::OptionalAttribute);
    }
    let old = |more: &str| update("", &[ORIGIN, "4002 04 02 01 fc01", NEXT_HOP, more].join(" "), IPV4);
    discarded(TWO_OCTETS, &old("c011 05 02 01 0000fc"), 17, UpdateError::OptionalAttribute);
    discarded(TWO_OCTETS, &old("c012 06 fc01 0a000009"), 18, UpdateError::AttributeLength);
}

#[test]
fn rfc7606_3h_the_strongest_of_several_faults_decides() {
    let update = used(EXTERNAL, &with("4006 01 00 8004 01 00"));
    let handlings: Vec<_> = update.faults.iter().map(|fault| (fault.attribute, fault.handling)).collect();
    assert_eq!(handlings, [(6, Handling::AttributeDiscard), (4, Handling::TreatAsWithdraw)]);
    assert_eq!((update.reach.len(), update.withdrawn.len()), (0, 1));
    let words: Vec<_> = update.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "attribute 6 at octet 43: attribute length error; attribute discarded",
            "attribute 4 at octet 47: attribute length error; routes treated as withdrawn",
        ]
    );
}

#[test]
fn rfc2918_3_a_route_refresh_of_another_length_is_a_bad_length() {
    assert_eq!(reset(INTERNAL, &message(5, "0001 00")).0, ErrorCode::Header(HeaderError::BadLength));
    assert_eq!(reset(INTERNAL, &message(5, "0001 00 01 00")).0, ErrorCode::Header(HeaderError::BadLength));
}

#[test]
fn errors_are_told_in_words_with_their_place() {
    let error = EXTERNAL.decode(&with("40c8 02 abcd")).unwrap_err();
    assert_eq!(error.to_string(), "UPDATE message error: unrecognized well-known attribute, at octet 43");
}
