//! An agent for tests: it plays a script to each connection and remembers what it heard.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::{io::Write as _, thread};

use types::cni::{self, Reply, Request};

/// What the agent does once it has heard a request.
pub(crate) enum Play {
    /// Sends this answer.
    Say(Reply),
    /// Does something first, then sends this answer.
    After(Box<dyn FnOnce() + Send>, Reply),
    /// Sends octets that are no message.
    Babble(&'static [u8]),
    /// Says nothing, but keeps the connection until the other end closes it.
    Muse,
    /// Closes the connection.
    HangUp,
}

pub(crate) struct FakeAgent {
    socket: PathBuf,
    thread: JoinHandle<Vec<Vec<Request>>>,
}

impl FakeAgent {
    /// Listens at once; serves as many connections as there are scripts.
    pub(crate) fn start(socket: &Path, scripts: Vec<Vec<Play>>) -> Self {
        // An agent before this one may have left its socket.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let serve = move || scripts.into_iter().map(|script| converse(listener.accept().unwrap().0, script)).collect();
        Self { socket: socket.to_owned(), thread: thread::spawn(serve) }
    }

    /// What was heard on each connection, once all scripts are played.
    pub(crate) fn heard(self) -> Vec<Vec<Request>> {
        let heard = self.thread.join().unwrap();
        std::fs::remove_file(self.socket).unwrap();
        heard
    }
}

fn converse(mut stream: UnixStream, script: Vec<Play>) -> Vec<Request> {
    let mut heard = Vec::new();
    for play in script {
        let Ok(request) = cni::read(&mut stream) else { return heard };
        heard.push(request);
        // A reply that nobody waits for is no failure of the agent.
        match play {
            Play::Say(reply) => drop(cni::write(&mut stream, &reply)),
            Play::After(act, reply) => {
                act();
                drop(cni::write(&mut stream, &reply));
            }
            Play::Babble(octets) => drop(stream.write_all(octets)),
            Play::Muse => {}
            Play::HangUp => return heard,
        }
    }
    // Reading goes on until the other end closes.
    while let Ok(request) = cni::read(&mut stream) {
        heard.push(request);
    }
    heard
}
