//! Tests of rules.

use kernel::{Kernel, Linux, SourceRule};
use types::Family;

use crate::{in_fresh_namespace, ip};

#[test]
fn a_rule_is_added_once_shown_and_deleted_again() {
    in_fresh_namespace(|| {
        let mut kernel = Linux::open().unwrap();
        for (source, family) in [("10.65.0.2", Family::Ipv4), ("fd00::2", Family::Ipv6)] {
            // A table whose number needs more than eight bits, behind every rule that the kernel makes by itself.
            let rule = SourceRule { priority: 10_000, source: ip(source), table: 0x6d78_0003, protocol: 77 };
            assert_eq!(kernel.rules(family).unwrap(), [], "rules of another form are not shown");
            kernel.add_rule(&rule).unwrap();
            kernel.add_rule(&rule).unwrap();
            assert_eq!(kernel.rules(family).unwrap(), [rule]);
            kernel.delete_rule(&SourceRule { table: 5, ..rule }).unwrap();
            assert_eq!(kernel.rules(family).unwrap(), [rule]);
            kernel.delete_rule(&rule).unwrap();
            kernel.delete_rule(&rule).unwrap();
            assert_eq!(kernel.rules(family).unwrap(), []);
        }
    });
}
