//! The decoder, and the encoder behind it.

use bgp_proto::wire::{Codec, Families, Message, Packer, PeerType, Reach, Update, frame_length};
use types::Family;

use crate::script::{Script, framed};

/// Decodes any octets, as any kind of session would. What decodes is encoded, and must decode to the same.
///
/// The first octet says what was agreed on and whether the rest is a message as it stands or the type and the body of
/// one.
pub fn decode(octets: &[u8]) {
    let mut script = Script::new(octets);
    let terms = script.octet();
    let codec = Codec {
        four_octet_as: terms & 1 == 0,
        peer_type: if terms & 2 == 0 { PeerType::Internal } else { PeerType::External },
        families: match terms >> 2 & 3 {
            0 | 1 => Families::ALL,
            2 => Families::only(Family::Ipv4),
            _ => Families::only(Family::Ipv6),
        },
    };
    let message = if terms & 16 == 0 {
        let kind = script.octet() % 6;
        framed(kind, script.octets(usize::MAX))
    } else {
        script.octets(usize::MAX).to_vec()
    };
    if let Ok(Some(length)) = frame_length(&message) {
        assert!((19..=4_096).contains(&length), "a message of {length} octets");
    }
    let decoded = match codec.decode(&message) {
        Ok(decoded) => decoded,
        Err(error) => {
            // The peer is told, so there must be a message to tell it with.
            let told = error.notification.encode();
            assert!(codec.decode(&told).is_ok(), "{error:?} is told as {told:?}");
            return;
        }
    };
    match decoded {
        Message::Update(update) => check_update(codec, &update),
        message => {
            let encoded = match &message {
                Message::Open(open) => open.encode(),
                Message::Notification(notification) => notification.encode(),
                Message::RouteRefresh(refresh) => refresh.encode(),
                Message::Keepalive | Message::Update(_) => return,
            };
            assert_eq!(codec.decode(&encoded), Ok(message));
        }
    }
}

fn check_update(codec: Codec, update: &Update) {
    assert_eq!(update.attributes.is_some(), !update.reach.is_empty());
    let announced = update.reach.iter().flat_map(|reach| &reach.prefixes);
    for prefix in announced.chain(&update.withdrawn) {
        assert!(codec.families.contains(prefix.family()), "{prefix} of a family that was not agreed on");
    }
    let mut packer = Packer::new(codec);
    for family in Family::ALL {
        packer.withdraw(family, update.withdrawn.iter().copied());
    }
    let mut withdrawn: Vec<_> = read(codec, &mut packer).into_iter().flat_map(|update| update.withdrawn).collect();
    let mut expected = update.withdrawn.clone();
    withdrawn.sort_unstable();
    expected.sort_unstable();
    assert_eq!(withdrawn, expected);
    if let Some(family) = update.end_of_rib {
        packer.end_of_rib(family);
        assert!(read(codec, &mut packer).iter().all(|update| update.end_of_rib == Some(family)));
    }
    let Some(attributes) = &update.attributes else { return };
    for Reach { family, next_hop, link_local, prefixes } in &update.reach {
        assert_eq!(Family::of(*next_hop), *family);
        // The attributes may have come with lengths of one octet and leave with two.
        if packer.reach(*next_hop, *link_local, attributes, prefixes.iter().copied()).is_err() {
            continue;
        }
        let mut found = Vec::new();
        for again in read(codec, &mut packer) {
            assert_eq!(again.faults, []);
            assert_eq!(again.attributes.as_ref(), Some(attributes));
            for reach in again.reach {
                assert_eq!((reach.next_hop, reach.link_local), (*next_hop, *link_local));
                found.extend(reach.prefixes);
            }
        }
        assert_eq!(&found, prefixes);
    }
}

/// What the packed messages say.
fn read(codec: Codec, packer: &mut Packer) -> Vec<Update> {
    let packed = packer.take();
    let mut octets = &packed.octets[..];
    let mut updates = Vec::new();
    while let Some(length) = frame_length(octets).unwrap() {
        let (message, rest) = octets.split_at(length);
        match codec.decode(message) {
            Ok(Message::Update(update)) => updates.push(update),
            other => panic!("our own UPDATE is read as {other:?}"),
        }
        octets = rest;
    }
    assert_eq!((updates.len(), octets.len()), (packed.messages, 0));
    updates
}
