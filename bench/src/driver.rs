//! What measures, inside the node: runs CNI plugins as a container runtime does, with a clock.
//!
//! It is this program again, with the hidden command `drive`, so that entering the node's namespaces is not measured. The
//! plan comes on standard input and the rounds go to standard output, both as JSON.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tests::{Node, Place, wait_for};

/// The folder where runtimes look for plugins.
const PLUGINS: &str = "/opt/cni/bin";

/// How long it may take until detached links are gone.
const SETTLE: Duration = Duration::from_secs(60);

/// How many attachments each plugin makes before the clock runs, so that the programs are in the page cache.
const WARM_UP: usize = 3;

/// How long nothing happens before an ADD into a class.
const REST: Duration = Duration::from_millis(50);

/// Switches duplicate address detection off in pods (RFC 4862 section 5.4): ptp waits for its end, one to two seconds
/// in every ADD, and the comparison would be one of that.
const NO_DETECTION: &str = "net.ipv6.conf.default.accept_dad=0";

/// What the driver is to measure.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// A text that tells this run's containers from those of other runs in the same node.
    pub(crate) run: String,
    /// The plugins, in the order in which they take turns in every round.
    pub(crate) plugins: Vec<Plugin>,
    /// How many rounds there are.
    pub(crate) rounds: usize,
    /// How many attachments each plugin makes per round one after the other.
    pub(crate) sequential: usize,
    /// How many attachments each plugin makes per round by `threads` at a time.
    pub(crate) parallel: usize,
    /// How many plugins run at a time in the parallel part.
    pub(crate) threads: usize,
}

/// A plugin, and the network that it is called for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plugin {
    /// The path of the plugin's program.
    pub(crate) program: String,
    /// The network's name, which no other plugin of the plan has.
    pub(crate) network: String,
    /// The namespace of the network's pods.
    pub(crate) namespace: String,
    /// How many addresses every pod must get; an ADD that gives fewer has failed.
    pub(crate) addresses: usize,
    /// The configuration that the plugin gets on standard input.
    pub(crate) config: Map<String, Value>,
    /// Whether an ADD that failed is made once more after a DEL, as runtimes do; both count in its time.
    pub(crate) may_fail: bool,
}

/// What the driver is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Task {
    /// Plugins in turn.
    Plan(Plan),
    /// Pods that come and go, two of each class; the plugin and how many classes.
    Classes(Plugin, usize),
    /// Many pods that go by one GC; the plugin and how many pods.
    Collection(Plugin, usize),
}

/// How long ADDs took under policies that select pods by the value `cNUMBER` of [`CLASS_LABEL`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Classes {
    /// Those of the first pod that ever was in a class.
    pub(crate) first: Vec<Duration>,
    /// Those of a second pod, while the first was there.
    pub(crate) next: Vec<Duration>,
    /// Those of a pod in a class that all pods had left.
    pub(crate) again: Vec<Duration>,
}

/// What one GC took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Collection {
    /// The verb itself.
    pub(crate) verb: Duration,
    /// From its beginning until the node has none of the links.
    pub(crate) links_gone: Duration,
    /// What all processes of the node ran in the kernel meanwhile, the agent foremost.
    pub(crate) kernel: Duration,
}

/// The label by which [`drive_classes`] tells pods of one class from those of another.
pub(crate) const CLASS_LABEL: &str = "class";

/// What was measured of one plugin in one round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// The name of the plugin's network.
    pub(crate) network: String,
    /// How long each ADD of the sequential part took.
    pub(crate) add: Vec<Duration>,
    /// How long each DEL of the sequential part took.
    pub(crate) del: Vec<Duration>,
    /// How long all ADDs of the parallel part took together.
    pub(crate) parallel_add: Duration,
    /// How long all DELs of the parallel part took together.
    pub(crate) parallel_del: Duration,
    /// The time from the last DEL of the parallel part until the node has no link of its attachments any more.
    pub(crate) links_gone: Duration,
}

/// Runs the plan in a node.
pub(crate) fn drive(node: &Node, plan: Plan) -> anyhow::Result<Vec<Round>> {
    ask(node, &Task::Plan(plan))
}

