use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn a_full_socket_loses_nothing_and_is_reported_when_there_is_room_again() {
    let (ours, mut theirs) = pair().await;
    let (stream, want_write) = (Arc::new(ours), Arc::new(Notify::new()));
    let (events, mut inbox) = mpsc::channel(16);
    let reader = tokio::spawn(read(ConnId::new(1), Arc::clone(&stream), Arc::clone(&want_write), events));
    let mut connection = Connection::new(stream, want_write, reader.abort_handle());
    let message = Bytes::from(vec![7; 4_096]);
    connection.enqueue(std::iter::repeat_n(message, 10_000));
    connection.flush().unwrap();
    assert!(!connection.is_drained(), "forty megabytes fit no socket buffer");

    let drain = tokio::spawn(async move {
        let mut count = 0_usize;
        let mut buffer = vec![0; 1 << 16];
        while count < 40_960_000 {
            let read = tokio::io::AsyncReadExt::read(&mut theirs, &mut buffer).await.unwrap();
            assert!(buffer[..read].iter().all(|byte| *byte == 7));
            count += read;
        }
        count
    });
    while !connection.is_drained() {
        let event = inbox.recv().await;
        assert!(matches!(event, Some(SocketEvent::Writable(_))), "{event:?}");
        connection.flush().unwrap();
    }
    assert_eq!(drain.await.unwrap(), 40_960_000);
}

#[tokio::test]
async fn messages_are_cut_out_of_the_stream_however_it_is_split() {
    let (ours, mut theirs) = pair().await;
    let (stream, want_write) = (Arc::new(ours), Arc::new(Notify::new()));
    let (events, mut inbox) = mpsc::channel(16);
    tokio::spawn(read(ConnId::new(1), stream, want_write, events));
    let mut keepalive = vec![0xff; 16];
    keepalive.extend([0, 19, 4]);
    let mut bytes = keepalive.repeat(2);
    bytes.extend([0; 19]);
    for part in bytes.chunks(7) {
        tokio::io::AsyncWriteExt::write_all(&mut theirs, part).await.unwrap();
    }
    for _ in 0..2 {
        match inbox.recv().await {
            Some(SocketEvent::Received(_, received)) => assert_eq!(received.message[..], keepalive[..]),
            other => panic!("{other:?}"),
        }
    }
    // A header without the marker is handed on as it is, for the speaker to answer, and ends the reading.
    assert!(matches!(inbox.recv().await, Some(SocketEvent::Received(..))));
    assert!(inbox.recv().await.is_none());
}
