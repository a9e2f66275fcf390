//! The task that reads the passwords of BGP sessions from Secrets and files, and again when these change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use kube_watch::Secret;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use zeroize::Zeroizing;

use types::{PasswordSource, Passwords, ResourceName, SessionPassword, Update};

use super::passwords::{FollowedSecret, known, news};
use super::remembered_passwords::RememberedPasswords;
use crate::node::kubernetes::ApiServer;
use crate::node::latest::tell;

/// How often files are read again: a change takes effect within this time.
const FILES_READ_EVERY: Duration = Duration::from_secs(2);

/// Octets of a file that are read: more than any password has.
const OCTETS_READ: u64 = 1_024;

/// Follows the passwords that sessions need.
pub(crate) struct PasswordsTask {
    /// Which are needed; nothing before that is known.
    pub(crate) wanted: watch::Receiver<Option<BTreeSet<PasswordSource>>>,
    /// What is known of them.
    pub(crate) known: watch::Sender<Passwords>,
    /// Where Secrets are, where there is Kubernetes.
    pub(crate) api: Option<ApiServer>,
    /// Those of Secrets that an earlier life of the agent knew.
    pub(crate) remembered: RememberedPasswords,
}

/// A Secret and the watch that tells of it.
struct Watched {
    secret: FollowedSecret,
    updates: mpsc::Receiver<Update<String, Secret>>,
}

impl PasswordsTask {
    /// Follows them for as long as the agent runs.
    pub(crate) async fn run(mut self) {
        let mut secrets = BTreeMap::new();
        let mut again = tokio::time::interval(FILES_READ_EVERY);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if let Some(wanted) = &wanted {
                self.follow(wanted, &mut secrets);
                self.read(wanted, &secrets).await;
            }
            let has_files = wanted.iter().flatten().any(|source| matches!(source, PasswordSource::File(_)));
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() {
                    return;
                },
                (name, update) = next(&mut secrets) => match (update, secrets.get_mut(&name)) {
                    (Some(update), Some(watched)) => watched.secret.apply(update),
                    // The watches end when the agent does.
                    _ => return,
                },
                _ = again.tick(), if has_files => {}
            }
        }
    }

    /// Begins to watch the Secrets that are needed, and ends the other watches.
    fn follow(&self, wanted: &BTreeSet<PasswordSource>, secrets: &mut BTreeMap<ResourceName, Watched>) {
        let Some(api) = &self.api else { return };
        let names: BTreeSet<&ResourceName> = wanted.iter().filter_map(secret_name).collect();
        secrets.retain(|name, _| names.contains(name));
        for name in names {
            if !secrets.contains_key(name) {
                let watched = Watched { secret: FollowedSecret::default(), updates: api.tasks.secret(name) };
                secrets.insert(name.clone(), watched);
            }
        }
    }

    async fn read(&mut self, wanted: &BTreeSet<PasswordSource>, secrets: &BTreeMap<ResourceName, Watched>) {
        let paths = wanted.iter().filter_map(|source| match source {
            PasswordSource::File(path) => Some(path.clone()),
            PasswordSource::Secret { .. } => None,
        });
        let files = files(paths.collect()).await;
        let read = |source: &PasswordSource| match source {
            PasswordSource::File(path) => files.get(path).cloned(),
            PasswordSource::Secret { name, key } if self.api.is_some() => secrets.get(name)?.secret.password(key),
            PasswordSource::Secret { .. } => Some(Err(
                "Secrets are Kubernetes', which this agent does not follow (key kubernetes); use passwordFile or \
                 nodeMeshPasswordFile"
                    .to_owned(),
            )),
        };
        let before = self.known.borrow().clone();
        let former = self.remembered.before(&before, wanted);
        let now = known(&former, wanted, read);
        for each in news(&former, &now) {
            match each {
                Ok(what) => info!("BGP password, {what}"),
                Err(what) => warn!("BGP password, {what}"),
            }
        }
        let is_first = self.remembered.begin();
        if tell(&self.known, now.clone()) || is_first {
            self.remembered.keep(&now);
        }
    }
}

fn secret_name(source: &PasswordSource) -> Option<&ResourceName> {
    match source {
        PasswordSource::Secret { name, .. } => Some(name),
        PasswordSource::File(_) => None,
    }
}

/// The next report of a Secret; none when its watch has ended. Safe to cancel.
async fn next(secrets: &mut BTreeMap<ResourceName, Watched>) -> (ResourceName, Option<Update<String, Secret>>) {
    std::future::poll_fn(|context| {
        for (name, watched) in secrets.iter_mut() {
            if let Poll::Ready(update) = watched.updates.poll_recv(context) {
                return Poll::Ready((name.clone(), update));
            }
        }
        Poll::Pending
    })
    .await
}

/// What is in these files now.
async fn files(paths: Vec<PathBuf>) -> BTreeMap<PathBuf, Result<SessionPassword, String>> {
    if paths.is_empty() {
        return BTreeMap::new();
    }
    let read = || {
        paths
            .into_iter()
            .map(|path| {
                let read = file(&path);
                (path, read)
            })
            .collect()
    };
    // A disk may be slow. A reader that has failed has read nothing.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn file(path: &Path) -> Result<SessionPassword, String> {
    let read = || {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("is not a file"));
        }
        let mut octets = Zeroizing::new(Vec::new());
        File::open(path)?.take(OCTETS_READ).read_to_end(&mut octets)?;
        Ok(octets)
    };
    let octets = read().map_err(|error| error.to_string())?;
    SessionPassword::new(&octets).map_err(|error| error.to_string())
}
