//! `manxctl node clean`: takes all that is of Manx from a node that has no agent any more.

mod files;
mod kernel_state;
mod keys;
mod plan;
mod report;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use kernel::Linux;
use kernel::acl::{Iptables, IptablesVariant, LinuxSets, Tables};
use store::{Etcd, StateDir};
use tokio::signal::unix::{SignalKind, signal};
use types::config::{Config, EtcdSettings, KeyPrefix};

use crate::cli::{NodeClean, Place};
use files::{HostFiles, below};
use kernel_state::{HostKernel, SET_RELEASE_WAIT};
use plan::{Found, RemovalStep, plan};
use report::Report;

pub(crate) async fn run(place: &Place, args: &NodeClean) -> anyhow::Result<()> {
    let (config, etcd_fault) = configuration(place, args)?;
    let socket = || below(&args.host, &config.run_dir.join(types::api::SOCKET));
    let socket = place.socket.clone().unwrap_or_else(socket);
    let advice = "an agent runs on this node: end it first (kubectl delete -k manifests/)";
    anyhow::ensure!(UnixStream::connect(&socket).is_err(), "{advice}; it answers on {}", socket.display());
    // The lock is held until all is done, so that no agent starts meanwhile.
    let _held = StateDir::lock_existing(below(&args.host, &config.state_dir)).context(advice)?;

    let files = HostFiles { root: &args.host, config: &config };
    let mut kernel = kernel_of_host(&config)?;
    let (mut found, mut report) = (Found::default(), Report::default());
    kernel.look(&mut found).into_iter().for_each(|error| report.stays(error));
    files.look(args, &mut found, &mut report);
    for step in plan(found) {
        let removed = match &step {
            RemovalStep::Files(removal) => files.carry_out(removal, &mut report),
            RemovalStep::Kernel(removal) => kernel.carry_out(removal).map(|()| true).map_err(anyhow::Error::new),
        };
        match removed {
            Ok(true) => report.removed(&step)?,
            Ok(false) => {}
            Err(error) => report.stays(format!("{step} stays: {error:#}")),
        }
    }
    match etcd_fault {
        _ if args.keep_keys => {}
        Some(error) => {
            report.stays(keys_stay(&config, &format!("{:#}", anyhow::Error::new(error)), &KeyPrefix::default()))
        }
        None => remove_keys(&config, &mut report).await?,
    }
    report.end()?;
    if args.stay { stay().await } else { Ok(()) }
}

/// The host's configuration: in a container, its paths are the host's. With what is wrong with the settings of etcd, if they
/// cannot be used: the rest of the node is cleaned all the same.
fn configuration(place: &Place, args: &NodeClean) -> anyhow::Result<(Config, Option<config::ReadError>)> {
    let host_name = config::host_name().context("cannot read the host's name")?;
    let (mut config, etcd_fault) = config::read_without_etcd(&below(&args.host, &place.config), &host_name)?;
    if let Some(tls) = config.etcd.as_mut().and_then(EtcdSettings::tls_mut) {
        let client = tls.client.iter_mut().flat_map(|client| [&mut client.cert, &mut client.key]);
        for path in client.chain([&mut tls.ca]) {
            *path = below(&args.host, path);
        }
    }
    Ok((config, etcd_fault))
}

/// The kernel that this runs on, with either variant of iptables.
fn kernel_of_host(config: &Config) -> anyhow::Result<HostKernel> {
    let variants = [IptablesVariant::Nft, IptablesVariant::Legacy];
    Ok(HostKernel {
        kernel: Box::new(Linux::open()?),
        sets: Box::new(LinuxSets::open()?),
        tables: variants.map(|variant| Box::new(Iptables::new(variant)) as Box<dyn Tables>).into(),
        marks: config.kernel,
        set_release_wait: SET_RELEASE_WAIT,
        sets_awaited_until: None,
    })
}

/// Takes this node's keys from etcd, if one is configured.
async fn remove_keys(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let node = &config.node_name;
    let Some(settings) = &config.etcd else {
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
            report.stays(keys_stay(config, &error.to_string(), &settings.prefix));
            Ok(())
        }
    }
}

fn keys_stay(config: &Config, error: &str, prefix: &KeyPrefix) -> String {
    let node = &config.node_name;
    format!(
        "keys of {node} in etcd stay: {error}. Without them: --keep-keys; an elected agent removes them some time after \
         the Node is deleted, `etcdctl del --prefix {prefix}` removes all of Manx"
    )
}

/// Waits until somebody ends this process.
async fn stay() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