/// Plugs pods into so many classes, and again into classes that all pods have left. Policies are the caller's.
pub(crate) fn drive_classes(node: &Node, plugin: Plugin, count: usize) -> anyhow::Result<Classes> {
    ask(node, &Task::Classes(plugin, count))
}

/// Plugs so many pods in and lets one GC take them back.
pub(crate) fn drive_collection(node: &Node, plugin: Plugin, count: usize) -> anyhow::Result<Collection> {
    ask(node, &Task::Collection(plugin, count))
}

fn ask<T: DeserializeOwned>(node: &Node, task: &Task) -> anyhow::Result<T> {
    let own = std::env::current_exe().context("finding the running program")?;
    let mut command = node.command(&own.display().to_string());
    let mut child = command
        .arg("drive")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("running the driver on {}", node.name()))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(&serde_json::to_vec(task)?).context("telling the driver its plan")?;
    }
    let output = child.wait_with_output().context("waiting for the driver")?;
    ensure!(output.status.success(), "the driver on {} failed ({})", node.name(), output.status);
    serde_json::from_slice(&output.stdout).context("the driver's answer")
}

/// Carries out the command `drive`.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut task = Vec::new();
    io::stdin().read_to_end(&mut task).context("reading the plan")?;
    let answer = match serde_json::from_slice(&task).context("the plan")? {
        Task::Plan(plan) => serde_json::to_vec(&carry_out(&plan)?)?,
        Task::Classes(plugin, count) => serde_json::to_vec(&enter_classes(&plugin, count)?)?,
        Task::Collection(plugin, count) => serde_json::to_vec(&collect(&plugin, count)?)?,
    };
    io::stdout().write_all(&answer).context("writing the answer")
}

fn carry_out(plan: &Plan) -> anyhow::Result<Vec<Round>> {
    let mut pods = Pods::make(&plan.run, WARM_UP.max(plan.sequential).max(plan.parallel))?;
    let links = links()?;
    for plugin in &plan.plugins {
        let mut batch = pods.batch(plugin, WARM_UP)?;
        work(&mut batch, 1, |pod| plugin.add(pod))?;
        work(&mut batch, 1, |pod| plugin.del(pod))?;
        settle(links)?;
    }
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        for plugin in &plan.plugins {
            rounds.push(round(plan, plugin, &mut pods, links)?);
        }
    }
    Ok(rounds)
}

fn enter_classes(plugin: &Plugin, count: usize) -> anyhow::Result<Classes> {
    let mut pods = Pods::make("classes", 2)?;
    let links = links()?;
    let of_class = |number: usize| {
        let mut plugin = plugin.clone();
        plugin.config.insert("args".to_owned(), json!({ "cni": { "labels": { CLASS_LABEL: format!("c{number}") } } }));
        plugin
    };
    let mut warm_up = pods.batch(plugin, 2)?;
    work(&mut warm_up, 1, |pod| plugin.add(pod))?;
    work(&mut warm_up, 1, |pod| plugin.del(pod))?;
    settle(links)?;
    let mut classes = Classes { first: Vec::new(), next: Vec::new(), again: Vec::new() };
    for number in 0..count {
        let plugin = of_class(number);
        let mut pair = pods.batch(&plugin, 2)?;
        let times = add_rested(&plugin, &mut pair)?;
        work(&mut pair, 1, |pod| plugin.del(pod))?;
        settle(links)?;
        let &[first, next] = times.as_slice() else { bail!("{} pods of a class instead of two", times.len()) };
        classes.first.push(first);
        classes.next.push(next);
    }
    for number in 0..count {
        let plugin = of_class(number);
        let mut pod = pods.batch(&plugin, 1)?;
        classes.again.extend(add_rested(&plugin, &mut pod)?);
        work(&mut pod, 1, |pod| plugin.del(pod))?;
        settle(links)?;
    }
    Ok(classes)
}

/// Adds one after the other, each when the machine has forgotten the one before: they are to be alike in that.
fn add_rested(plugin: &Plugin, pods: &mut [Pod]) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for pod in pods.chunks_mut(1) {
        thread::sleep(REST);
        times.extend(work(pod, 1, |pod| plugin.add(pod))?.0);
    }
    Ok(times)
}

