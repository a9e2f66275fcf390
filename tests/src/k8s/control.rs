//! The control plane: etcd, API server, controllers and scheduler, in one node of the topology.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use types::Family;

use super::assets::Assets;
use super::pki::{self, Authority};
use crate::LabError;
use crate::binaries::installed;
use crate::node::Node;
use crate::place::Place;
use crate::wait::wait_for;

/// The port on which the API server serves.
const PORT: u16 = 6443;

/// The folder of everything that belongs to the control plane, in its node.
const FOLDER: &str = "/var/lib/kubernetes";

/// The first address of the services' range: that of the API server, for pods.
const SERVICE_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));

/// The ranges that services get their addresses from.
const SERVICES: &str = "10.96.0.0/16,fd00:96::/112";

/// How long the API server may take to be ready: it fills an empty etcd first.
const READY: Duration = Duration::from_secs(90);

/// The audit policy: of all requests, only those of the network's own accounts are written down.
const AUDIT_POLICY: &str = r#"{ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [
        { "level": "Metadata", "userGroups": ["system:serviceaccounts:manx-system"] },
        { "level": "None" } ] }"#;

/// The programs of a control plane that can be ended and started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The cluster's own etcd.
    Etcd,
    /// `kube-apiserver`
    Apiserver,
    /// `kube-controller-manager`
    Controllers,
    /// `kube-scheduler`
    Scheduler,
}

impl Component {
    const ALL: [Self; 4] = [Self::Etcd, Self::Apiserver, Self::Controllers, Self::Scheduler];

    const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// A cluster's control plane.
#[derive(Debug, Clone, Copy)]
pub struct ControlPlane<'a> {
    pub(crate) node: &'a Node,
    pub(crate) assets: &'a Assets,
}

