//! `manxctl policy`: asked of this node's agent, whose compiler knows the policies and endpoints of the whole cluster.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use types::Family;
use types::api::{DropRecord, ExplainQuery, ShowQuery};
use types::policy::{
    Direction, EffectiveDirection, EffectivePolicy, EffectiveRule, End, Explanation, Flow, Judgement, Protocol, Reason,
};

use crate::cli::{Output, Place, Policy, PolicyCommand, PolicyExplain, PolicyLog, PolicyShow};
use crate::datastore::{Datastore, local_agent};
use crate::endpoints::{self, EndpointName, Located};
use crate::render::{self, rfc3339};

/// How many nodes a line names at most.
const NODES_NAMED: usize = 8;

pub(crate) async fn run(place: &Place, args: Policy) -> anyhow::Result<ExitCode> {
    match args.command {
        PolicyCommand::Explain(args) => return explain(place, args).await,
        PolicyCommand::Show(args) => show(place, args).await?,
        PolicyCommand::Log(args) => log(place, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn explain(place: &Place, args: PolicyExplain) -> anyhow::Result<ExitCode> {
    let ends = [&args.source, &args.destination].map(|text| text.parse::<IpAddr>().map_err(|_| text));
    let endpoints = if ends.iter().all(Result::is_ok) {
        Vec::new()
    } else {
        endpoints::all(&Datastore::open(place).await?).await?
    };
    let [source, destination] = ends.map(|end| match end {
        Ok(address) => Ok(vec![address]),
        Err(text) => addresses(text, &args, &endpoints),
    });
    let (source, destination) = common(&source?, &destination?, args.family)?;
    let flow = Flow {
        source,
        destination,
        protocol: (!args.icmp).then_some(args.protocol),
        port: args.port.unwrap_or_default(),
    };
    let explanation: Explanation = local_agent(place)?.ask("/v1/policy/explain", &ExplainQuery::from(flow)).await?;
    render::print(args.output.output, &explanation, explanation_text)?;
    Ok(match explanation.verdict {
        Judgement::Allowed => ExitCode::SUCCESS,
        Judgement::Denied => ExitCode::FAILURE,
    })
}

fn addresses(text: &str, args: &PolicyExplain, endpoints: &[Located]) -> anyhow::Result<Vec<IpAddr>> {
    let name = EndpointName::parse(text, args.namespace.namespace.as_ref())?;
    let endpoint = &name.find(endpoints)?.endpoint;
    if endpoint.finished {
        bail!("{name} has ended; its address is nobody's any more");
    }
    Ok(endpoint.addresses.clone())
}

/// An address of either end, of one family.
fn common(source: &[IpAddr], destination: &[IpAddr], family: Option<Family>) -> anyhow::Result<(IpAddr, IpAddr)> {
    let of = |addresses: &[IpAddr], family| addresses.iter().copied().find(|address| Family::of(*address) == family);
    let pair = |family| of(source, family).zip(of(destination, family));
    let wanted = family.map_or_else(|| Family::ALL.to_vec(), |family| vec![family]);
    match wanted.into_iter().find_map(pair) {
        Some(pair) => Ok(pair),
        None => {
            let list = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let family = family.map_or_else(|| "the same family".to_owned(), |family| family.to_string());
            bail!("the two have no addresses of {family}: {} and {}", list(source), list(destination))
        }
    }
}

fn explanation_text(explanation: &Explanation) -> String {
    let Explanation { flow, verdict, source, destination, .. } = explanation;
    let port = match flow.protocol {
        Some(protocol) => format!("{protocol} {}", flow.port),
        None => "without ports".to_owned(),
    };
    format!(
        "{verdict}: {} to {}, {port}\n  source, {}\n  destination, {}{}",
        source.party,
        destination.party,
        end_text(source, Direction::Egress),
        end_text(destination, Direction::Ingress),
        entries_text(explanation),
    )
}

/// At which nodes the same connection would be judged otherwise, if it came to a Service that hides its client.
fn entries_text(explanation: &Explanation) -> String {
    let others: Vec<_> = explanation.entries.iter().filter(|entry| entry.verdict != explanation.verdict).collect();
    let Some(first) = others.first() else { return String::new() };
    let more = others.len().checked_sub(NODES_NAMED).filter(|more| *more > 0).map(|more| format!("{more} more"));
    let nodes = others.iter().take(NODES_NAMED).map(|entry| format!("{} ({})", entry.node, entry.address));
    format!(
        "\n  {} where it comes by a Service with externalTrafficPolicy Cluster and enters at {}: that node's address is \
         judged in place of the client's",
        first.verdict,
        nodes.chain(more).collect::<Vec<_>>().join(", ")
    )
}

fn end_text(end: &End, direction: Direction) -> String {
    let why = match &end.reason {
        Reason::NotAnEndpoint => "no policy speaks for an address that is no pod's".to_owned(),
        Reason::NotGoverned => format!("no policy governs its {direction}"),
        Reason::Itself => "nothing keeps a pod from itself".to_owned(),
        Reason::OwnNode => "a node always reaches its own pods".to_owned(),
        Reason::Infrastructure => "this port of a node or router is closed to pods, whatever policies say".to_owned(),
        Reason::Rule(decision) => {
            let mut text = format!("{}, {direction}[{}]", decision.policy, decision.rule);
            let field = match direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            for (field, part) in [(field, &decision.peer), ("ports", &decision.port)] {
                let _ = match part {
                    Some(part) => write!(text, ", {field}[{}]: {}", part.index, part.text),
                    None => write!(text, ", {field}: any"),
                };
            }
            text
        }
        Reason::Isolated { policies } => {
            let policies: Vec<_> = policies.iter().map(ToString::to_string).collect();
            format!("isolated by {}, and no rule fits", policies.join(", "))
        }
    };
    format!("{direction} {}: {why}", end.verdict())
}

async fn show(place: &Place, args: PolicyShow) -> anyhow::Result<()> {
    let name = EndpointName::parse(&args.pod, args.namespace.namespace.as_ref())?;
    let agent = local_agent(place)?;
    let located = endpoints::find_local(&agent, &name, Datastore::open(place)).await?;
    let query = ShowQuery { endpoint: located.endpoint.id };
    let policy: EffectivePolicy = agent.ask("/v1/policy/show", &query).await?;
    render::print(args.output.output, &policy, policy_text)
}

fn policy_text(policy: &EffectivePolicy) -> String {
    let addresses: Vec<_> = policy.addresses.iter().map(ToString::to_string).collect();
    let labels: Vec<_> = policy.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!("Pod {}/{} ({})\n", policy.namespace, policy.name, addresses.join(", "));
    let _ = writeln!(text, "  labels: {}", if labels.is_empty() { "none".to_owned() } else { labels.join(", ") });
    for direction in Direction::ALL {
        let policies = match policy.direction(direction) {
            EffectiveDirection::Open => {
                let _ = writeln!(text, "\n{direction}: open, no policy governs it");
                continue;
            }
            EffectiveDirection::Governed { policies } => policies,
        };
        let _ = writeln!(text, "\n{direction}: governed; what no rule fits is denied");
        let rows = policies.iter().flat_map(|rules| {
            let nothing = rules.rules.is_empty().then(|| row(&rules.policy, "-", ["allows nothing", "-", "-"]));
            let rows = rules.rules.iter().enumerate().map(|(index, rule)| {
                let (peers, ports) = (peers_text(rule), ports_text(rule));
                row(&rules.policy, &index.to_string(), [action_text(rule), &peers, &ports])
            });
            nothing.into_iter().chain(rows).collect::<Vec<_>>()
        });
        text.push_str(&render::table(&["POLICY", "RULE", "ACTION", "PEERS", "PORTS"], rows));
        text.push('\n');
    }
    text
}

fn row(policy: &types::policy::PolicyId, rule: &str, rest: [&str; 3]) -> Vec<String> {
    [policy.to_string(), rule.to_owned()].into_iter().chain(rest.map(str::to_owned)).collect()
}

const fn action_text(rule: &EffectiveRule) -> &'static str {
    match rule.action {
        types::policy::Action::Allow => "allow",
        types::policy::Action::Deny => "deny",
        types::policy::Action::Pass => "pass",
    }
}

fn peers_text(rule: &EffectiveRule) -> String {
    let Some(peers) = &rule.peers else { return "any".to_owned() };
    let peers = peers.iter().map(|peer| match peer.members {
        None => peer.text.clone(),
        Some(members) => format!("{} ({members} now)", peer.text),
    });
    or_none(peers.collect())
}

fn ports_text(rule: &EffectiveRule) -> String {
    let Some(ports) = &rule.ports else { return "any".to_owned() };
    let ports = ports.iter().map(|port| match &port.numbers {
        None => port.text.clone(),
        Some(numbers) => {
            let numbers = numbers.iter().map(ToString::to_string).collect();
            format!("{} ({} now)", port.text, or_none(numbers))
        }
    });
    or_none(ports.collect())
}

fn or_none(parts: Vec<String>) -> String {
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

async fn log(place: &Place, args: PolicyLog) -> anyhow::Result<()> {
    let mut lines = local_agent(place)?.lines("/v1/policy/log").await?;
    let print = async {
        while let Some(record) = lines.next::<DropRecord>().await? {
            let text = match args.output.output {
                Output::Table | Output::Wide => record_text(&record),
                // One record a line, as a log has no end at which a list could be closed.
                Output::Json => serde_json::to_string(&record)?,
                Output::Yaml => format!("---\n{}", serde_saphyr::to_string(&record)?.trim_end()),
            };
            if !render::say_on(&text)? {
                return Ok(());
            }
        }
        bail!("the agent has ended the log (is it stopping?)")
    };
    if args.follow {
        return print.await;
    }
    // It is no error that the time is up.
    tokio::time::timeout(Duration::from_secs(args.seconds), print).await.unwrap_or(Ok(()))
}

fn record_text(record: &DropRecord) -> String {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == record.protocol);
    let protocol = protocol.map_or_else(|| format!("protocol {}", record.protocol), |protocol| protocol.to_string());
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let pod = record.pod.as_ref().map_or_else(|| "an unknown endpoint".to_owned(), |pod| format!("pod {pod}"));
    let why = match record.policies.as_slice() {
        [] => "no policy is known to have denied it".to_owned(),
        policies => {
            let policies: Vec<_> = policies.iter().map(ToString::to_string).collect();
            format!("isolated by {}", policies.join(", "))
        }
    };
    let missed = match record.missed {
        0 => String::new(),
        missed => format!(" ({missed} more before it)"),
    };
    format!(
        "{} {} of {pod}: {protocol} {} -> {}: {why}{missed}",
        rfc3339(record.time_ms),
        record.direction,
        end(record.source, record.source_port),
        end(record.destination, record.destination_port),
    )
}

#[cfg(test)]
mod tests;
