//! What the tasks of each room are made of, and the channels from room to room, as the diagram in `crate::tasks` shows them.

use std::net::IpAddr;
use std::sync::Arc;

use bgp::Outputs;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use types::config::Config;
use types::{Asn, Passwords, Registration, ResourceName, Update};

use super::steps::{Host, Membership, OwnState};
use crate::api::local::Api;
use crate::api::sockets::Sockets;
use crate::api::status::{Owners, Status};
use crate::api::tasks::ApiTasks;
use crate::cluster::desired::ClusterState;
use crate::cluster::desired_task::{Conclusions, DesiredTask, Identity};
use crate::cluster::election::Election;
use crate::cluster::origination::Origination;
use crate::cluster::origins::Origins;
use crate::cluster::passwords_task::PasswordsTask;
use crate::cluster::reclaim_task::ReclaimTask;
use crate::cluster::remembered_passwords::RememberedPasswords;
use crate::cluster::tasks::ClusterTasks;
use crate::cni::attachments::Attachments;
use crate::cni::host_ports::{HostPorts, HostPortsTask};
use crate::cni::links::HostLinks;
use crate::cni::tasks::CniTasks;
use crate::cni::turns::Turns;
use crate::node;
use crate::node::addresses_task::OwnAddresses;
use crate::node::host;
use crate::node::kubernetes::ApiServer;
use crate::node::object_task::NodeTask;
use crate::node::readiness::Readiness;
use crate::node::runtime_task::RuntimeTask;
use crate::node::tasks::NodeTasks;
use crate::policy::drop_log;
use crate::policy::pods::{Identities, Question};
use crate::policy::remembered::Remembered;
use crate::policy::tasks::PolicyTasks;
use crate::services::tasks::{ServiceTasks, ServiceView};
use crate::tasks::Tasks;

/// What the steps of the start have come to.
pub(super) struct Prepared {
    /// The settings.
    pub(super) config: Config,
    /// What this node knows of itself.
    pub(super) own: OwnState,
    /// What the kernel says of it.
    pub(super) host: Host,
    /// Its place in the cluster.
    pub(super) membership: Membership,
    /// The owners of this node's state, which run by now.
    pub(super) owners: Owners,
    /// To tell ipam of pools.
    pub(super) pools: mpsc::Sender<Update<ResourceName, ipam::Pool>>,
    /// Where it is spoken to, without an answer yet.
    pub(super) sockets: Sockets,
    /// What the speaker has to say to the owner of the kernel's routes.
    pub(super) outputs: Outputs,
    /// Where an ADD learns labels from.
    pub(super) identities: Identities,
    /// What the API server says, with the questions of ADDs about their pods; none: there is no API server.
    pub(super) kubernetes: Option<(Remembered, mpsc::Receiver<Question>)>,
    /// What keeps it from being ready.
    pub(super) readiness: Readiness,
}

impl Prepared {
    /// The tasks of all rooms, ready to be started.
    pub(super) fn into_tasks(mut self, tracker: &TaskTracker) -> Tasks {
        let (refused, refused_endpoints) = watch::channel(0);
        let (denied, looks) = drop_log::channel();
        let (parked, parked_links) = mpsc::channel(1);
        let (registered, registrations) = watch::channel(None);
        let drained = watch::Sender::new(false);
        let conclusions = Conclusions::new(self.identity());
        let passwords = self.passwords(&conclusions);

        let services = self.services(&conclusions);
        let node = self.node(registered);
        let (host_ports_task, host_ports) = self.host_ports();
        let attachments = self.attachments(host_ports, parked, tracker);
        let api_server = self.api_server();
        let addresses = node.addresses.found.subscribe();
        let known_passwords = passwords.known.subscribe();
        let status = self.status(
            &conclusions,
            (&node.runtime, refused_endpoints),
            services.view(),
            known_passwords.clone(),
            drained.clone(),
        );
        let origination = self.origination(&conclusions, services.view(), drained.subscribe());
        let election = self.election();
        let reclaim = self.reclaim(&conclusions, &election);
        let desired = self.desired(conclusions, node.addresses.found.subscribe(), known_passwords);

        let Self { config, membership, owners, sockets, outputs, kubernetes, readiness, .. } = self;
        let Membership { store, presence, session, .. } = membership;
        let relabels = config.kubernetes.is_none();
        Tasks {
            cluster: ClusterTasks {
                store: Arc::clone(&store),
                desired,
                passwords,
                origination,
                outputs,
                presence,
                session,
                registrations,
                election,
                ipam: owners.ipam.clone(),
                grace: config.reclaim_grace,
                reclaim,
            },
            policy: PolicyTasks {
                node: config.node_name,
                store,
                ipam: owners.ipam,
                acl: owners.acl,
                kubernetes,
                refused,
                looks,
                log_group: config.policy.log_group,
                readiness,
            },
            services,
            node,
            cni: CniTasks {
                listener: sockets.cni,
                attachments,
                host_ports: host_ports_task,
                api: api_server,
                addresses,
                parked: parked_links,
            },
            api: ApiTasks { socket: sockets.api, health_port: sockets.health, api: Api { status, denied, relabels } },
        }
    }

    /// Who the speaker is before the cluster has said its AS number.
    fn identity(&self) -> Identity {
        let router_id = self.host.identity().router_id;
        Identity { asn: Asn::DEFAULT, router_id, addresses: self.host.addresses.clone() }
    }

    fn api_server(&self) -> Option<ApiServer> {
        self.kubernetes.as_ref().map(|(remembered, _)| remembered.api.clone())
    }

