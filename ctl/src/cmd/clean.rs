//! `manxctl node clean`: takes all that is of Manx from a node that has no agent any more.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kernel::Linux;
use kernel::acl::{Iptables, IptablesVariant, LinuxSets, Tables};
use store::{Etcd, StateDir};
use tokio::signal::unix::{SignalKind, signal};
use types::cni::CONFLIST;
use types::config::{Config, EtcdSettings};

use crate::clean::kernel_state::{Host, PATIENCE};
use crate::clean::{CNI_CONF, ETCD_DATA, Found, Step, aside, is_state, keys, names_portmap, names_us, plan};
use crate::cli::{NodeClean, Place};
use crate::install::{NETWORKD, place as binary_place};
use crate::render;

pub(crate) async fn run(place: &Place, args: &NodeClean) -> anyhow::Result<()> {
    let node = Node { host: &args.host, config: configuration(place, args)? };
    let socket = place.socket.clone().unwrap_or_else(|| node.below(&node.config.run_dir.join(types::api::SOCKET)));
    let advice = "an agent runs on this node: end it first (kubectl delete -k manifests/)";
    anyhow::ensure!(UnixStream::connect(&socket).is_err(), "{advice}; it answers on {}", socket.display());
    // Held until all is done: no agent starts meanwhile.
    let _held = StateDir::lock_existing(node.below(&node.config.state_dir)).context(advice)?;

    let variants = [IptablesVariant::Nft, IptablesVariant::Legacy];
    let tables = variants.map(|variant| Box::new(Iptables::new(variant)) as Box<dyn Tables>).into();
    let mut host = Host {
        kernel: Box::new(Linux::open()?),
        sets: Box::new(LinuxSets::open()?),
        tables,
        marks: node.config.kernel,
        patience: PATIENCE,
        until: None,
    };
    let mut report = Report::default();

    let mut found = Found::default();
    host.look(&mut found).into_iter().for_each(|error| report.stays(error));
    node.look(args, &mut found, &mut report);
    for step in plan(found) {
        let done = match &step {
            Step::File(path) => there(fs::remove_file(path), path),
            Step::Folder(path) => remove_folder(path, &mut report),
            Step::Tree(path) => there(fs::remove_dir_all(path), path),
            step => host.carry_out(step).map(|()| true).map_err(anyhow::Error::new),
        };
        match done {
            Ok(true) => report.removed(&step)?,
            Ok(false) => {}
            Err(error) => report.stays(format!("{step} stays: {error:#}")),
        }
    }
    if !args.keep_keys {
        node.remove_keys(&mut report).await?;
    }
    report.end()?;
    if args.stay { stay().await } else { Ok(()) }
}

/// The host's configuration: in a container, its paths are the host's.
fn configuration(place: &Place, args: &NodeClean) -> anyhow::Result<Config> {
    let host_name = config::host_name().context("cannot read the host's name")?;
    let mut config = config::read(&below(&args.host, &place.config), &host_name)?;
    if let Some(tls) = config.etcd.as_mut().and_then(EtcdSettings::tls_mut) {
        let client = tls.client.iter_mut().flat_map(|client| [&mut client.cert, &mut client.key]);
        for path in client.chain([&mut tls.ca]) {
            *path = below(&args.host, path);
        }
    }
    Ok(config)
}

fn below(host: &Path, path: &Path) -> PathBuf {
    host.join(path.strip_prefix("/").unwrap_or(path))
}

/// The node that is cleaned.
struct Node<'a> {
    /// Its root folder.
    host: &'a Path,
    config: Config,
}

