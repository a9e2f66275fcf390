//! A way to a port that can be cut, or go dead without a word.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A port that leads to another. Connections through it end when it is cut, and new ones are refused until it is mended.
pub(crate) struct Wire {
    port: u16,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    open: bool,
    /// Connections of an earlier age carry nothing any more, and nobody is told.
    age: u32,
}

impl Wire {
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(State { open: true, age: 0 }));
        let states = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(near, target, states.subscribe()));
            }
        });
        Self { port, state, accepting }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.open = false);
    }

    pub(crate) fn mend(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// All connections through it go dead: they stay open and carry nothing. New ones are not affected.
    pub(crate) fn freeze(&self) {
        self.state.send_modify(|state| state.age += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut near: TcpStream, target: u16, mut state: watch::Receiver<State>) {
    let State { open, age } = *state.borrow();
    if !open {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let frozen = {
        let mut ages = state.clone();
        async move { ages.wait_for(|state| state.age != age).await.map(drop) }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        _ = state.wait_for(|state| !state.open) => return,
        _ = frozen => {}
    }
    // Held open, unread, until the wire is cut or gone.
    let _ = state.wait_for(|state| !state.open).await;
}
