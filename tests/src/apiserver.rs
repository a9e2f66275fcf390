//! The Kubernetes API server, the real one, beside the etcd of a lab.
//!
//! `tests/kubernetes/build.sh` makes it, once; nothing here does. It serves every node on the management network, and
//! knows one user, who may do everything.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use types::{EndpointPort, Family};

use crate::binaries::{can_run_labs, installed, say_skipped};
use crate::node::Node;
use crate::place::Place;
use crate::wait::wait_for;
use crate::{Lab, LabError, PodSpec};

const SERVICE: &str = "kube-apiserver";

/// The port on which the API server serves.
const PORT: u16 = 6443;

/// The token that its one user shows.
const TOKEN: &str = "lab";

/// The folder of its own files, in its node.
const FOLDER: &str = "/var/lib/kubernetes";

/// The path of the kubeconfig on nodes that were introduced to it.
const KUBECONFIG: &str = "/etc/manx/kubeconfig";

/// How long it may take to be ready: it fills an empty etcd first.
const READY: Duration = Duration::from_secs(60);

/// An API server in the node of an etcd.
#[derive(Debug, Clone, Copy)]
pub struct Apiserver<'a> {
    node: &'a Node,
}

impl<'a> Apiserver<'a> {
    /// The path of the program, where somebody has built it: in `KUBEBUILDER_ASSETS`, or in the newest folder of the
    /// cache.
    pub fn program() -> Option<PathBuf> {
        let is_there = |folder: PathBuf| Some(folder.join(SERVICE)).filter(|program| program.exists());
        if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") {
            return is_there(folder.into());
        }
        let set =
            |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| value.as_os_str() != OsStr::new(""));
        let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(Path::new(&set("HOME")?).join(".cache")))?;
        let folders = fs::read_dir(cache.join("manx/kubernetes")).ok()?;
        let mut folders: Vec<PathBuf> = folders.filter_map(|entry| Some(entry.ok()?.path())).collect();
        folders.sort();
        folders.into_iter().rev().find_map(is_there)
    }

    /// Whether this machine can run labs with it. If not, says so on standard error, as [`can_run_labs`] does.
    pub fn can_run() -> bool {
        let is_there = || Self::program().ok_or("there is no kube-apiserver (tests/kubernetes/build.sh)");
        can_run_labs() && is_there().map_err(|reason| say_skipped(&reason)).is_ok()
    }

    /// The API server of etcd's node that was started before.
    pub const fn on(node: &'a Node) -> Self {
        Self { node }
    }

    /// Starts it on etcd's node, and waits until it is ready.
    pub fn start(node: &'a Node) -> Result<Self, LabError> {
        let program = Self::program().ok_or_else(|| LabError::Missing {
            program: SERVICE.to_owned(),
            hint: "build it with tests/kubernetes/build.sh, or set KUBEBUILDER_ASSETS".to_owned(),
        })?;
        installed("openssl", "openssl")?;
        let server = Self { node };
        node.exec(&["mkdir", "-p", FOLDER])?;
        let key = format!("{FOLDER}/service-accounts.key");
        node.exec(&["openssl", "genrsa", "-out", &key, "2048"])?;
        let users = node.path(&format!("{FOLDER}/users.csv"));
        fs::write(&users, format!("{TOKEN},admin,admin,system:masters\n")).map_err(LabError::io("users.csv"))?;
        let address = node.management_address(Family::Ipv4);
        let mut command = node.command(&program.display().to_string());
        command.args([
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--secure-port={PORT}"),
            format!("--advertise-address={address}"),
            format!("--cert-dir={FOLDER}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--token-auth-file={FOLDER}/users.csv"),
            "--authorization-mode=RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        node.start_service(SERVICE, command)?;
        wait_for("the API server to be ready", READY, || {
            node.check_service(SERVICE).map_err(|error| error.to_string())?;
            let mut client = server.client().map_err(|error| error.to_string())?;
            client.call("GET", "/readyz", None).map(drop).map_err(|error| error.to_string())
        })?;
        Ok(server)
    }

    /// Ends the API server as a crash does. What it stored is in etcd.
    pub fn stop(self) -> Result<(), LabError> {
        self.node.end_service(SERVICE, Signal::SIGKILL)
    }

    /// Makes a node and the API server known to each other: the API server gets the node's address on the management
    /// network, the node a kubeconfig, whose path is returned.
    pub fn introduce(self, node: &Node) -> Result<&'static str, LabError> {
        fs::write(node.path(KUBECONFIG), self.kubeconfig()).map_err(LabError::io("the kubeconfig"))?;
        let name = node.name();
        let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        let address = node.management_address(Family::Ipv4);
        // kube-proxy waits for half a minute for a node's address before it does without.
        let status = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": address }] } });
        let mut client = self.client()?;
        let made = client.call("POST", "/api/v1/nodes", Some(&object));
        made.map_err(LabError::io("making the Node"))?;
        let path = format!("/api/v1/nodes/{name}/status");
        client.call("PATCH", &path, Some(&status)).map_err(LabError::io("the Node's address"))?;
        Ok(KUBECONFIG)
    }

    /// Introduces all Manx nodes of the lab, starts their agents so that they follow the API server, and waits until
    /// they are ready.
    pub fn start_agents(self, lab: &Lab, within: Duration) -> Result<(), LabError> {
        for node in lab.manx_nodes() {
            let kubeconfig = self.introduce(node)?;
            node.agent().start_with(&[("MANX_KUBERNETES", kubeconfig)])?;
        }
        lab.manx_nodes().try_for_each(|node| node.agent().wait_ready(within))
    }

    /// A kubeconfig for everybody on the management network, as the one user of the API server.
    pub fn kubeconfig(self) -> String {
        let address = self.node.management_address(Family::Ipv4);
        // A kubeconfig is YAML, and JSON is YAML.
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "lab", "cluster": {
                "server": format!("https://{address}:{PORT}"), "insecure-skip-tls-verify": true,
            }}],
            "users": [{ "name": "admin", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "admin" } }],
            "current-context": "lab",
        })
        .to_string()
    }

    /// Connects to the API server.
    pub fn client(self) -> Result<ApiClient, LabError> {
        ApiClient::connect(self.node)
    }
}

