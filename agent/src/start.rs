//! From the configuration to a running node, in the order that restarts depend on.
//!
//! 1. The state folder is locked and the journal read: what this node has given out.
//! 2. The kernel is read and reconciled with the journal: what is still there. Routes of local pods are wanted again
//!    before anything is deleted.
//! 3. The node's name is taken in the store. If the store is away, the node goes on with what it remembers.
//! 4. BGP starts, with the forwarding bit where the kernel has kept our routes over the restart.
//! 5. ADD is served. (The sockets are open since 2: who asks in between waits for the answer.)

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bgp::{Families, ImportPolicy, SpeakerConfig};
use kernel::{Kernel, Linux, RouteFilter};
use store::{Cache, Cached, Etcd, Journal, JournalWrite, Local, RowKind, StateDir, Store};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use types::config::Config;
use types::{Asn, Family, Registration};

use crate::api::local::Api;
use crate::api::sockets::Sockets;
use crate::api::status::{Owners, Status};
use crate::api::tasks::ApiTasks;
use crate::cluster;
use crate::cluster::desired::ClusterState;
use crate::cluster::desired_task::{Conclusions, DesiredTask, Identity};
use crate::cluster::election::Election;
use crate::cluster::origination::Origination;
use crate::cluster::presence::{self, Presence, PresenceError};
use crate::cluster::reclaim_task::ReclaimTask;
use crate::cluster::tasks::ClusterTasks;
use crate::cni::attachments::Attachments;
use crate::cni::recovery::recover;
use crate::cni::tasks::CniTasks;
use crate::node;
use crate::node::addresses_task::OwnAddresses;
use crate::node::object_task::NodeTask;
use crate::node::readiness::{Part, Readiness};
use crate::node::tasks::NodeTasks;
use crate::node::{addresses, host, instance, internal_addresses, kubernetes};
use crate::policy;
use crate::policy::drop_log;
use crate::policy::pods::{self, Identities};
use crate::policy::remembered::Remembered;
use crate::policy::tasks::PolicyTasks;
use crate::services::tasks::ServiceTasks;
use crate::tasks::Tasks;

/// The journal's key for its own id.
const JOURNAL_ID: &str = "journal-id";

/// Updates of pools that wait for ipam.
const QUEUED_POOLS: usize = 64;

/// Runs the agent until it is told to end or cannot go on.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let tracker = TaskTracker::new();
    let cancel = CancellationToken::new();
    // Held until the agent ends: the folder is no other agent's meanwhile.
    let state_dir = StateDir::lock(&config.state_dir)?;
    let tasks = prepare(config, &state_dir, &tracker, &cancel).await?;
    let failed = tasks.start(&tracker, &cancel)?;
    tokio::select! {
        error = failed => Err(error),
        () = terminated() => {
            // No NOTIFICATION, no withdrawal: peers and kernel keep what they have until the next start.
            info!("the agent ends; the kernel keeps forwarding");
            Ok(())
        }
    }
}

