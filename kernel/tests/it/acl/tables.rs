//! Tests of iptables.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kernel::KernelError;
use kernel::acl::{Iptables, IptablesVariant, LinuxSets, SetKind, Sets, Tables};
use types::Family;

use super::{each_variant, installed, set_name, spec};
use crate::in_fresh_namespace;

#[test]
fn what_is_restored_is_saved_in_both_families_and_leaves_the_rest_alone() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            for family in Family::ALL {
                tables.restore(family, "*mangle\n:theirs - [0:0]\n-A theirs -j RETURN\nCOMMIT\n").unwrap();
                let text = "*mangle\n:manx-fw - [0:0]\n-A manx-fw -m comment --comment \"manx: 1 2\" -j DROP\n\
                            -A FORWARD -j manx-fw\nCOMMIT\n*filter\n:manx-in - [0:0]\nCOMMIT\n";
                tables.restore(family, text).unwrap();
                let saved = tables.save(family, "mangle", false).unwrap();
                for line in [
                    ":manx-fw - [0:0]",
                    "-A manx-fw -m comment --comment \"manx: 1 2\" -j DROP",
                    "-A FORWARD -j manx-fw",
                    "-A theirs -j RETURN",
                ] {
                    assert!(saved.lines().any(|found| found == line), "{line} in {saved}");
                }
                let counted = tables.save(family, "mangle", true).unwrap();
                assert!(counted.contains("[0:0] -A FORWARD -j manx-fw"), "{counted}");
                assert!(tables.save(family, "filter", false).unwrap().contains(":manx-in - [0:0]"));
                let again = "*mangle\n:manx-fw - [0:0]\nCOMMIT\n";
                tables.restore(family, again).unwrap();
                let saved = tables.save(family, "mangle", false).unwrap();
                assert!(!saved.contains("-A manx-fw"), "a declared chain is emptied: {saved}");
            }
        });
    });
}

#[test]
fn a_table_with_an_error_is_left_as_it_was_and_those_before_it_are_not() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            let variant = tables.variant();
            let text = "*mangle\n:manx-a - [0:0]\n-A manx-a -j DROP\nCOMMIT\n\
                        *filter\n:manx-b - [0:0]\n-A FORWARD -j manx-b\n-A manx-b -j nowhere\nCOMMIT\n";
            let error = tables.restore(Family::Ipv4, text).unwrap_err();
            assert!(matches!(error, KernelError::Rejected(_)), "{error}");
            assert!(error.to_string().contains("nowhere"), "{error}");
            assert!(tables.save(Family::Ipv4, "mangle", false).unwrap().contains("-A manx-a -j DROP"), "{variant:?}");
            assert!(!tables.save(Family::Ipv4, "filter", false).unwrap().contains("manx-b"), "{variant:?}");
        });
    });
}

#[test]
fn an_error_quotes_the_line() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            let rule = "-A FORWARD -m set --match-set manx-none src -j DROP";
            let error = tables.restore(Family::Ipv6, &format!("*mangle\n{rule}\nCOMMIT\n")).unwrap_err();
            assert!(error.to_string().contains(&format!("(line 2 is {rule:?})")), "{error}");
            assert!(error.to_string().contains("manx-none"), "{error}");
        });
    });
}

#[test]
fn a_chain_that_is_in_use_is_not_deleted() {
    in_fresh_namespace(|| {
        each_variant(|mut tables| {
            let text = "*mangle\n:manx-a - [0:0]\n-A FORWARD -j manx-a\nCOMMIT\n";
            tables.restore(Family::Ipv4, text).unwrap();
            tables.restore(Family::Ipv4, "*mangle\n-F manx-a\n-X manx-a\nCOMMIT\n").unwrap_err();
            tables.restore(Family::Ipv4, "*mangle\n-D FORWARD -j manx-a\n-F manx-a\n-X manx-a\nCOMMIT\n").unwrap();
        });
    });
}

#[test]
fn marks_are_mapped_in_mangle_and_nowhere_else() {
    in_fresh_namespace(|| {
        let mut sets = LinuxSets::open().unwrap();
        for (family, name) in [(Family::Ipv4, "manx-ep4"), (Family::Ipv6, "manx-ep6")] {
            sets.create_set(&set_name(name), &spec(SetKind::Marks, family, 10)).unwrap();
            each_variant(|mut tables| {
                let rule = |table| format!("*{table}\n-A FORWARD -j SET --map-set {name} dst --map-mark\nCOMMIT\n");
                tables.restore(family, &rule("mangle")).unwrap();
                let error = tables.restore(family, &rule("filter")).unwrap_err();
                assert!(matches!(error, KernelError::Rejected(_)), "{error}");
            });
        }
    });
}