/// One connection to the API server, one request at a time. TLS is spoken by `openssl s_client`.
#[derive(Debug)]
pub struct ApiClient {
    openssl: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl ApiClient {
    /// Connects to the API server of this node.
    pub fn connect(node: &Node) -> Result<Self, LabError> {
        let failed = || LabError::io("connecting to the API server");
        let mut command = node.command("openssl");
        command.args(["s_client", "-quiet", "-verify_quiet", "-connect", &format!("127.0.0.1:{PORT}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = command.spawn().map_err(failed())?;
        let pipes = openssl.stdin.take().zip(openssl.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| failed()(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { openssl, stdin, stdout })
    }

    /// Makes the Pod object, bound to a node, with the labels and named ports of `spec`. What is given back is what the
    /// kubelet has the runtime say of the pod: its UID, and neither labels nor ports.
    pub fn create_pod(&mut self, node: &str, spec: &PodSpec) -> io::Result<PodSpec> {
        let PodSpec { namespace, name, labels, ports, .. } = spec;
        let port =
            |port: &EndpointPort| json!({ "name": port.name, "protocol": port.protocol, "containerPort": port.port });
        let ports: Vec<_> = ports.iter().map(port).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i", "ports": ports }] },
        });
        let (_, made) = self.call("POST", &format!("/api/v1/namespaces/{namespace}/pods"), Some(&object))?;
        let uid = made.pointer("/metadata/uid").and_then(Value::as_str);
        let uid = uid.ok_or_else(|| io::Error::other(format!("the Pod has no UID: {made}")))?;
        Ok(PodSpec::in_namespace(namespace, name).uid(uid))
    }

    /// Asks the API server, and returns the answer with the moment at which it was there in full. A PATCH is a JSON
    /// merge patch (RFC 7396). A status other than 2xx is an error.
    pub fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<(Instant, Value)> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: kubernetes\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n\
             Accept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stdin.write_all(request.as_bytes())?;
        self.stdin.flush()?;
        let (mut answer, mut part) = (Vec::new(), [0; 16_384]);
        loop {
            let length = self.stdout.read(&mut part)?;
            let now = Instant::now();
            if length == 0 {
                let said = String::from_utf8_lossy(&answer).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended: {said}")));
            }
            answer.extend_from_slice(part.get(..length).unwrap_or_default());
            if let Some((status, body)) = complete(&answer) {
                if !(200..300).contains(&status) {
                    return Err(io::Error::other(format!("{method} {path}: {status}: {body}")));
                }
                // `/readyz` answers with a word, which is no JSON.
                let value = serde_json::from_str(&body).unwrap_or(Value::String(body));
                return Ok((now, value));
            }
        }
    }
}

impl Drop for ApiClient {
    fn drop(&mut self) {
        // nsenter passes the end of its input on, and openssl ends by itself then.
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

/// The status and body of an answer that is there in full, with chunks put together (RFC 9112 section 7.1).
fn complete(answer: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if let Some(length) = header("content-length") {
        return (body.len() >= length.parse().ok()?).then(|| (status, body.to_owned()));
    }
    let (mut whole, mut rest) = (String::new(), body);
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        if size == 0 {
            return Some((status, whole));
        }
        whole.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_by_its_length_or_its_last_chunk() {
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), None);
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Some((200, "{}".to_owned())));
        let chunked = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(complete(chunked), Some((201, "{\"a\":1}".to_owned())));
        assert_eq!(complete(&chunked[..chunked.len() - 5]), None);
    }
}
