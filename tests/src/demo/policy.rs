//! The policy act: who reaches whom before and after a default-deny and an allow, and why not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use tests::reach::{Question, Verdict, ask_all};
use tests::{Lab, Place, Pod, wait_for};
use types::Family;

use super::{CONVERGENCE, HOST, print, say, seconds, title};

/// Nobody reaches a pod of the namespace, but from pods labelled `app: a` everybody reaches those labelled `app: b`.
const POLICIES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a-to-b, namespace: default}
spec:
  podSelector: {matchLabels: {app: b}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: a}}
";

/// Shows the policy act.
pub(super) fn show(lab: &Lab, pods: &[Pod]) -> anyhow::Result<()> {
    title(format_args!(
        "Policies: pods take nothing, but b from a. Who reached whom before, by 4 = IPv4 and 6 = IPv6:"
    ));
    let before = Grid::look(lab, pods)?;
    before.print();
    ensure!(before.agrees(|_, _| true), "without policies everybody reaches everybody");

    let node = lab.node("node1");
    std::fs::write(node.path("/etc/manx/policies.yaml"), POLICIES).context("policies.yaml")?;
    print(POLICIES);
    say(format_args!("  node1# manxctl apply -f policies.yaml"));
    print(&node.agent().ctl(&["apply", "-f", "/etc/manx/policies.yaml"])?);
    let begun = Instant::now();
    let admitted = |from: &str, to: &str| to == "client" || (from.ends_with("/a") && to.ends_with("/b"));
    let after = wait_for("the policies being in force everywhere", CONVERGENCE, || {
        let grid = Grid::look(lab, pods).map_err(|error| error.to_string())?;
        if grid.agrees(admitted) { Ok(grid) } else { Err("the grid is another") }.map_err(ToOwned::to_owned)
    })?;
    say(format_args!("  And after, {} later, with the time of looking:", seconds(begun)));
    after.print();

    let (from, to) = (lab.pod("node2", "b")?, lab.pod("node1", "a")?);
    let words = ["policy", "explain", "default/b", "default/a", "--port", "80", "--protocol", "tcp"];
    // Pods of one name are on every node here: addresses tell which are meant.
    let (source, target) = (from.address(Family::Ipv4).to_string(), to.address(Family::Ipv4).to_string());
    let words = words.map(|word| match word {
        "default/b" => source.as_str(),
        "default/a" => target.as_str(),
        word => word,
    });
    title(format_args!("Why does {} not reach {}? manxctl {}", from.name(), to.name(), words.join(" ")));
    let explained = node.try_exec(&[&["manxctl"], words.as_slice()].concat())?;
    print(&explained.stdout);
    ensure!(explained.status.code() == Some(1), "explain does not say that it is denied: {}", explained.stderr);
    ensure!(explained.stdout.contains("default-deny"), "the policy that denies is not named");
    for name in ["default-deny", "a-to-b"] {
        node.agent().ctl(&["delete", "networkpolicy", name, "-n", "default"])?;
    }
    Ok(())
}

/// Which pods reach each other.
struct Grid {
    /// By sender and receiver: the families that pass.
    cells: BTreeMap<(String, String), String>,
}

impl Grid {
    fn look(lab: &Lab, pods: &[Pod]) -> anyhow::Result<Self> {
        let host = lab.node("client");
        let addresses = |pod: &Pod| Family::ALL.map(|family| pod.address(family));
        let mut parties: Vec<(&dyn Place, [IpAddr; 2])> =
            pods.iter().map(|pod| (pod as &dyn Place, addresses(pod))).collect();
        parties.push((host, HOST));
        let others = |own: &str| {
            let others = parties.iter().filter(|(place, _)| place.name() != own);
            others.flat_map(|(place, addresses)| addresses.map(|address| (place.name(), address))).collect::<Vec<_>>()
        };
        let asked: Vec<(&dyn Place, Vec<Question>)> = parties
            .iter()
            .map(|(place, _)| {
                let targets = others(&place.name());
                (*place, targets.into_iter().map(|(_, address)| Question::echo(address)).collect())
            })
            .collect();
        let mut cells: BTreeMap<(String, String), String> = BTreeMap::new();
        for ((place, _), verdicts) in asked.iter().zip(ask_all(&asked)?) {
            for ((to, address), verdict) in others(&place.name()).into_iter().zip(verdicts) {
                let mark = match (verdict, address) {
                    (Verdict::Passed, IpAddr::V4(_)) => '4',
                    (Verdict::Passed, IpAddr::V6(_)) => '6',
                    (Verdict::Silent | Verdict::Failed(_), _) => '-',
                };
                cells.entry((place.name(), to)).or_default().push(mark);
            }
        }
        Ok(Self { cells })
    }

    /// Whether exactly the expected pairs pass, in both families.
    fn agrees(&self, admitted: impl Fn(&str, &str) -> bool) -> bool {
        self.cells.iter().all(|((from, to), cell)| cell == if admitted(from, to) { "46" } else { "--" })
    }

    fn print(&self) {
        let names: std::collections::BTreeSet<&String> = self.cells.keys().map(|(from, _)| from).collect();
        let heading: String = names.iter().map(|name| format!("{name:<9}")).collect();
        say(format_args!("  {:<10} {heading}", "from \\ to"));
        for from in &names {
            let cell = |to: &&&String| self.cells.get(&((*from).clone(), (**to).clone())).map_or(".", String::as_str);
            let line: String = names.iter().map(|to| format!("{:<9}", cell(&to))).collect();
            say(format_args!("  {from:<10} {line}"));
        }
    }
}
