//! What others do to the rules.

use std::process::Command;
use std::time::{Duration, Instant};

use felix::acl::AclConfig;
use kernel::acl::{IptablesVariant, LinuxSets, Remains, Sets, Tables};
use kernel::netns::run_in;
use types::Family;
use types::policy::Direction::Ingress;

use super::node::{Node, serve};
use super::{VARIANTS, admits, facts, id, sources};
use crate::{block_on, wait_until};

fn saved(node: &Node) -> String {
    let mut tables = node.iptables();
    let save = |family, table| tables.save(family, table, false).unwrap();
    let all: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| ["mangle", "raw", "nat", "filter"].map(|table| (family, table)))
        .map({
            let mut save = save;
            move |(family, table)| save(family, table)
        })
        .collect();
    let rules = all.concat();
    rules.lines().filter(|line| !line.starts_with(['#', ':'])).map(|line| format!("{line}\n")).collect()
}

#[test]
fn chains_that_others_flush_come_back_and_kube_proxys_insertions_do_not_matter() {
    for variant in VARIANTS {
        let Some(node) = Node::new(variant, 2) else { return };
        serve(node.pod(2), 80);
        let config = AclConfig { legacy_poll: Duration::from_millis(100), ..AclConfig::default() };
        let acl = node.start_with(config);
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![("web", admits("server", Ingress, &[], 80))])).await;
            acl.attach(id(1), facts(1, "client")).await.unwrap();
            acl.attach(id(2), facts(2, "server")).await.unwrap();
        });
        assert!(!node.connects(1, 2, 80));
        node.iptables_sh("-t filter -N KUBE-FORWARD");
        node.iptables_sh("-t filter -A KUBE-FORWARD -j ACCEPT");
        node.iptables_sh("-t filter -I FORWARD -j KUBE-FORWARD");
        assert!(!node.connects(1, 2, 80), "what is accepted in filter has been dropped before");
        let before = saved(&node);
        let time = |what: &str, disturb: &dyn Fn()| {
            disturb();
            let began = Instant::now();
            wait_until(what, || saved(&node) == before);
            eprintln!("{variant:?}: {what} after {:?}", began.elapsed());
            assert!(!node.connects(1, 2, 80));
        };
        time("the flushed chains", &|| node.iptables_sh("-t mangle -F"));
        time("the hook", &|| node.iptables_sh("-t mangle -D FORWARD 1"));
        // Somebody else's rule stays, behind ours.
        node.iptables_sh("-t mangle -I FORWARD 1 -j ACCEPT");
        wait_until("the hook at the head", || {
            let now = saved(&node);
            let forward: Vec<_> = now.lines().filter(|line| line.starts_with("-A FORWARD")).collect();
            forward.iter().filter(|line| line.contains("manx-forward")).count() == 2
                && forward.first().is_some_and(|line| line.contains("manx-forward"))
                && forward.iter().filter(|line| **line == "-A FORWARD -j ACCEPT").count() == 2
        });
        assert!(!node.connects(1, 2, 80));
        let view = block_on(acl.view()).unwrap();
        assert!(view.repairs >= 3 && view.unprotected > Duration::ZERO, "{view:?}");
        if variant == IptablesVariant::Nft {
            node.sh("nft flush ruleset");
            wait_until("everything", || !node.connects(1, 2, 80));
        }
    }
}

#[test]
fn cleaning_removes_all_that_is_ours_and_nothing_else() {
    for variant in VARIANTS {
        let Some(node) = Node::new(variant, 2) else { return };
        serve(node.pod(2), 80);
        node.iptables_sh("-t mangle -A FORWARD -p udp -j ACCEPT");
        node.iptables_sh("-P FORWARD DROP");
        let before = saved(&node);
        let acl = node.start();
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![("web", admits("server", Ingress, &["client"], 80))])).await;
            acl.attach(id(1), facts(1, "client")).await.unwrap();
            acl.attach(id(2), facts(2, "server")).await.unwrap();
        });
        assert!(node.connects(1, 2, 80), "also where filter drops what nobody accepts");
        assert!(!node.connects(2, 1, 80) || saved(&node) != before);
        drop(acl);
        let mut tables = node.iptables();
        let mut found =
            || Family::ALL.map(|family| Remains::of_family(&mut tables, family).unwrap()).into_iter().flatten();
        let removed: Vec<_> = found().collect();
        let count = |of: fn(&Remains) -> usize| removed.iter().map(of).sum::<usize>();
        let (chains, rules) = (count(|remains| remains.chains.len()), count(|remains| remains.rules.len()));
        assert!(chains > 10 && rules >= 6, "{removed:?}");
        let mut restoring = node.iptables();
        removed.iter().for_each(|remains| restoring.restore(remains.family, &remains.removal()).unwrap());
        assert_eq!(found().count(), 0);
        let mut sets = LinuxSets::open_in(&node.netns).unwrap();
        let names: Vec<_> = sets.sets().unwrap().into_iter().map(|header| header.name).collect();
        assert!(names.len() >= 2 && names.iter().all(kernel::ours::is_our_set), "{names:?}");
        // nftables lets go of them a moment later.
        wait_until("the sets being free", || names.iter().all(|name| sets.destroy_set(name).is_ok()));
        // legacy keeps tables that were once used, without a rule.
        let bare = |text: String| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("-A")).map(Into::into).collect()
        };
        assert_eq!(bare(saved(&node)), bare(before));
        let listed = run_in(&node.netns, || Command::new("ipset").args(["list", "-n"]).output());
        if let Ok(listed) = listed.unwrap() {
            assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
        }
    }
}
