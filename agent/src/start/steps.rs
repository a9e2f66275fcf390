//! The steps of the start, each with what it finds.

use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bgp::{Families, Identity, ImportPolicy, SpeakerConfig};
use ipam::Ipam;
use kernel::{Kernel, Linux, RouteFilter};
use store::{Cache, Cached, Etcd, Journal, JournalWrite, Local, RowKind, StateDir, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use types::config::Config;
use types::{Family, ResourceName, RouterId, Update};

use crate::api;
use crate::api::waiting::Waiting;
use crate::cluster::presence::{self, Presence, PresenceError};
use crate::node::readiness::Readiness;
use crate::node::{self, addresses, awaited, instance, internal_addresses, kubernetes};
use crate::policy;
use crate::policy::pods::{self, Identities};
use crate::policy::remembered::Remembered;

/// The journal's key for its own id.
const JOURNAL_ID: &str = "journal-id";

/// Updates of pools that wait for ipam.
const QUEUED_POOLS: usize = 64;

/// How long a watch waits for etcd before it goes on with what this node remembers.
const ETCD_WAIT: Duration = Duration::from_secs(2);

/// How often the name is tried again that this node's earlier life holds.
const NAME_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What this node knows of itself before it looks around.
pub(super) struct OwnState {
    /// What it has given out.
    pub(super) journal: Journal,
    /// This boot of the kernel.
    pub(super) boot_id: String,
    /// This agent's instance, as `node::instance` makes it.
    pub(super) instance: String,
}

impl OwnState {
    /// Opens the journal, in a folder that nobody else has open, and makes the folder of sockets.
    pub(super) async fn read(config: &Config, state_dir: &StateDir) -> anyhow::Result<Self> {
        run_dir(&config.run_dir)?;
        let journal = Journal::open(state_dir.journal())?;
        let boot_id = instance::boot_id().context("cannot read the boot id")?;
        let instance =
            instance::id(&journal_id(&journal).await?, &boot_id).context("cannot tell the network namespace")?;
        Ok(Self { journal, boot_id, instance })
    }
}

/// What the kernel says of this node, before anything of it is changed.
pub(super) struct Host {
    /// The kernel, for the start alone: owners have connections of their own.
    pub(super) kernel: Box<dyn Kernel>,
    /// The node's addresses that Kubernetes knows, where the configuration asks for them.
    pub(super) internal: Vec<IpAddr>,
    /// The addresses that the node peers from.
    pub(super) addresses: Vec<IpAddr>,
    /// The identifier of a speaker without an IPv4 address.
    pub(super) drawn_router_id: RouterId,
    /// The families whose routes the kernel has kept.
    preserved: Families,
}

impl Host {
    /// Finds the node's addresses, and what an earlier life of the agent has left in the kernel's tables.
    ///
    /// What is configured and not there yet is waited for; operators and probes are told so meanwhile.
    pub(super) async fn look(config: &Config, own: &OwnState, readiness: &Readiness) -> anyhow::Result<Self> {
        let mut kernel: Box<dyn Kernel> = Box::new(Linux::open()?);
        let internal = internal_addresses::find(config, &own.journal).await?;
        let changes = node::tasks::interface_changes()?;
        let look = || addresses::find(&config.address_detection, kernel.as_mut(), &internal);
        let found = awaited::addresses(look, changes, readiness);
        let waiting = Waiting::new(config.node_name.clone(), datastore(config), readiness.clone());
        let addresses = api::tasks::answer_until(found, waiting, config).await??;
        let drawn_router_id = addresses::drawn_router_id(&own.instance)?;
        let preserved = preserved_forwarding(kernel.as_mut(), config)?;
        Ok(Self { kernel, internal, addresses, drawn_router_id, preserved })
    }

    /// Who the speaker is to begin with.
    pub(super) fn identity(&self) -> Identity {
        addresses::identity(&self.addresses, self.drawn_router_id)
    }

    /// What the speaker begins with: its import policy follows from pools, which are not known yet.
    pub(super) fn speaker(&self, config: &Config) -> SpeakerConfig {
        SpeakerConfig {
            identity: self.identity(),
            restart_time: config.restart_time,
            preserved: self.preserved,
            import: ImportPolicy::default(),
        }
    }
}

/// The node in its cluster, or by itself where there is no etcd.
pub(super) struct Membership {
    /// The datastore.
    pub(super) store: Arc<dyn Store>,
    /// The datastore in words.
    pub(super) datastore: String,
    /// What was last seen of etcd and of the API server.
    pub(super) cache: Cache,
    /// Who the node is there.
    pub(super) presence: Presence,
    /// Under which it holds its name; none while the store is away.
    pub(super) session: Option<store::Session>,
}

impl Membership {
    /// Opens the store and takes the node's name in it.
    pub(super) async fn enter(config: &Config, state_dir: &StateDir, own: &OwnState) -> anyhow::Result<Self> {
        let cache = Cache::open(state_dir.cache())?;
        let store = open_store(config, state_dir, &cache).await?;
        let datastore = datastore(config);
        let presence = Presence {
            store: Arc::clone(&store),
            node: config.node_name.clone(),
            instance: own.instance.clone(),
            initial_pools: config.initial_pools.clone(),
        };
        let session = take_name(&presence).await?;
        Ok(Self { store, datastore, cache, presence, session })
    }
}

/// The owner of addresses, with the way to tell it of pools. It shares blocks by etcd; without etcd the node has all of them.
pub(super) async fn ipam(
    config: &Config,
    own: &OwnState,
    membership: &Membership,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<(Ipam, mpsc::Sender<Update<ResourceName, ipam::Pool>>)> {
    let (pools, pool_updates) = mpsc::channel(QUEUED_POOLS);
    let shared = config.etcd.is_some().then(|| Arc::clone(&membership.store));
    let fencing = Some(ipam::Fencing { grace: config.reclaim_grace, clocks: instance::clocks });
    let defaults = ipam::IpamConfig::new(config.node_name.clone());
    let ipam_config =
        ipam::IpamConfig { cool_down: config.cool_down, boot_id: own.boot_id.clone(), fencing, ..defaults };
    let journal = own.journal.clone();
    let ipam = ipam::start(ipam_config, shared, journal, pool_updates, tracker, cancel.clone()).await?;
    Ok((ipam, pools))
}

/// Where labels come from, and the watches of the API server where there is one.
pub(super) async fn watch_kubernetes(
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

/// The datastore.
async fn open_store(config: &Config, state_dir: &StateDir, cache: &Cache) -> anyhow::Result<Arc<dyn Store>> {
    match &config.etcd {
        Some(settings) => {
            let etcd = Etcd::connect(settings.clone().into()).await?;
            Ok(Arc::new(Cached::new(etcd, cache.clone(), ETCD_WAIT)))
        }
        None => Ok(Arc::new(Local::open(state_dir.local())?)),
    }
}

/// What to call the datastore.
fn datastore(config: &Config) -> String {
    let etcd = config.etcd.as_ref().map(|settings| format!("etcd ({})", settings.endpoints().join(", ")));
    etcd.unwrap_or_else(|| "local".to_owned())
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