fn collect(plugin: &Plugin, count: usize) -> anyhow::Result<Collection> {
    let mut pods = Pods::make("gc", count)?;
    let links = links()?;
    let mut batch = pods.batch(plugin, count)?;
    work(&mut batch, 1, |pod| plugin.add(pod))?;
    let (before, started) = (kernel_time()?, Instant::now());
    plugin.gc()?;
    let verb = started.elapsed();
    settle(links)?;
    let links_gone = started.elapsed();
    Ok(Collection { verb, links_gone, kernel: kernel_time()?.saturating_sub(before) })
}

/// What all processes of this node have run in the kernel so far (proc(5): `stime`, of the ended ones `cstime` of their parents).
fn kernel_time() -> anyhow::Result<Duration> {
    // Each tick is a hundredth of a second (USER_HZ).
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        // One that has ended meanwhile counts in its parent.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // Behind the name, which may hold anything, comes field 3; these are 15 and 17.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split_whitespace().collect::<Vec<_>>());
        let of = |index: usize| fields.as_ref()?.get(index)?.parse::<u32>().ok();
        ticks += of(12).unwrap_or_default() + of(14).unwrap_or_default();
    }
    Ok(TICK * ticks)
}

fn round(plan: &Plan, plugin: &Plugin, pods: &mut Pods, links: usize) -> anyhow::Result<Round> {
    let mut batch = pods.batch(plugin, plan.sequential)?;
    let (add, _) = work(&mut batch, 1, |pod| plugin.add(pod))?;
    let (del, _) = work(&mut batch, 1, |pod| plugin.del(pod))?;
    // What a plugin leaves for later must be done before another plugin's turn.
    settle(links)?;
    let mut batch = pods.batch(plugin, plan.parallel)?;
    let (_, parallel_add) = work(&mut batch, plan.threads, |pod| plugin.add(pod))?;
    let (_, parallel_del) = work(&mut batch, plan.threads, |pod| plugin.del(pod))?;
    let links_gone = settle(links)?;
    Ok(Round { network: plugin.network.clone(), add, del, parallel_add, parallel_del, links_gone })
}

/// A container that has a network namespace.
#[derive(Debug)]
struct Pod {
    /// `CNI_CONTAINERID`, never used twice.
    container: String,
    /// The name of the namespace.
    netns: String,
    /// The answer of the ADD.
    result: Option<Value>,
}

/// The namespaces of pods. They are made before the clock runs, and are as few as a node has: among a thousand of them
/// our ADD was measured to take twice as long, and ptp's a quarter longer.
struct Pods {
    /// How the names of namespaces and containers begin.
    run: String,
    /// The namespaces, as many as the largest batch needs; each batch plugs new containers into them.
    namespaces: Vec<String>,
    /// How many containers there have been so far.
    containers: usize,
}

impl Pods {
    fn make(run: &str, count: usize) -> anyhow::Result<Self> {
        let namespaces: Vec<String> = (0..count).map(|number| format!("{run}-{number}")).collect();
        for namespace in &namespaces {
            command(&["ip", "netns", "add", namespace])?;
            inside(namespace, &["sysctl", "-q", "-w", NO_DETECTION])?;
        }
        Ok(Self { run: run.to_owned(), namespaces, containers: 0 })
    }

    /// Makes new containers, in namespaces like those of a runtime: with nothing but a loopback that is down.
    fn batch(&mut self, plugin: &Plugin, count: usize) -> anyhow::Result<Vec<Pod>> {
        let mut batch = Vec::new();
        for netns in self.namespaces.iter().take(count) {
            inside(netns, &["ip", "link", "set", "lo", "down"])?;
            let container = format!("{}-{}-{}", self.run, plugin.network, self.containers);
            self.containers += 1;
            batch.push(Pod { container, netns: netns.clone(), result: None });
        }
        Ok(batch)
    }
}

