//! An etcd client over its gateway for HTTP and JSON: one connection, one request at a time, so that the moment at which a
//! write returns is known to the microsecond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ::tests::{Lab, Place, run_in};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use types::Family;

/// The prefix of all keys (`etcd.prefix`).
const KEYS: &str = "/manx/v1/";

/// How many operations etcd takes in one transaction (`--max-txn-ops`).
const TRANSACTION: usize = 128;

/// Asks that a key has this value, in the envelope that every value has.
pub(crate) struct Put(pub(crate) String, pub(crate) Value);

impl Put {
    fn operation(&self) -> Value {
        let Self(key, spec) = self;
        json!({ "requestPut": { "key": full(key), "value": value(spec) } })
    }
}

fn full(key: &str) -> String {
    base64(format!("{KEYS}{key}").as_bytes())
}

fn value(spec: &Value) -> String {
    base64(json!({ "version": 1, "spec": spec }).to_string().as_bytes())
}

/// A connection to etcd's gateway.
pub(crate) struct Etcd {
    stream: TcpStream,
    host: String,
}

impl Etcd {
    /// Connects from a node of the lab, as its agent does.
    pub(crate) fn connect(lab: &Lab) -> anyhow::Result<Self> {
        let address = SocketAddr::new(lab.node("etcd").management_address(Family::Ipv4), 2379);
        let netns = lab.node("node1").netns().context("the network namespace of node1")?;
        let stream = run_in(&netns, || TcpStream::connect(address)).context("connecting to etcd")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream, host: address.to_string() })
    }

    /// Writes one key; returns the moment at which etcd's answer was there.
    pub(crate) fn put(&mut self, key: &str, spec: &Value) -> anyhow::Result<Instant> {
        self.post("/v3/kv/put", &json!({ "key": full(key), "value": value(spec) })).map(|(answered, _)| answered)
    }

    /// Writes many keys, in as few transactions as etcd takes.
    pub(crate) fn put_all(&mut self, puts: impl IntoIterator<Item = Put>) -> anyhow::Result<()> {
        let mut puts = puts.into_iter().peekable();
        while puts.peek().is_some() {
            let operations: Vec<Value> = puts.by_ref().take(TRANSACTION).map(|put| put.operation()).collect();
            self.post("/v3/kv/txn", &json!({ "success": operations }))?;
        }
        Ok(())
    }

    /// Deletes all keys that begin with this text.
    pub(crate) fn delete_all(&mut self, prefix: &str) -> anyhow::Result<()> {
        let mut end = format!("{KEYS}{prefix}").into_bytes();
        let last = end.last_mut().context("an empty prefix")?;
        *last += 1;
        self.post("/v3/kv/deleterange", &json!({ "key": full(prefix), "range_end": base64(&end) })).map(drop)
    }

    fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<(Instant, Vec<u8>)> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).context("asking etcd")?;
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let length = self.stream.read(&mut part).context("etcd's answer")?;
            let now = Instant::now();
            ensure!(length > 0, "etcd closed the connection: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(part.get(..length).unwrap_or_default());
            if let Some((status, body)) = complete(&answer) {
                if status != 200 {
                    bail!("etcd answers {path} with {status}: {}", String::from_utf8_lossy(body));
                }
                return Ok((now, body.to_vec()));
            }
        }
    }
}

/// The status and body of an answer that is there in full. Its length is announced, or it ends with the last chunk.
fn complete(answer: &[u8]) -> Option<(u16, &[u8])> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let whole = match header("content-length") {
        Some(length) => body.len() >= length.parse().ok()?,
        None => body.ends_with("0\r\n\r\n"),
    };
    whole.then_some((status, body.as_bytes()))
}

/// The encoding base64 (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_those_of_the_rfc() {
        // The values are those of RFC 4648 section 10.
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn an_answer_is_complete_by_its_length_or_its_last_chunk() {
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), None);
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Some((200, &b"{}"[..])));
        assert_eq!(complete(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), None);
        assert!(complete(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n").is_some());
    }
}