impl Node<'_> {
    fn below(&self, path: &Path) -> PathBuf {
        below(self.host, path)
    }

    /// Adds the files that are ours to what was found.
    fn look(&self, args: &NodeClean, found: &mut Found, report: &mut Report) {
        let conf = self.below(self.config.cni_conf_dir.as_deref().unwrap_or_else(|| Path::new(CNI_CONF)));
        let conflist = conf.join(CONFLIST);
        match fs::read_to_string(&conflist) {
            Ok(text) if names_us(&text) => found.runtime.push(conflist),
            Ok(_) => report.note(&format!("{} is somebody else's and stays", conflist.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.stays(format!("{} stays: {error}", conflist.display())),
        }
        let portmap = binary_place(self.host, "portmap");
        match portmap_is_ours(&portmap, &args.from.join("portmap"), &conf) {
            Ok(true) => found.files.push(portmap),
            Ok(false) => {}
            Err(why) => report.note(&format!("{} stays: {why}", portmap.display())),
        }
        let manx = binary_place(self.host, "manx");
        let networkd = self.host.join(NETWORKD);
        let being_written = |path: &Path| {
            let name = path.file_name().map(|name| aside(&name.to_string_lossy())).unwrap_or_default();
            path.with_file_name(name)
        };
        let (conflist, portmap) = (conf.join(CONFLIST), binary_place(self.host, "portmap"));
        let aside = [&conflist, &manx, &portmap, &networkd].map(|path| being_written(path));
        // The binary goes before what it could write to.
        let files = [manx, networkd].into_iter().chain(aside);
        found.files.extend(files.filter(|path| path.symlink_metadata().is_ok()));

        let run = self.below(&self.config.run_dir);
        let released = run.join(types::cni::RELEASED);
        found.files.extend(list(&released, |_| true, report));
        let sockets = [types::api::SOCKET, types::cni::SOCKET];
        found.files.extend(list(&run, |name| sockets.contains(&name), report));
        let state = self.below(&self.config.state_dir);
        // The lock is the last of them in the order of names.
        found.files.extend(list(&state, is_state, report));
        found.folders.extend([released, run, state].into_iter().filter(|folder| folder.is_dir()));

        let data = self.below(Path::new(ETCD_DATA));
        if !data.is_dir() {
            return;
        }
        if !args.etcd_data {
            report.note(&format!("{} stays: it is the cluster's etcd (--etcd-data removes it)", data.display()));
        } else if is_in_use(&data.join("data/member/snap/db")) {
            report.stays(format!("{} stays: etcd runs on it", data.display()));
        } else {
            found.trees.push(data);
        }
    }

    /// Takes this node's keys from etcd, if one is configured.
    async fn remove_keys(&self, report: &mut Report) -> anyhow::Result<()> {
        let node = &self.config.node_name;
        let Some(settings) = &self.config.etcd else {
            report.note(&format!(
                "keys of {node} in an etcd, if there are any, stay: no configuration here says where it is. An elected \
                 agent removes them some time after the Node is deleted; where no agent is left, \
                 `etcdctl del --prefix /manx/v1/` removes all of Manx"
            ));
            return Ok(());
        };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the boot id")?;
        let namespace = fs::metadata("/proc/self/ns/net").context("cannot tell the network namespace")?.ino();
        let here = format!("/{}/{namespace}", boot.trim());
        let remove = async {
            let etcd = Etcd::connect(settings.clone().into()).await?;
            keys::remove(&etcd, node, &here).await
        };
        match remove.await {
            Ok(keys) => keys.iter().try_for_each(|key| report.removed(&format!("key {key}"))),
            Err(error) => {
                report.stays(format!(
                    "keys of {node} in etcd stay: {error}. Without them: --keep-keys; an elected agent removes them some \
                     time after the Node is deleted, `etcdctl del --prefix {}` removes all of Manx",
                    settings.prefix
                ));
                Ok(())
            }
        }
    }
}

/// Whether the portmap on the host is the one that we brought along and nobody else needs; or why that is not to be told.
fn portmap_is_ours(there: &Path, from: &Path, conf: &Path) -> Result<bool, String> {
    let (Ok(meta), Ok(text)) = (fs::metadata(there), fs::read(there)) else { return Ok(false) };
    let Ok(origin) = fs::metadata(from) else { return Err(format!("there is no {} to compare it to", from.display())) };
    if (meta.dev(), meta.ino()) == (origin.dev(), origin.ino()) {
        return Err("it may be anybody's (--from says where ours came from)".to_owned());
    }
    if !fs::read(from).is_ok_and(|ours| ours == text) {
        return Err("it is not the one that Manx brings along".to_owned());
    }
    let others = fs::read_dir(conf).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others = others.filter(|path| path.file_name().is_some_and(|name| name != CONFLIST));
    match others.find(|path| fs::read_to_string(path).is_ok_and(|text| names_portmap(&text))) {
        Some(other) => Err(format!("{} names it", other.display())),
        None => Ok(true),
    }
}

/// The files of a folder that are ours by name, in order. A folder that is not there has none.
fn list(folder: &Path, is_ours: impl Fn(&str) -> bool, report: &mut Report) -> Vec<PathBuf> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_file = !entry.file_type()?.is_dir();
            if is_file && entry.file_name().to_str().is_some_and(&is_ours) {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    };
    match read() {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            report.stays(format!("{} stays: {error}", folder.display()));
            Vec::new()
        }
    }
}

/// Whether somebody has locked the file.
fn is_in_use(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Whether it was there to be removed.
fn there(removed: io::Result<()>, path: &Path) -> anyhow::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Removes a folder in which nothing is left.
fn remove_folder(path: &Path, report: &mut Report) -> anyhow::Result<bool> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            report.note(&format!("{} stays: not all that is in it is of Manx", path.display()));
            Ok(false)
        }
        // Something is mounted here: the place is its owner's.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        removed => there(removed, path),
    }
}

/// What has become of it.
#[derive(Default)]
struct Report {
    removed: usize,
    stays: usize,
}

impl Report {
    fn removed(&mut self, what: &impl Display) -> anyhow::Result<()> {
        self.removed += 1;
        render::say(&format!("removed {what}"))
    }

    /// What should have gone.
    fn stays(&mut self, what: impl Display) {
        self.stays += 1;
        render::complain(&what.to_string());
    }