/// Steps 1 to 4, and what all tasks are made of.
async fn prepare(
    config: Config,
    state_dir: &StateDir,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<Tasks> {
    let readiness = Readiness::new();
    run_dir(&config.run_dir)?;
    let journal = Journal::open(state_dir.journal())?;
    let boot_id = instance::boot_id().context("cannot read the boot id")?;
    let instance = instance::id(&journal_id(&journal).await?, &boot_id).context("cannot tell the network namespace")?;

    let mut kernel: Box<dyn Kernel> = Box::new(Linux::open()?);
    let internal = internal_addresses::find(&config, &journal).await?;
    let addresses = addresses::find(&config.address_detection, kernel.as_mut(), &internal)?;
    let drawn_router_id = addresses::drawn_router_id(&instance)?;
    let speaks_as = addresses::identity(&addresses, drawn_router_id);
    let preserved = preserved_forwarding(kernel.as_mut(), &config)?;

    let cache = Cache::open(state_dir.cache())?;
    let (store, datastore) = open_store(&config, state_dir, &cache).await?;
    let presence = Presence {
        store: Arc::clone(&store),
        node: config.node_name.clone(),
        instance: instance.clone(),
        initial_pools: config.initial_pools.clone(),
    };
    let session = take_name(&presence).await?;

    let felix = cluster::tasks::routes(&config, &addresses)?;
    let acl = policy::tasks::acl(&config)?;
    let (pools, pool_updates) = mpsc::channel(QUEUED_POOLS);
    let shared = config.etcd.is_some().then(|| Arc::clone(&store));
    let fencing = Some(ipam::Fencing { grace: config.reclaim_grace, clocks: instance::clocks });
    let defaults = ipam::IpamConfig::new(config.node_name.clone());
    let ipam_config = ipam::IpamConfig { cool_down: config.cool_down, boot_id, fencing, ..defaults };
    let ipam = ipam::start(ipam_config, shared, journal.clone(), pool_updates, tracker, cancel.clone()).await?;

    let sockets = Sockets::open(&config).await?;
    acl.node_addresses(addresses.clone()).await;
    recover(&config, kernel.as_mut(), &ipam, &felix, &acl).await?;
    readiness.ready(Part::Routes);

    let speaker = SpeakerConfig {
        identity: speaks_as,
        restart_time: config.restart_time,
        preserved,
        import: ImportPolicy::default(),
    };
    let (bgp, outputs) = bgp::start(speaker, tracker, cancel.clone());

    let (identities, kubernetes) = watch_kubernetes(&config, &cache, tracker).await?;
    let api_server = kubernetes.as_ref().map(|(remembered, _)| remembered.api.clone());
    let watches = kubernetes.as_ref().map(|(remembered, _)| remembered.status.clone());
    let (refused, refused_endpoints) = watch::channel(0);
    let (denied, looks) = drop_log::channel();
    let (parked, parked_links) = mpsc::channel(1);
    let (registered, registrations) = watch::channel(None);
    let drained = watch::Sender::new(false);
    let identity = Identity { asn: Asn::DEFAULT, router_id: speaks_as.router_id, addresses: addresses.clone() };
    let conclusions = Conclusions::new(identity);
    let services = ServiceTasks::new(
        config.node_name.clone(),
        api_server.clone(),
        conclusions.service_ranges.subscribe(),
        conclusions.load_balancer_pools.subscribe(),
        cache,
        acl.clone(),
    );
    let own_addresses = OwnAddresses {
        methods: config.address_detection.clone(),
        journal,
        internal,
        found: watch::Sender::new(addresses.clone()),
    };
    let election = Election::new(Arc::clone(&store), config.node_name.clone(), instance, watches.clone());
    let reclaim = api_server.clone().map(|api| ReclaimTask {
        store: Arc::clone(&store),
        bgp: bgp.clone(),
        api,
        elected: election.is_elected(),
        registered: conclusions.registered.subscribe(),
        grace: config.reclaim_grace,
    });
    let attachments = Attachments {
        ipam: ipam.clone(),
        felix: felix.clone(),
        acl: acl.clone(),
        identities,
        mtu: node::tasks::mtu(&config, &felix, kernel.as_mut(), tracker),
        parked_group: config.kernel.link_group,
        parked,
        released: config.run_dir.join(types::cni::RELEASED),
        readiness: readiness.clone(),
    };
    let status = Status {
        node: config.node_name.clone(),
        datastore,
        store: Arc::clone(&store),
        owners: Owners { ipam: ipam.clone(), felix: felix.clone(), acl: acl.clone(), bgp: bgp.clone() },
        identity: conclusions.identity.subscribe(),
        readiness: readiness.clone(),
        refused_endpoints,
        kubernetes: watches,
        services: services.view(),
        drained: drained.clone(),
        host_problems: Arc::new(host::problems(kernel.as_mut())),
    };
    let Sockets { cni, api, health } = sockets;
    Ok(Tasks {
        cluster: ClusterTasks {
            store: Arc::clone(&store),
            origination: Origination {
                blocks: ipam.blocks(),
                unexported: conclusions.unexported.subscribe(),
                services: services.view().announced,
                drained: drained.subscribe(),
            },
            desired: DesiredTask {
                cluster: ClusterState::new(config.node_name.clone(), addresses),
                import_prefixes: config.import_prefixes,
                drawn_router_id,
                addresses: own_addresses.found.subscribe(),
                pools,
                bgp,
                felix,
                acl: acl.clone(),
                conclusions,
                readiness: readiness.clone(),
            },
            outputs,
            presence,
            session,
            registrations,
            election,
            reclaim,
        },
        policy: PolicyTasks {
            node: config.node_name.clone(),
            store,
            ipam,
            acl,
            kubernetes,
            refused,
            looks,
            log_group: config.policy.log_group,
            readiness: readiness.clone(),
        },
        services,
        node: NodeTasks {
            object: NodeTask {
                node: config.node_name,
                readiness,
                cni_conf_dir: config.cni_conf_dir,
                api: api_server,
                registration: Registration {
                    listen_port: config.listen_port,
                    agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..Registration::default()
                },
                addresses: own_addresses.found.subscribe(),
                registered,
            },
            addresses: own_addresses,
        },
        cni: CniTasks { listener: cni, attachments, parked: parked_links },
        api: ApiTasks {
            socket: api,
            health_port: health,
            api: Api { status, denied, relabels: config.kubernetes.is_none() },
        },
    })
}

/// Where labels come from, and the watches of the API server where there is one.
async fn watch_kubernetes(
    config: &Config,
    cache: &Cache,
    tracker: &TaskTracker,
) -> anyhow::Result<(Identities, Option<(Remembered, mpsc::Receiver<pods::Question>)>)> {
    let Some(access) = kubernetes::access(config) else { return Ok((Identities::Stated, None)) };
    let watches = kube_watch::start(access).await?;
    let (questions, asked) = mpsc::channel(pods::QUEUED_QUESTIONS);
    let remembered = policy::tasks::remember(watches, cache, tracker);
    Ok((Identities::Kubernetes(questions), Some((remembered, asked))))
}

/// SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn run_dir(path: &Path) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(shown)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(shown)
}