    /// How the watches of the API server fare, where there is one.
    fn watches(&self) -> Option<watch::Receiver<kube_watch::Status>> {
        self.kubernetes.as_ref().map(|(remembered, _)| remembered.status.clone())
    }

    fn services(&self, conclusions: &Conclusions) -> ServiceTasks {
        ServiceTasks::new(
            self.config.node_name.clone(),
            self.api_server(),
            conclusions.service_ranges.subscribe(),
            conclusions.load_balancer_pools.subscribe(),
            self.membership.cache.clone(),
            self.owners.acl.clone(),
        )
    }

    fn node(&self, registered: watch::Sender<Option<Registration>>) -> NodeTasks {
        let addresses = OwnAddresses {
            methods: self.config.address_detection.clone(),
            journal: self.own.journal.clone(),
            internal: self.host.internal.clone(),
            found: watch::Sender::new(self.host.addresses.clone()),
        };
        let object = NodeTask {
            node: self.config.node_name.clone(),
            readiness: self.readiness.clone(),
            api: self.api_server(),
            registration: Registration {
                listen_port: self.config.listen_port,
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Registration::default()
            },
            addresses: addresses.found.subscribe(),
            registered,
        };
        let runtime = RuntimeTask {
            cni_conf_dir: self.config.cni_conf_dir.clone(),
            cni_bin_dir: self.config.cni_bin_dir.clone(),
            run_dir: self.config.run_dir.clone(),
            readiness: self.readiness.clone(),
            faults: watch::Sender::new(None),
        };
        NodeTasks { addresses, object, runtime }
    }

    fn host_ports(&self) -> (HostPortsTask, HostPorts) {
        let (journal, ipam) = (self.own.journal.clone(), self.owners.ipam.clone());
        let mapped = self.config.run_dir.join(types::cni::MAPPED);
        HostPortsTask::new(self.config.host_ports, journal, ipam, self.api_server(), mapped)
    }

    fn attachments(&mut self, host_ports: HostPorts, parked: mpsc::Sender<()>, tracker: &TaskTracker) -> Attachments {
        let Owners { ipam, routes, acl, .. } = self.owners.clone();
        let mtu = node::tasks::mtu(&self.config, &routes, self.host.kernel.as_mut(), tracker);
        Attachments {
            ipam,
            routes,
            acl,
            host_ports,
            identities: self.identities.clone(),
            mtu,
            parked_group: self.config.kernel.link_group,
            parked,
            released: self.config.run_dir.join(types::cni::RELEASED),
            readiness: self.readiness.clone(),
            turns: Turns::default(),
            host: HostLinks::node(),
        }
    }

    fn status(
        &mut self,
        conclusions: &Conclusions,
        (runtime, refused_endpoints): (&RuntimeTask, watch::Receiver<usize>),
        services: ServiceView,
        passwords: watch::Receiver<Passwords>,
        drained: watch::Sender<bool>,
    ) -> Status {
        Status {
            node: self.config.node_name.clone(),
            datastore: self.membership.datastore.clone(),
            store: Arc::clone(&self.membership.store),
            owners: self.owners.clone(),
            identity: conclusions.identity.subscribe(),
            readiness: self.readiness.clone(),
            refused_endpoints,
            kubernetes: self.watches(),
            services,
            passwords,
            drained,
            runtime: runtime.faults.subscribe(),
            host_problems: Arc::new(host::problems(self.host.kernel.as_mut())),
        }
    }

    fn passwords(&self, conclusions: &Conclusions) -> PasswordsTask {
        PasswordsTask {
            wanted: conclusions.password_sources.subscribe(),
            known: watch::Sender::default(),
            api: self.api_server(),
            remembered: RememberedPasswords::load(&self.config.run_dir),
        }
    }

    fn origination(
        &self,
        conclusions: &Conclusions,
        services: ServiceView,
        drained: watch::Receiver<bool>,
    ) -> Origination {
        Origination {
            blocks: self.owners.ipam.blocks(),
            unexported: conclusions.unexported.subscribe(),
            services: services.announced,
            drained,
        }
    }

    fn election(&self) -> Election {
        let Membership { store, presence, .. } = &self.membership;
        Election::new(Arc::clone(store), presence.node.clone(), presence.instance.clone(), self.watches())
    }

    /// None without an API server, which says that nodes are gone.
    fn reclaim(&self, conclusions: &Conclusions, election: &Election) -> Option<ReclaimTask> {
        Some(ReclaimTask {
            store: Arc::clone(&self.membership.store),
            bgp: self.owners.bgp.clone(),
            api: self.api_server()?,
            elected: election.is_elected(),
            registered: conclusions.registered.subscribe(),
            grace: self.config.reclaim_grace,
        })
    }

    fn desired(
        &self,
        conclusions: Conclusions,
        addresses: watch::Receiver<Vec<IpAddr>>,
        passwords: watch::Receiver<Passwords>,
    ) -> DesiredTask {
        let Owners { ipam, bgp, routes, acl } = self.owners.clone();
        DesiredTask {
            cluster: ClusterState::new(self.config.node_name.clone(), self.host.addresses.clone()),
            origins: Origins::new(self.config.node_name.clone(), self.config.etcd.is_some()),
            import_prefixes: self.config.import_prefixes.clone(),
            drawn_router_id: self.host.drawn_router_id,
            addresses,
            passwords,
            ipam,
            pools: self.pools.clone(),
            bgp,
            routes,
            acl,
            conclusions,
            readiness: self.readiness.clone(),
        }
    }
}
