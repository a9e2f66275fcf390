//! One HTTP GET inside a namespace: enough for health checks, and independent of the programs under test.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::namespace::run_in;

/// How long connecting, and then each read, may take.
const ANSWER_TIME_LIMIT: Duration = Duration::from_secs(2);

/// The answer to an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body (chunked coding is not undone).
    pub body: String,
}

/// Asks an address as seen from a network namespace.
pub(crate) fn get(netns: &File, address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = run_in(netns, || TcpStream::connect_timeout(&address, ANSWER_TIME_LIMIT))?;
    stream.set_read_timeout(Some(ANSWER_TIME_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {head:?}")))?;
    Ok(Answer { status, body: body.to_owned() })
}