async fn journal_id(journal: &Journal) -> anyhow::Result<String> {
    if let Some(id) = journal.value(RowKind::Meta, JOURNAL_ID).await? {
        return Ok(String::from_utf8_lossy(&id).into_owned());
    }
    let id = instance::new_journal_id().context("cannot make an id for the journal")?;
    journal.commit(vec![JournalWrite::put(RowKind::Meta, JOURNAL_ID, id.clone().into_bytes())]).await?;
    Ok(id)
}

/// The families whose forwarding state has outlived the agent: our BGP routes are still in the kernel (the boot is the
/// same, then). RFC 4724 section 3, the F bit.
fn preserved_forwarding(kernel: &mut dyn Kernel, config: &Config) -> anyhow::Result<Families> {
    let mut preserved = Vec::new();
    for family in Family::ALL {
        for protocol in [config.kernel.bgp_protocol, config.kernel.local_protocol] {
            if !kernel.routes(&RouteFilter::main(family).of_protocol(protocol))?.is_empty() {
                preserved.push(family);
            }
        }
    }
    Ok(preserved.into_iter().collect())
}

/// How long a watch waits for etcd before it goes on with what this node remembers.
const ETCD_WAIT: Duration = Duration::from_secs(2);

/// How often the name is tried again that this node's earlier life holds.
const NAME_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The datastore and what to call it.
async fn open_store(config: &Config, state_dir: &StateDir, cache: &Cache) -> anyhow::Result<(Arc<dyn Store>, String)> {
    match &config.etcd {
        Some(settings) => {
            let name = format!("etcd ({})", settings.endpoints().join(", "));
            let etcd = Etcd::connect(settings.clone().into()).await?;
            Ok((Arc::new(Cached::new(etcd, cache.clone(), ETCD_WAIT)), name))
        }
        None => Ok((Arc::new(Local::open(state_dir.local())?), "local".to_owned())),
    }
}

/// Takes the node's name. A store that is away does not keep the node from starting; a live agent of the same name does.
///
/// One with this node's own journal is most likely its life before a reboot, whose claim is about to end: that is waited for.
/// It may be a copy of the node's disk all the same, which goes on holding the name and is refused then.
async fn take_name(presence: &Presence) -> anyhow::Result<Option<store::Session>> {
    let begun = tokio::time::Instant::now();
    loop {
        match presence.enter().await {
            Ok(session) => return Ok(Some(session)),
            Err(PresenceError::Store(error)) => {
                warn!(%error, "the datastore does not answer; the agent goes on with what this node remembers");
                return Ok(None);
            }
            Err(PresenceError::Taken { other, .. })
                if begun.elapsed() < presence::LEASE + NAME_RETRY_DELAY
                    && instance::is_of_journal(&other, &presence.instance) =>
            {
                info!(%other, "the agent waits for the claim of this node's earlier life to end");
                tokio::time::sleep(NAME_RETRY_DELAY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
