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
use store::{Cache, Cached, Etcd, Journal, JournalWrite, Local, StateDir, Store, Table as JournalTable};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use felix::acl::Acl;
use types::config::Config;
use types::{Family, Registration};

use crate::attach::Attachments;
use crate::kubernetes::Remembered;
use crate::peers::facts;
use crate::pods::Identities;
use crate::presence::{Presence, PresenceError};
use crate::readiness::{Part, Readiness};
use crate::status::{Identity, Status};
use crate::tasks::{self, OwnAddresses, PolicyWiring, ServiceWiring, Sockets, Wiring};
use crate::{addresses, instance, node_object, pods, presence, remains};

/// The journal's key for its own id.
const JOURNAL_ID: &str = "journal-id";

/// Runs the agent until it is told to end or cannot go on.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let tracker = TaskTracker::new();
    let cancel = CancellationToken::new();
    let readiness = Readiness::new();

    let state_dir = StateDir::lock(&config.state_dir)?;
    run_dir(&config.run_dir)?;
    let journal = Journal::open(state_dir.journal())?;
    let boot_id = instance::boot_id().context("cannot read the boot id")?;
    let instance = instance::id(&journal_id(&journal).await?, &boot_id).context("cannot tell the network namespace")?;

    let mut kernel: Box<dyn Kernel> = Box::new(Linux::open()?);
    let internal = node_object::internal_addresses(&config, &journal).await?;
    let addresses = addresses::find(&config.address_detection, kernel.as_mut(), &internal)?;
    let drawn_router_id = addresses::drawn_router_id(&instance)?;
    let speaks_as = addresses::identity(&addresses, drawn_router_id);
    let preserved = preserved_forwarding(kernel.as_mut(), &config)?;

    let cache = Cache::open(state_dir.cache())?;
    let (store, datastore) = open_store(&config, &state_dir, &cache).await?;
    let presence = Presence {
        store: Arc::clone(&store),
        node: config.node_name.clone(),
        instance,
        initial_pools: config.initial_pools.clone(),
    };
    let session = take_name(&presence).await?;

    let felix = tasks::felix(&config, &addresses)?;
    let acl = tasks::acl(&config)?;
    let (pools, pool_updates) = mpsc::channel(64);
    let shared = config.etcd.is_some().then(|| Arc::clone(&store));
    let fencing = Some(ipam::Fencing { grace: config.reclaim_grace, clocks: instance::clocks });
    let defaults = ipam::IpamConfig::new(config.node_name.clone());
    let ipam_config = ipam::IpamConfig { cool_down: config.cool_down, boot_id, fencing, ..defaults };
    let ipam = ipam::start(ipam_config, shared, journal.clone(), pool_updates, &tracker, cancel.clone()).await?;

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
    let (bgp, outputs) = bgp::start(speaker, &tracker, cancel.clone());

    let registration = Registration {
        listen_port: config.listen_port,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Registration::default()
    };
    let own = OwnAddresses {
        methods: config.address_detection.clone(),
        journal,
        internal,
        found: watch::Sender::new(addresses.clone()),
        drawn_router_id,
    };
    let identity = Identity { asn: types::Asn::DEFAULT, router_id: speaks_as.router_id, addresses };
    let (identity, known_identity) = watch::channel(identity);
    let (refused, refused_endpoints) = watch::channel(0);
    let (identities, kubernetes) = watch_kubernetes(&config, &cache, &tracker).await?;
    let api = kubernetes.as_ref().map(|(remembered, _)| remembered.api.clone());
    let services = ServiceWiring::new(config.node_name.clone(), api, cache.clone(), acl.clone());
    let status = Status {
        node: config.node_name.clone(),
        datastore,
        store: Arc::clone(&store),
        ipam: ipam.clone(),
        felix: felix.clone(),
        acl: acl.clone(),
        bgp: bgp.clone(),
        identity: known_identity,
        readiness: readiness.clone(),
        refused_endpoints,
        kubernetes: kubernetes.as_ref().map(|(remembered, _)| remembered.status.clone()),
        services: services.view(),
        drained: watch::Sender::default(),
        host_problems: Arc::new(remains::host_problems(kernel.as_mut())),
    };
    let (parked, parked_links) = mpsc::channel(1);
    let attachments = Attachments {
        ipam: ipam.clone(),
        felix: felix.clone(),
        acl: acl.clone(),
        identities,
        mtu: tasks::mtu(&config, &felix, kernel.as_mut(), &tracker),
        parked_group: config.kernel.link_group,
        parked,
        released: config.run_dir.join(types::cni::RELEASED),
        readiness: readiness.clone(),
    };
    let policy =
        PolicyWiring { node: config.node_name.clone(), acl, kubernetes, refused, readiness: readiness.clone() };
    let wiring = Wiring {
        config,
        store,
        presence,
        session,
        registration,
        addresses: own,
        ipam,
        pools,
        felix,
        policy,
        services,
        bgp,
        outputs,
        identity,
        readiness,
        attachments,
        parked_links,
        status,
        sockets,
    };
    let failed = wiring.start(&tracker, &cancel)?;
    tokio::select! {
        error = failed => Err(error),
        () = terminated() => {
            // No NOTIFICATION, no withdrawal: peers and kernel keep what they have until the next start.
            info!("ending; the kernel keeps forwarding");
            Ok(())
        }
    }
}

