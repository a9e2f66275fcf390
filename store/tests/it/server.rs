//! A real etcd, and what stands between it and us.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use etcd_client::Client;
use tempfile::TempDir;
use tests::say_skipped;
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::watching::TEST_TIME_LIMIT;

/// An etcd of its own, killed when dropped.
pub(crate) struct Server {
    child: Option<Child>,
    scratch: TempDir,
    client_port: u16,
    peer_port: u16,
    tls: Option<ServerTls>,
}

/// Certificates of a server that wants client certificates.
pub(crate) struct ServerTls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Server {
    /// Starts an etcd on free ports of the loopback; none, said loudly, where there is none to start.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<ServerTls>) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            say_skipped(&"etcd is not installed");
            return None;
        }
        let scratch = tempfile::tempdir().unwrap();
        let (client_port, peer_port) = (free_port(), free_port());
        let mut server = Self { child: None, scratch, client_port, peer_port, tls };
        server.run();
        server.wait().await;
        Some(server)
    }

    /// A server that the tests of this process share; it is killed with the last of them.
    pub(crate) async fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let held = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = held().upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start().await?);
        // Two may have started one at once: the later keeps the place, the earlier serves its own test.
        *held() = Arc::downgrade(&server);
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.client_port
    }

    /// A connection past the store, for what an operator does.
    pub(crate) async fn operator(&self) -> Client {
        Client::connect([self.url()], None).await.unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again with the same data on the same ports.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.run();
        self.wait().await;
    }

    /// Starts another, empty one in its place.
    pub(crate) async fn replace(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.scratch.path().join("data")).unwrap();
        self.run();
        self.wait().await;
    }

    fn run(&mut self) {
        let client = self.url();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.scratch.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--log-level", "error", "--unsafe-no-fsync"]);
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
        }
        let log = std::fs::File::create(self.scratch.path().join("log")).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Until it takes connections; whoever asks more of it repeats the question.
    async fn wait(&mut self) {
        let deadline = Instant::now() + TEST_TIME_LIMIT;
        while !self.serves().await {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            let log = || std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "etcd did not start: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn serves(&self) -> bool {
        if self.tls.is_some() {
            return TcpStream::connect(("127.0.0.1", self.client_port)).await.is_ok();
        }
        let Ok(mut client) = Client::connect([self.url()], None).await else { return false };
        client.status().await.is_ok_and(|status| status.leader() != 0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A way to a port that can be cut. Connections through it break when it is, and new ones are refused.
pub(crate) struct Wire {
    port: u16,
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(target: u16) -> Self {
        let listener = AsyncListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, is_open) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(near, target, is_open.clone()));
            }
        });
        Self { port, open, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut near: TcpStream, target: u16, mut open: watch::Receiver<bool>) {
    if !*open.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}

/// A port that nobody listens on, as far as one can know.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
