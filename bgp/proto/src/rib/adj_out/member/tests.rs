use super::*;

fn prefixes(range: std::ops::Range<u8>) -> Arc<[Prefix]> {
    range.map(|number| Prefix::host([192, 0, 2, number].into())).collect()
}

#[test]
fn what_was_missed_again_and_again_is_told_once() {
    let mut member = Member::new(Cursor::default(), false);
    for _ in 0..100 {
        member.miss(&prefixes(0..10));
    }
    assert!(member.missed.len() <= MISSED_BATCHES);
    let mut told = Vec::new();
    loop {
        let next = member.next_missed(3);
        if next.is_empty() {
            break;
        }
        told.extend(next);
    }
    assert!(told.len() <= 10 * MISSED_BATCHES, "{}", told.len());
}