/// Where labels come from, and the watches of the API server where there is one.
async fn watch_kubernetes(
    config: &Config,
    cache: &Cache,
    tracker: &TaskTracker,
) -> anyhow::Result<(Identities, Option<(Remembered, mpsc::Receiver<pods::Question>)>)> {
    let Some(access) = node_object::access(config) else { return Ok((Identities::Stated, None)) };
    let watches = ::watch::start(access).await?;
    let (questions, asked) = mpsc::channel(pods::QUESTIONS);
    let remembered = tasks::remember(watches, cache, tracker);
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
    if let Some(id) = journal.value(JournalTable::Meta, JOURNAL_ID).await? {
        return Ok(String::from_utf8_lossy(&id).into_owned());
    }
    let id = instance::new_journal_id().context("cannot make an id for the journal")?;
    journal.commit(vec![JournalWrite::put(JournalTable::Meta, JOURNAL_ID, id.clone().into_bytes())]).await?;
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

/// So long a watch waits for etcd before it goes on with what this node remembers.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the name is tried again that this node's earlier life holds.
const RETAKE: Duration = Duration::from_secs(1);

/// The datastore and what to call it.
async fn open_store(config: &Config, state_dir: &StateDir, cache: &Cache) -> anyhow::Result<(Arc<dyn Store>, String)> {
    match &config.etcd {
        Some(settings) => {
            let name = format!("etcd ({})", settings.endpoints.join(", "));
            let etcd = Etcd::connect(settings.into()).await?;
            Ok((Arc::new(Cached::new(etcd, cache.clone(), PATIENCE)), name))
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
                warn!(%error, "the datastore does not answer; going on with what this node remembers");
                return Ok(None);
            }
            Err(PresenceError::Taken { other, .. })
                if begun.elapsed() < presence::LEASE + RETAKE
                    && instance::is_of_journal(&other, &presence.instance) =>
            {
                info!(%other, "waiting for the claim of this node's earlier life to end");
                tokio::time::sleep(RETAKE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Brings journal and kernel together: what was released while no agent ran is released, what serves a pod is wanted.
async fn recover(
    config: &Config,
    kernel: &mut dyn Kernel,
    ipam: &ipam::Ipam,
    felix: &felix::routes::Routes,
    acl: &Acl,
) -> anyhow::Result<()> {
    let group = config.kernel.link_group;
    for (id, path) in remains::tombstones(&config.run_dir.join(types::cni::RELEASED)).context("tombstones")? {
        ipam.release(id).await?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    ipam.reconcile_kernel(remains::serving(kernel, group)?).await?;
    let endpoints = ipam.endpoints().await;
    let interfaces = endpoints.iter().map(|endpoint| endpoint.host_interface.clone()).collect();
    let orphans = remains::park_orphans(kernel, &interfaces, group)?;
    for endpoint in &endpoints {
        let attached = felix.attach(endpoint.host_interface.clone(), endpoint.addresses.clone()).await;
        if let Err(error) = attached {
            warn!(endpoint = %endpoint.id, %error, "its routes are not in the kernel");
        }
    }
    felix.own_blocks(ipam.blocks().borrow().as_ref().clone()).await;
    felix.local_in_sync().await;
    for endpoint in &endpoints {
        if let Err(error) = acl.attach(endpoint.id.clone(), facts(endpoint.clone())).await {
            warn!(endpoint = %endpoint.id, %error, "its policies are not in force");
        }
    }
    acl.local_in_sync().await;
    // An earlier life may have ended between a release and this, and a tombstone never came to it.
    acl.forget(ipam.view().await.resting).await;
    info!(endpoints = endpoints.len(), orphans, "journal and kernel agree");
    Ok(())
}
