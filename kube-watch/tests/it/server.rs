//! A real kube-apiserver with an etcd of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::say_skipped;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::cluster::TestedCluster;
use crate::picture::TEST_TIME_LIMIT;

/// The bearer token of the one user that may do everything.
const ADMIN: &str = "admin-token";

/// An API server on a free port of the loopback. It dies with this value, or with the process.
pub(crate) struct Server {
    etcd: Option<Child>,
    apiserver: Option<Child>,
    /// Where the components are.
    assets: PathBuf,
    scratch: TempDir,
    port: u16,
    etcd_port: u16,
}

impl Server {
    /// The server that the tests of this process share; it ends with the last of them. None, said loudly, where there is
    /// none to start.
    pub(crate) async fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start().await?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// A server of one's own, to be maltreated.
    pub(crate) async fn start() -> Option<Self> {
        let assets = assets()?;
        let scratch = tempfile::tempdir().unwrap();
        let key = scratch.path().join("service-account.key");
        let openssl = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output().unwrap();
        assert!(openssl.status.success(), "{openssl:?}");
        std::fs::write(scratch.path().join("tokens"), format!("{ADMIN},admin,admin,system:masters\n")).unwrap();
        let mut server =
            Self { etcd: None, apiserver: None, assets, scratch, port: free_port(), etcd_port: free_port() };
        server.run_etcd();
        server.run().await;
        Some(server)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// A file of this server.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The certificates by which its own is verified.
    pub(crate) fn ca(&self) -> PathBuf {
        self.file("certs/apiserver.crt")
    }

    /// A kubeconfig for a token on a port that leads here, in a file of its own.
    pub(crate) fn kubeconfig(&self, port: u16, user: &Value) -> PathBuf {
        let ca = self.ca();
        let kubeconfig = serde_json::json!({
            "clusters": [{ "name": "c", "cluster": { "server": url(port), "certificate-authority": ca } }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        let (file, path) =
            tempfile::Builder::new().prefix("kubeconfig").tempfile_in(self.scratch.path()).unwrap().keep().unwrap();
        drop(file);
        // JSON is YAML.
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// The kubeconfig of the administrator.
    pub(crate) fn admin(&self, port: u16) -> PathBuf {
        self.kubeconfig(port, &serde_json::json!({ "token": ADMIN }))
    }

    /// What an administrator does to it.
    pub(crate) async fn cluster(&self) -> TestedCluster {
        TestedCluster::of(&self.admin(self.port)).await
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        end(&mut self.apiserver);
    }

    /// Starts the API server, until it says it is ready.
    pub(crate) async fn run(&mut self) {
        let file = |name: &str| self.file(name).display().to_string();
        let mut command = supervised(&self.assets.join("kube-apiserver"));
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--cert-dir={}", file("certs")))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", file("service-account.key")))
            .arg(format!("--service-account-signing-key-file={}", file("service-account.key")))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg(format!("--token-auth-file={}", file("tokens")))
            .arg("--authorization-mode=RBAC")
            // Pods of these tests name no service account, and nobody makes the default one.
            .arg("--disable-admission-plugins=ServiceAccount");
        self.apiserver = Some(spawn(command, &self.file("apiserver.log")));
        let deadline = Instant::now() + TEST_TIME_LIMIT;
        while !self.is_ready().await {
            let ended = self.apiserver.as_mut().and_then(|child| child.try_wait().unwrap());
            let log = || std::fs::read_to_string(self.file("apiserver.log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "kube-apiserver did not start: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Forgets the history of everything: neither etcd nor the API server's cache can tell what was before.
    pub(crate) async fn compact(&mut self) {
        let status: Value = serde_json::from_slice(&self.etcdctl(&["endpoint", "status", "--write-out=json"])).unwrap();
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        self.kill();
        self.etcdctl(&["compact", &revision]);
        self.run().await;
    }

    /// Starts anew with an empty etcd: the history goes back to its beginning.
    pub(crate) async fn replace(&mut self) {
        self.kill();
        end(&mut self.etcd);
        std::fs::remove_dir_all(self.file("data")).unwrap();
        self.run_etcd();
        self.run().await;
    }

    async fn is_ready(&self) -> bool {
        self.ca().exists()
            && TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
            && self.cluster().await.is_ready().await
    }

    fn run_etcd(&mut self) {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = supervised(Path::new("etcd"));
        command
            .arg("--data-dir")
            .arg(self.file("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--log-level", "error", "--unsafe-no-fsync"]);
        self.etcd = Some(spawn(command, &self.file("etcd.log")));
    }

    fn etcdctl(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{}", self.etcd_port)).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.apiserver);
        end(&mut self.etcd);
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// The folder with the Kubernetes components: `KUBEBUILDER_ASSETS`, else where `tests/kubernetes/build.sh` puts them. None,
/// said loudly, where they are not, or where `MANX_LABS=off` says that the quick tests alone are wanted.
fn assets() -> Option<PathBuf> {
    if std::env::var_os("MANX_LABS").is_some_and(|wanted| wanted == "off") {
        say_skipped(&"labs and API servers are switched off (MANX_LABS=off)");
        return None;
    }
    let found = match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
            cache.join("manx/kubernetes").join(version()?)
        }
    };
    if !found.join("kube-apiserver").exists() {
        say_skipped(&format!("no kube-apiserver in {}; tests/kubernetes/build.sh builds it", found.display()));
        return None;
    }
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
        say_skipped(&"etcd, which kube-apiserver needs, is not installed");
        return None;
    }
    Some(found)
}

/// The version of Kubernetes that the tests are for.
fn version() -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kubernetes/go.mod");
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("\tk8s.io/kubernetes ")).map(str::to_owned)
}

/// A program that is killed with whoever starts it.
fn supervised(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a program from a thread that stays: the death of a parent is the death of the thread that started the child
/// (PR_SET_PDEATHSIG(2const)), and a test's thread ends with the test.
fn spawn(mut command: Command, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let (started, child) = mpsc::channel();
    thread::spawn(move || {
        started.send(command.spawn().unwrap()).unwrap();
        loop {
            thread::park();
        }
    });
    child.recv().unwrap()
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A port that nobody listens on, as far as one can know.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
