use super::*;

fn run(number: u8, length: usize) -> Packed {
    Packed { octets: Bytes::from(vec![number; length]), messages: 1 }
}

fn log(count: u8) -> Log {
    let mut log = Log::default();
    for number in 0..count {
        log.append(run(number, 10));
    }
    log
}

fn read(log: &Log, cursor: &mut Cursor, mut budget: usize) -> Vec<u8> {
    let mut out = Vec::new();
    log.read(cursor, &mut out, &mut budget);
    out.iter().map(|message| message[0]).collect()
}

#[test]
fn every_member_reads_all_messages_in_order_at_its_own_pace() {
    let mut log = log(5);
    let (mut quick, mut slow) = (log.tail(), log.tail());
    assert_eq!(read(&log, &mut quick, 1_000), [0, 1, 2, 3, 4]);
    assert_eq!(read(&log, &mut slow, 11), [0, 1], "a budget is overdrawn by no more than one message");
    log.trim(slow);
    log.append(run(5, 1));
    assert_eq!(read(&log, &mut slow, 1_000), [2, 3, 4, 5]);
    assert_eq!(read(&log, &mut quick, 1_000), [5]);
    assert_eq!(quick, log.head());
    log.trim(quick);
    assert_eq!((log.bytes(), log.tail()), (0, log.head()));
}

#[test]
fn a_cut_leaves_no_more_than_the_limit() {
    let mut log = log(5);
    assert_eq!(log.cut_for(50), log.tail());
    let cut = log.cut_for(25);
    assert_eq!(log.until(cut).count(), 3);
    log.trim(cut);
    assert_eq!(log.bytes(), 20);
}