    /// What is left on purpose.
    fn note(&self, what: &str) {
        render::complain(what);
    }

    fn end(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.stays == 0, "not all that is of Manx is gone from this node");
        let said = if self.removed == 0 { "nothing of Manx was on this node" } else { "nothing of Manx is left here" };
        render::say(said)
    }
}

/// Until somebody ends it.
async fn stay() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host's root folder with these files in it.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn found(host: &Path, etcd_data: bool) -> (Vec<String>, usize) {
        let config = config::assemble(&serde_json::Value::Null, &std::collections::BTreeMap::new(), "node1").unwrap();
        let from = host.join("image");
        let args = NodeClean { host: host.to_owned(), from, etcd_data, keep_keys: true, stay: false };
        let (mut found, mut report) = (Found::default(), Report::default());
        Node { host, config }.look(&args, &mut found, &mut report);
        let steps = plan(found);
        let shown = |step: &Step| step.to_string().replace(&format!("{}/", host.display()), "");
        (steps.iter().map(shown).collect(), report.stays)
    }

    const CONFLIST: &str = r#"{"plugins": [{"type": "manx"}, {"type": "portmap"}]}"#;

    #[test]
    fn files_of_ours_are_found_below_the_hosts_root_and_others_are_not() {
        let host = host(&[
            ("etc/cni/net.d/10-manx.conflist", CONFLIST),
            ("etc/cni/net.d/20-other.conflist", r#"{"plugins": [{"type": "bridge"}]}"#),
            ("etc/systemd/networkd.conf.d/50-manx.conf", ""),
            ("etc/systemd/networkd.conf.d/60-other.conf", ""),
            ("opt/cni/bin/manx", "binary"),
            ("opt/cni/bin/.manx.new", "bin"),
            ("opt/cni/bin/portmap", "portmap"),
            ("opt/cni/bin/bridge", "bridge"),
            ("image/portmap", "portmap"),
            ("run/manx/cni.sock", ""),
            ("run/manx/released/mxaaaaaaaaaaaaa", ""),
            ("var/lib/manx/journal.db", ""),
            ("var/lib/manx/journal.db-wal", ""),
            ("var/lib/manx/lock", ""),
            ("var/lib/manx/notes", "the operator's"),
            ("var/lib/manx-etcd/data/member/snap/db", ""),
        ]);
        let ours = [
            "etc/cni/net.d/10-manx.conflist",
            "opt/cni/bin/portmap",
            "opt/cni/bin/manx",
            "etc/systemd/networkd.conf.d/50-manx.conf",
            "opt/cni/bin/.manx.new",
            "run/manx/released/mxaaaaaaaaaaaaa",
            "run/manx/cni.sock",
            "var/lib/manx/journal.db",
            "var/lib/manx/journal.db-wal",
            "var/lib/manx/lock",
            "run/manx/released",
            "run/manx",
            "var/lib/manx",
        ];
        assert_eq!(found(host.path(), false), (ours.map(str::to_owned).to_vec(), 0));
        let (with_data, _) = found(host.path(), true);
        assert!(with_data.contains(&"var/lib/manx-etcd".to_owned()), "{with_data:?}");
        let running = fs::File::open(host.path().join("var/lib/manx-etcd/data/member/snap/db")).unwrap();
        running.lock().unwrap();
        let (with_data, stays) = found(host.path(), true);
        assert!(!with_data.contains(&"var/lib/manx-etcd".to_owned()) && stays == 1, "{with_data:?}");
    }

    #[test]
    fn a_portmap_stays_that_is_another_or_that_another_network_needs() {
        let other = r#"{"plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#;
        let (there, ours) = (("opt/cni/bin/portmap", "portmap"), ("image/portmap", "portmap"));
        for files in [
            &[there][..],
            &[there, ("image/portmap", "newer")],
            &[there, ours, ("etc/cni/net.d/20-other.conflist", other)],
            &[("etc/cni/net.d/10-manx.conflist", other)],
        ] {
            assert_eq!(found(host(files).path(), false), (Vec::new(), 0), "{files:?}");
        }
        assert_eq!(found(host(&[there, ours]).path(), false).0, ["opt/cni/bin/portmap"]);
        let host = host(&[there]);
        let path = host.path().join("opt/cni/bin/portmap");
        assert!(portmap_is_ours(&path, &path, host.path()).is_err(), "compared to itself");
    }

    #[test]
    fn a_folder_with_something_else_in_it_stays_and_that_is_no_failure() {
        let host = host(&[("manx/notes", "")]);
        let mut report = Report::default();
        assert!(!remove_folder(&host.path().join("manx"), &mut report).unwrap());
        fs::remove_file(host.path().join("manx/notes")).unwrap();
        assert!(remove_folder(&host.path().join("manx"), &mut report).unwrap());
        assert!(!remove_folder(&host.path().join("manx"), &mut report).unwrap());
        assert_eq!(report.stays, 0);
    }
}