impl ControlPlane<'_> {
    /// The URL at which everybody reaches the API server: on the management network.
    pub(crate) fn server(self) -> String {
        format!("https://{}:{PORT}", self.address())
    }

    fn address(self) -> IpAddr {
        self.node.management_address(Family::Ipv4)
    }

    /// Writes keys, certificates and settings, and starts everything; [`ControlPlane::wait_ready`] waits for it.
    pub(crate) fn launch(self, authority: &Authority) -> Result<(), LabError> {
        let folder = self.node.path(FOLDER);
        let address = self.address();
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let addresses = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), address, SERVICE_ADDRESS];
        authority.identity().write(&folder, "ca")?;
        authority.issue("kube-apiserver", None, &names, &addresses)?.write(&folder, "apiserver")?;
        authority.issue("kube-apiserver", Some("system:masters"), &[], &[])?.write(&folder, "kubelet-client")?;
        let front = Authority::new("front-proxy")?;
        front.identity().write(&folder, "front-ca")?;
        front.issue("front-proxy-client", None, &[], &[])?.write(&folder, "front")?;
        let (private, public) = pki::signing_keys()?;
        pki::write(&folder.join("accounts.key"), &private)?;
        pki::write(&folder.join("accounts.pub"), &public)?;
        pki::write(&folder.join("audit.json"), AUDIT_POLICY)?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let identity = authority.issue(&format!("system:{name}"), None, &[], &[])?;
            pki::introduce(&folder, name, &self.server(), authority, &identity)?;
        }
        Component::ALL.into_iter().try_for_each(|component| self.start(component))
    }

    /// Starts one program of the control plane, with the data that it kept.
    pub fn start(self, component: Component) -> Result<(), LabError> {
        let name = component.name();
        let program = match component {
            Component::Etcd => installed(name, "etcd-server")?,
            _ => self.assets.program(name),
        };
        let mut command = self.node.command(&program.display().to_string());
        command.args(self.arguments(component).iter().map(|flag| flag.replace("PKI", FOLDER)));
        self.node.start_service(name, command)
    }

    /// Ends one program of the control plane as a crash does.
    pub fn stop(self, component: Component) -> Result<(), LabError> {
        self.node.end_service(component.name(), Signal::SIGKILL)
    }

    /// Waits until the API server serves; it is an error when one of the programs has ended.
    pub fn wait_ready(self, kubectl: impl Fn(&[&str]) -> Result<String, LabError>) -> Result<(), LabError> {
        wait_for("the API server to be ready", READY, || {
            for component in Component::ALL {
                self.node.check_service(component.name()).map_err(|error| error.to_string())?;
            }
            kubectl(&["get", "--raw", "/readyz"]).map(drop).map_err(|error| error.to_string())
        })
    }

    /// What the network's own accounts asked of the API server so far: audit events, one JSON object a line.
    pub fn audit_log(self) -> Result<String, LabError> {
        let path: PathBuf = self.node.path(&format!("{FOLDER}/audit.log"));
        fs::read_to_string(&path).map_err(LabError::io(path.display().to_string()))
    }

    fn arguments(self, component: Component) -> Vec<String> {
        let address = self.address();
        let (variable, fixed): (Vec<String>, &[&str]) = match component {
            Component::Etcd => (
                Vec::new(),
                &[
                    "--data-dir=PKI/etcd",
                    "--listen-client-urls=http://127.0.0.1:2379",
                    "--advertise-client-urls=http://127.0.0.1:2379",
                    "--listen-peer-urls=http://127.0.0.1:2380",
                    // The data is in memory anyway, so syncing it to disk only takes time.
                    "--unsafe-no-fsync",
                    "--log-level=warn",
                ],
            ),
            Component::Apiserver => (
                vec![format!("--advertise-address={address}"), format!("--secure-port={PORT}")],
                &[
                    "--etcd-servers=http://127.0.0.1:2379",
                    "--tls-cert-file=PKI/apiserver.crt",
                    "--tls-private-key-file=PKI/apiserver.key",
                    "--client-ca-file=PKI/ca.crt",
                    "--kubelet-certificate-authority=PKI/ca.crt",
                    "--kubelet-client-certificate=PKI/kubelet-client.crt",
                    "--kubelet-client-key=PKI/kubelet-client.key",
                    "--kubelet-preferred-address-types=InternalIP",
                    "--service-account-key-file=PKI/accounts.pub",
                    "--service-account-signing-key-file=PKI/accounts.key",
                    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                    "--requestheader-client-ca-file=PKI/front-ca.crt",
                    "--requestheader-allowed-names=front-proxy-client",
                    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                    "--requestheader-group-headers=X-Remote-Group",
                    "--requestheader-username-headers=X-Remote-User",
                    "--proxy-client-cert-file=PKI/front.crt",
                    "--proxy-client-key-file=PKI/front.key",
                    "--authorization-mode=Node,RBAC",
                    "--enable-admission-plugins=NodeRestriction",
                    "--allow-privileged=true",
                    "--audit-policy-file=PKI/audit.json",
                    "--audit-log-path=PKI/audit.log",
                    "--profiling=false",
                ],
            ),
            Component::Controllers => (
                Vec::new(),
                &[
                    "--kubeconfig=PKI/kube-controller-manager.kubeconfig",
                    "--authentication-kubeconfig=PKI/kube-controller-manager.kubeconfig",
                    "--authorization-kubeconfig=PKI/kube-controller-manager.kubeconfig",
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--use-service-account-credentials=true",
                    "--service-account-private-key-file=PKI/accounts.key",
                    "--root-ca-file=PKI/ca.crt",
                    "--client-ca-file=PKI/ca.crt",
                    "--requestheader-client-ca-file=PKI/front-ca.crt",
                    "--cluster-signing-cert-file=PKI/ca.crt",
                    "--cluster-signing-key-file=PKI/ca.key",
                    "--allocate-node-cidrs=false",
                    "--profiling=false",
                ],
            ),
            Component::Scheduler => (
                Vec::new(),
                &[
                    "--kubeconfig=PKI/kube-scheduler.kubeconfig",
                    "--authentication-kubeconfig=PKI/kube-scheduler.kubeconfig",
                    "--authorization-kubeconfig=PKI/kube-scheduler.kubeconfig",
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--profiling=false",
                ],
            ),
        };
        let ranges = matches!(component, Component::Apiserver | Component::Controllers);
        let ranges = ranges.then(|| format!("--service-cluster-ip-range={SERVICES}"));
        variable.into_iter().chain(ranges).chain(fixed.iter().map(|flag| (*flag).to_owned())).collect()
    }
}
