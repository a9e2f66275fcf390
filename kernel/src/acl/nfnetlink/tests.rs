use super::*;

#[test]
fn attributes_are_read_as_they_were_written_and_a_cut_one_ends_them() {
    let mut request = Request::new(message_type(libc::NFNL_SUBSYS_IPSET, 9), 2, 0, 7);
    request.put_text(2, "manx-a");
    request.nest(7, |request| request.put_be32(18, 1024));
    assert_eq!(request.kind, 0x0609);
    assert_eq!(request.body[..4], [2, 0, 0, 7]);
    let body = &request.body[4..];
    let read: Vec<_> = attributes(body).collect();
    assert_eq!(read.len(), 2);
    assert_eq!(text(read[0].1).as_deref(), Some("manx-a"));
    assert_eq!(attribute(read[1].1, 18).and_then(be32), Some(1024));
    for length in 0..body.len() {
        assert!(attributes(&body[..length]).count() < 2, "{length}");
    }
    assert_eq!(attributes(&[0, 0, 0, 0, 0, 0, 0, 0]).count(), 0, "a length below the header's");
}
