use super::*;

fn path(peer: u16, attrs: u32) -> Path {
    Path::new(PeerIndex(peer), Source::Internal, AttrId(attrs), Generation::default(), Admission::default())
}

#[test]
fn a_path_costs_eight_bytes_and_one_path_needs_no_allocation() {
    assert_eq!(size_of::<Path>(), 8);
    assert!(size_of::<Paths>() <= 24);
}

#[test]
fn rfc4271_3_1_a_new_route_of_a_peer_replaces_its_old_one() {
    let mut paths = Paths::default();
    assert_eq!(paths.insert(path(1, 1)), None);
    assert_eq!(paths.insert(path(2, 2)), None);
    assert_eq!(paths.insert(path(1, 3)), Some(path(1, 1)));
    assert_eq!(paths.as_slice(), [path(1, 3), path(2, 2)]);
    let mut removed = Vec::new();
    paths.remove(|path| path.peer == PeerIndex(1), |path| removed.push(path));
    assert_eq!((paths.as_slice(), removed.as_slice()), ([path(2, 2)].as_slice(), [path(1, 3)].as_slice()));
    paths.remove(|_| true, |path| removed.push(path));
    assert_eq!((paths.as_slice().len(), removed.len()), (0, 2));
}

#[test]
fn marks_do_not_disturb_each_other() {
    let old = Generation::default();
    let refused = Admission { refusal: Some(Refusal::AsPath), doubted: false };
    let mut path = Path::new(PeerIndex(1), Source::External, AttrId(1), old.next(), refused);
    assert!(path.admission() == refused && path.generation() == old.next());
    path.set_admission(Admission { refusal: None, doubted: true });
    assert!(path.admission() != refused && path.generation() == old.next());
}