/// A folder with programs of the given names that all run `script`, for the front of PATH.
fn shims(names: &[&str], script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn in_front(folder: &tempfile::TempDir) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(folders).unwrap()
}

#[test]
fn a_restore_that_hangs_is_ended_and_changes_nothing_afterwards() {
    in_fresh_namespace(|| {
        if !installed("iptables-nft-restore") {
            return;
        }
        let folder = shims(&["iptables-nft-restore"], "sleep 60\nPATH=${PATH#*:} exec iptables-nft-restore \"$@\"");
        let hanging = Iptables::new(IptablesVariant::Nft).with_path(in_front(&folder));
        let mut hanging = hanging.with_time_limit(Duration::from_millis(200));
        let error = hanging.restore(Family::Ipv4, "*mangle\n:manx-a - [0:0]\nCOMMIT\n").unwrap_err();
        assert!(matches!(error, KernelError::Busy(_)), "{error}");
        assert!(error.to_string().contains("iptables-nft-restore took too long"), "{error}");
        let saved = Iptables::new(IptablesVariant::Nft).save(Family::Ipv4, "mangle", false).unwrap();
        assert!(!saved.contains("manx-a"), "{saved}");
    });
}

#[test]
fn programs_are_looked_up_at_each_call_and_a_missing_one_is_named() {
    in_fresh_namespace(|| {
        let folder = shims(&[], "");
        let mut tables = Iptables::new(IptablesVariant::Legacy).with_path(folder.path());
        let error = tables.restore(Family::Ipv6, "").unwrap_err();
        assert!(matches!(error, KernelError::Gone(_)), "{error}");
        assert!(error.to_string().contains("ip6tables-legacy-restore"), "{error}");
        let later = folder.path().join("ip6tables-legacy-restore");
        fs::write(&later, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&later, fs::Permissions::from_mode(0o755)).unwrap();
        tables.restore(Family::Ipv6, "").unwrap();
        let nothing = Iptables::detect_with_path("/nonexistent").unwrap_err();
        assert!(matches!(nothing, KernelError::Gone(_)), "{nothing}");
    });
}

#[test]
fn the_variant_is_the_one_in_which_others_have_rules() {
    in_fresh_namespace(|| {
        if !installed("iptables-nft-restore") || !installed("iptables-legacy-restore") {
            return;
        }
        let rules = "*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n";
        Iptables::new(IptablesVariant::Legacy).restore(Family::Ipv6, rules).unwrap();
        assert_eq!(Iptables::detect().unwrap().variant(), IptablesVariant::Legacy);
        let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
        Iptables::new(IptablesVariant::Nft).restore(Family::Ipv4, hint).unwrap();
        assert_eq!(Iptables::detect().unwrap().variant(), IptablesVariant::Nft);
    });
}

#[test]
fn tables_of_another_namespace_can_be_worked_on_from_outside() {
    in_fresh_namespace(|| {
        if !installed("iptables-nft-restore") {
            return;
        }
        let other = kernel::Netns::create().unwrap();
        let mut there = Iptables::new(IptablesVariant::Nft).in_netns(other);
        there.restore(Family::Ipv4, "*mangle\n:manx-a - [0:0]\nCOMMIT\n").unwrap();
        assert!(there.save(Family::Ipv4, "mangle", false).unwrap().contains("manx-a"));
        let here = Iptables::new(IptablesVariant::Nft).save(Family::Ipv4, "mangle", false).unwrap();
        assert!(!here.contains("manx-a"), "{here}");
    });
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_and_then_worth_another_try() {
    in_fresh_namespace(|| {
        if !installed("iptables-legacy-restore") {
            return;
        }
        // This test has a lock file of its own: the usual one is shared by all namespaces.
        let lock = tempfile::NamedTempFile::new().unwrap();
        let script =
            format!("XTABLES_LOCKFILE={} PATH=${{PATH#*:}} exec \"${{0##*/}}\" --noflush -w 1", lock.path().display());
        let folder = shims(&["iptables-legacy-restore"], &script);
        let mut tables = Iptables::new(IptablesVariant::Legacy).with_path(in_front(&folder));
        let text = "*mangle\n:manx-a - [0:0]\nCOMMIT\n";
        let held = nix::fcntl::Flock::lock(lock.reopen().unwrap(), nix::fcntl::FlockArg::LockExclusive).unwrap();
        let error = tables.restore(Family::Ipv4, text).unwrap_err();
        assert!(matches!(error, KernelError::Busy(_)), "{error}");
        drop(held);
        tables.restore(Family::Ipv4, text).unwrap();
    });
}