/// Runs a command in a pod's namespace, outside of the measurement.
fn inside(namespace: &str, words: &[&str]) -> anyhow::Result<()> {
    let netns = format!("--net=/run/netns/{namespace}");
    command(&[&["nsenter", &netns], words].concat())
}

/// Runs a command, outside of the measurement.
fn command(words: &[&str]) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let output = Command::new(program).args(arguments).output().with_context(|| words.join(" "))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", words.join(" "), said.trim());
    Ok(())
}

/// Calls `each` for every pod, `threads` at a time. Returns how long each call took, and how long all took together.
/// The first failure ends it.
fn work(
    pods: &mut [Pod],
    threads: usize,
    each: impl Fn(&mut Pod) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let queue = Mutex::new(pods.iter_mut());
    let worker = || {
        let mut times = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(pod) = next else { return Ok(times) };
            let started = Instant::now();
            each(pod)?;
            times.push(started.elapsed());
        }
    };
    let started = Instant::now();
    let ended: Vec<anyhow::Result<Vec<Duration>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let ended = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the driver panicked"))));
        ended.collect()
    });
    let elapsed = started.elapsed();
    let mut times = Vec::new();
    for part in ended {
        times.extend(part?);
    }
    Ok((times, elapsed))
}

/// Waits until the node has as many links as before any pod was plugged in.
fn settle(before: usize) -> anyhow::Result<Duration> {
    let started = Instant::now();
    wait_for("the links of detached pods to be gone", SETTLE, || {
        let now = links().map_err(|error| error.to_string())?;
        if now <= before { Ok(()) } else { Err(format!("{} are left", now - before)) }
    })?;
    Ok(started.elapsed())
}

fn links() -> anyhow::Result<usize> {
    Ok(std::fs::read_dir("/sys/class/net").context("/sys/class/net")?.count())
}

impl Plugin {
    fn add(&self, pod: &mut Pod) -> anyhow::Result<()> {
        let result = match self.call("ADD", pod) {
            Err(error) if self.may_fail => {
                eprintln!("  once more: {error:#}");
                self.call("DEL", pod)?;
                self.call("ADD", pod)?
            }
            result => result?,
        };
        let addresses = result.get("ips").and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(
            addresses == self.addresses,
            "{} ADD {}: not {} addresses: {result}",
            self.program,
            pod.container,
            self.addresses
        );
        pod.result = Some(result);
        Ok(())
    }

    fn del(&self, pod: &mut Pod) -> anyhow::Result<()> {
        self.call("DEL", pod).map(drop)
    }

    /// Has the plugin take back all attachments of its network.
    fn gc(&self) -> anyhow::Result<()> {
        let mut config = self.config.clone();
        // GC came with this version.
        config.insert("cniVersion".to_owned(), "1.1.0".into());
        config.insert("cni.dev/valid-attachments".to_owned(), json!([]));
        let what = || format!("{} GC", self.program);
        let mut command = Command::new(Path::new(PLUGINS).join(&self.program));
        command.env("CNI_COMMAND", "GC").env("CNI_PATH", PLUGINS);
        talk(&mut command, &config, what).map(drop)
    }

    fn call(&self, verb: &str, pod: &Pod) -> anyhow::Result<Value> {
        let mut config = self.config.clone();
        if let Some(result) = &pod.result {
            config.insert("prevResult".to_owned(), result.clone());
        }
        let what = || format!("{} {verb} {}", self.program, pod.container);
        let mut command = Command::new(Path::new(PLUGINS).join(&self.program));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.container)
            .env("CNI_NETNS", format!("/run/netns/{}", pod.netns))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .env(
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={}", self.namespace, pod.container),
            );
        talk(&mut command, &config, what)
    }
}

/// Runs a plugin from start to exit and reads its answer, as libcni does.
fn talk(command: &mut Command, config: &Map<String, Value>, what: impl Fn() -> String) -> anyhow::Result<Value> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(&what)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(&serde_json::to_vec(config)?).with_context(&what)?;
    }
    let output = child.wait_with_output().with_context(&what)?;
    if !output.status.success() {
        let [out, err] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        bail!("{} ({}): {} {}", what(), output.status, out.trim(), err.trim());
    }
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout).with_context(what)
}
