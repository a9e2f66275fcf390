//! A machine of a cluster: containerd and the kubelet, as a distribution's packages would run them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use types::Family;

use super::assets::Assets;
use super::image::PAUSE_IMAGE;
use super::pki::{self, Authority};
use crate::LabError;
use crate::binaries::installed;
use crate::groups::SYSTEM;
use crate::node::Node;
use crate::place::Place;
use crate::wait::{wait_for, wait_until};

const CONTAINERD: &str = "containerd";
const KUBELET: &str = "kubelet";

/// The socket on which containerd listens.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The folder of a machine's own settings and keys.
const FOLDER: &str = "/var/lib/kubelet/lab";

/// The address of the cluster's DNS.
pub(crate) const DNS: &str = "10.96.0.10";

/// The settings of containerd; PAUSE stands for an image. Not every container that tests run in lets root raise limits,
/// so what pods ask for (`oom_score_adj`) is cut down to what is allowed.
const CONTAINERD_SETTINGS: &str = r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#;

/// A machine of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    pub(crate) node: &'a Node,
    pub(crate) assets: &'a Assets,
}

impl<'a> Machine<'a> {
    /// The machine's name.
    pub fn name(self) -> String {
        self.node.name()
    }

    /// The node of the lab that the machine is.
    pub const fn node(self) -> &'a Node {
        self.node
    }

    /// The machine's address on the fabric, which the topology gives `eth1`: the kubelet's node address.
    pub fn address(self, family: Family) -> Result<IpAddr, LabError> {
        let flag = match family {
            Family::Ipv4 => "-4",
            Family::Ipv6 => "-6",
        };
        let said = self.node.exec(&["ip", "-json", flag, "address", "show", "dev", "eth1", "scope", "global"])?;
        let links: Value = serde_json::from_str(&said).unwrap_or_default();
        let address = links.pointer("/0/addr_info/0/local").and_then(Value::as_str);
        address
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| LabError::NoSuchNode { what: "address on eth1 of", name: self.node.name() })
    }

    /// Writes the machine's settings and its kubelet's certificate.
    pub(crate) fn prepare(self, server: &str, authority: &Authority, taint: Option<&str>) -> Result<(), LabError> {
        let name = self.node.name();
        let folder = self.node.path(FOLDER);
        let addresses = [self.address(Family::Ipv4)?, self.address(Family::Ipv6)?];
        let identity = authority.issue(&format!("system:node:{name}"), Some("system:nodes"), &[&name], &addresses)?;
        pki::introduce(&folder, KUBELET, server, authority, &identity)?;
        pki::write(&folder.join("kubelet.json"), &settings(addresses, taint).to_string())?;
        pki::write(&folder.join("containerd.toml"), &CONTAINERD_SETTINGS.replace("PAUSE", PAUSE_IMAGE))?;
        self.resolver()?;
        self.node.exec(&["mkdir", "-p", "/etc/cni/net.d", "/opt/cni/bin"])?;
        // containerd calls this plugin for every pod's own `lo`; every distribution of Kubernetes brings it.
        self.plugin("loopback")
    }

    /// Pods that ask for the node's own resolver get one that is nobody's: there is no name outside of the lab.
    pub(crate) fn resolver(self) -> Result<(), LabError> {
        // If the file is a link, it leads to the host's own.
        self.node.shell("rm -f /etc/resolv.conf && echo nameserver 127.0.0.1 >/etc/resolv.conf").map(drop)
    }

    /// Gives the machine a CNI plugin of the reference ones.
    pub(crate) fn plugin(self, name: &str) -> Result<(), LabError> {
        let source = self.assets.program(name).display().to_string();
        self.node.exec(&["cp", &source, "/opt/cni/bin/"]).map(drop)
    }

    /// Runs a program in the machine's own control group.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = self.node.command("sh");
        let enter = format!(
            "for group in /sys/fs/cgroup/{SYSTEM} /sys/fs/cgroup/*/{SYSTEM}; do \
             if [ -d \"$group\" ]; then echo 0 >\"$group/cgroup.procs\" || exit; fi; done; exec \"$@\""
        );
        command.args(["-c", &enter, "sh"]).arg(program);
        command
    }

    /// Starts containerd; [`Machine::import`] waits for it.
    pub fn start_containerd(self) -> Result<(), LabError> {
        let mut command = self.command(&installed(CONTAINERD, CONTAINERD)?);
        command.args(["--config", &format!("{FOLDER}/containerd.toml"), "--log-level=info"]);
        // A socket that the containerd before has left is no sign of this one.
        let _ = fs::remove_file(self.node.path(SOCKET));
        self.node.start_service(CONTAINERD, command)?;
        wait_for(&format!("containerd on {}", self.node.name()), Duration::from_secs(30), || {
            self.node.check_service(CONTAINERD).map_err(|error| error.to_string())?;
            UnixStream::connect(self.node.path(SOCKET)).map(drop).map_err(|error| error.to_string())
        })
    }

    /// Ends containerd. Containers live on.
    pub fn stop_containerd(self, signal: Signal) -> Result<(), LabError> {
        self.node.end_service(CONTAINERD, signal)
    }

    /// Gives containerd the images of an archive on the host.
    pub fn import(self, archive: &Path) -> Result<(), LabError> {
        let archive = archive.display().to_string();
        self.node.exec(&["ctr", "--namespace", "k8s.io", "images", "import", &archive]).map(drop)
    }

    /// Starts the kubelet.
    pub fn start_kubelet(self) -> Result<(), LabError> {
        let addresses = [self.address(Family::Ipv4)?, self.address(Family::Ipv6)?].map(|address| address.to_string());
        let labels = self.node.spec().labels.iter().map(|(key, value)| format!("{key}={value}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        let mut command = self.command(&self.assets.program(KUBELET));
        command.args([
            format!("--config={FOLDER}/kubelet.json"),
            format!("--kubeconfig={FOLDER}/kubelet.kubeconfig"),
            format!("--hostname-override={}", self.node.name()),
            format!("--node-ip={}", addresses.join(",")),
            format!("--node-labels={labels}"),
            "--root-dir=/var/lib/kubelet".to_owned(),
        ]);
        self.node.start_service(KUBELET, command)
    }

    /// Ends the kubelet. Pods live on.
    pub fn stop_kubelet(self, signal: Signal) -> Result<(), LabError> {
        self.node.end_service(KUBELET, signal)
    }

    /// Whether containerd and the kubelet run; the error quotes their last words.
    pub fn check(self) -> Result<(), LabError> {
        self.node.check_service(CONTAINERD)?;
        self.node.check_service(KUBELET)
    }

    /// Writes a CNI configuration in one step, as the runtime may read at any moment.
    pub(crate) fn network(self, file: &str, configuration: &Value) -> Result<(), LabError> {
        let folder = self.node.path("/etc/cni/net.d");
        let draft = folder.join(".draft");
        pki::write(&draft, &configuration.to_string())?;
        fs::rename(&draft, folder.join(file)).map_err(LabError::io(file))
    }

    /// Waits until a file is there on the machine.
    pub fn wait_file(self, path: &str, within: Duration) -> Result<(), LabError> {
        let file = self.node.path(path);
        wait_until(&format!("{path} on {}", self.node.name()), within, || file.exists())
    }
}

/// The kubelet's settings: what differs from the default is what tests on a busy machine need, or version 1 of control
/// groups.
fn settings([address, _]: [IpAddr; 2], taint: Option<&str>) -> Value {
    let taints: Vec<Value> = taint.into_iter().map(|key| json!({ "key": key, "effect": "NoSchedule" })).collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": format!("{FOLDER}/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": format!("{FOLDER}/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{FOLDER}/kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "healthzBindAddress": "127.0.0.1",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // The machine that tests run on is shared: its disk and memory are not the kubelet's to judge.
        "evictionHard": {
            "memory.available": "20Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        // Images come by import alone, so that none that is removed would come back.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        "registerWithTaints": taints,
    })
}
