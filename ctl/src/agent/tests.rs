use super::*;
use types::api::{ExplainQuery, ShowQuery};

#[test]
fn queries_are_encoded_for_a_url() {
    let query = ExplainQuery {
        source: "fd00::1".parse().unwrap(),
        destination: "10.0.0.1".parse().unwrap(),
        protocol: None,
        port: Some(80),
    };
    let encoded = encode(&serde_json::to_value(query).unwrap());
    assert_eq!(encoded, "destination=10.0.0.1&port=80&source=fd00::1");
    let query = ShowQuery { endpoint: "manx/0123abc/eth&0%".parse().unwrap() };
    assert_eq!(encode(&serde_json::to_value(query).unwrap()), "endpoint=manx/0123abc/eth%260%25");
}

#[tokio::test]
async fn lines_are_values_however_the_agent_cuts_them() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let body =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n1\n2\r\n4\r\n2\n\n3\r\n1\r\n\n\r\n0\r\n\r\n";
        stream.write_all(body).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let mut lines = Agent::new(socket).lines("/v1/policy/log").await.unwrap();
    let mut values = Vec::new();
    while let Some(value) = lines.next::<u32>().await.unwrap() {
        values.push(value);
    }
    assert_eq!(values, [1, 22, 3]);
    assert!(server.await.unwrap().starts_with("GET /v1/policy/log HTTP/1.1"));
}
