//! One TCP connection: its socket, shared by a reader task that cuts messages out of the stream and the speaker's owner,
//! which writes.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bgp_proto::{ConnId, wire};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::tasks::SocketEvent;

/// Messages that one write hands to the kernel. More gain nothing: it takes 1,024 slices at most and buffers far less.
const MESSAGES_PER_WRITE: usize = 64;

/// Octets that one read has room for: many small messages, or a good part of a table.
const OCTETS_PER_READ: usize = 64 * 1024;

/// Octets of one connection that may wait for the owner. What comes behind them waits in the socket, so that a peer with
/// much to say is no more in another's way than this.
const OCTETS_WAITING: usize = 32 * 1024;

/// A message on its way to the owner.
#[derive(Debug)]
pub(crate) struct Received {
    /// The message.
    pub(crate) message: Bytes,
    /// Makes room for another one when it is dropped.
    _room: OwnedSemaphorePermit,
}

/// The owner's end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket, which the reader task reads from.
    stream: Arc<TcpStream>,
    /// Encoded messages that the socket has not taken yet; the first may be written in part.
    queue: std::collections::VecDeque<Bytes>,
    /// Notified when the socket was full, so that the reader task reports when it has room again.
    want_write: Arc<Notify>,
    /// How many octets the kernel has taken.
    written: u64,
    /// Ends the reader task when dropped.
    _reader: AbortOnDrop,
}

impl Connection {
    pub(crate) fn new(stream: Arc<TcpStream>, want_write: Arc<Notify>, reader: tokio::task::AbortHandle) -> Self {
        Self { stream, queue: std::collections::VecDeque::new(), want_write, written: 0, _reader: AbortOnDrop(reader) }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Messages to send next, behind those that wait.
    pub(crate) fn enqueue(&mut self, messages: impl IntoIterator<Item = Bytes>) {
        self.queue.extend(messages);
    }

    /// Whether everything has been handed to the kernel.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many octets the kernel has taken so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How many of them the peer's TCP has acknowledged. An error where the connection has ended.
    pub(crate) fn acknowledged(&self) -> io::Result<u64> {
        let unacknowledged = kernel::unacknowledged(&*self.stream)?;
        // After a reset the kernel owes nothing to anybody, which is no acknowledgement: there is no peer any more.
        self.stream.peer_addr()?;
        Ok(self.written.saturating_sub(unacknowledged))
    }

    /// Writes as much as the socket takes, many messages at a time. A full socket is no error: the reader task reports
    /// when there is room again.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let slices: Vec<_> =
                self.queue.iter().take(MESSAGES_PER_WRITE).map(|message| IoSlice::new(message)).collect();
            match self.stream.try_write_vectored(&slices) {
                Ok(written) => self.taken(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.want_write.notify_one();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops from the queue the octets that the kernel has taken.
    fn taken(&mut self, mut written: usize) {
        self.written += written as u64;
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
    }
}

/// A task that does not outlive this value.
#[derive(Debug)]
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reader task: whole messages to the owner, in order, until the connection ends.
pub(crate) async fn read(
    id: ConnId,
    stream: Arc<TcpStream>,
    want_write: Arc<Notify>,
    events: mpsc::Sender<SocketEvent>,
) {
    let mut buffer = BytesMut::new();
    let room = Arc::new(Semaphore::new(OCTETS_WAITING));
    let mut waiting_to_write = false;
    loop {
        let event = tokio::select! {
            ready = stream.readable() => match ready.and_then(|()| fill(&stream, &mut buffer)) {
                Ok(Filled::Some) => None,
                Ok(Filled::Nothing) => continue,
                Ok(Filled::End) => Some(SocketEvent::Closed(id, None)),
                Err(error) => Some(SocketEvent::Closed(id, Some(error))),
            },
            ready = stream.writable(), if waiting_to_write => {
                waiting_to_write = false;
                match ready {
                    Ok(()) => Some(SocketEvent::Writable(id)),
                    Err(error) => Some(SocketEvent::Closed(id, Some(error))),
                }
            }
            () = want_write.notified() => {
                waiting_to_write = true;
                continue;
            }
        };
        let closed = matches!(event, Some(SocketEvent::Closed(..)));
        let sent = match event {
            Some(event) => events.send(event).await.is_ok(),
            None => deliver(id, &mut buffer, &room, &events).await,
        };
        if closed || !sent {
            return;
        }
    }
}

/// What a read has brought.
enum Filled {
    /// Octets.
    Some,
    /// Nothing: the socket was not readable after all.
    Nothing,
    /// The peer's end of the stream.
    End,
}

/// Appends what the socket has to the buffer, without waiting.
fn fill(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<Filled> {
    buffer.reserve(OCTETS_PER_READ);
    match stream.try_read_buf(buffer) {
        Ok(0) => Ok(Filled::End),
        Ok(_) => Ok(Filled::Some),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
        Err(error) => Err(error),
    }
}

/// Hands on the whole messages that the buffer begins with; false when reading is over.
async fn deliver(id: ConnId, buffer: &mut BytesMut, room: &Arc<Semaphore>, events: &mpsc::Sender<SocketEvent>) -> bool {
    loop {
        let (message, last) = match wire::frame_length(buffer) {
            Ok(None) => return true,
            Ok(Some(length)) if length > buffer.len() => return true,
            Ok(Some(length)) => (buffer.split_to(length).freeze(), false),
            // The speaker finds the same fault in the header and answers it; nothing behind it can be framed.
            Err(_) => (buffer.split().freeze(), true),
        };
        // What cannot be framed is as long as a read at most, and counts as what there is room for.
        let octets = u32::try_from(message.len().min(OCTETS_WAITING)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let Ok(room) = Arc::clone(room).acquire_many_owned(octets).await else { return false };
        let received = Received { message, _room: room };
        if events.send(SocketEvent::Received(id, received)).await.is_err() || last {
            return false;
        }
    }
}

#[cfg(test)]
mod tests;
