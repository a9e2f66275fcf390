//! Whether a peer that sends a million routes is in anybody's way: what passes between another peer's change and the
//! kernel's owner, and how late a KEEPALIVE is, while the routes come in and are told on.
//!
//! The speaker runs in this process on two threads, its peers on threads of their own, over loopback. Three peers:
//!
//! - `feed`, a client of the speaker, sends the routes;
//! - `quiet`, another client, announces and withdraws one prefix at a time, and is told the feed's routes;
//! - `idle`, a router of another AS, is told nothing but KEEPALIVEs.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bgp::{Bgp, ByFamily, Families, Identity, ImportPolicy, Outputs, PeerConfig, SpeakerConfig};
use bgp_proto::wire::{
    AfiSafi, Capability, Codec, HoldTime, Message, Open, Packer, PathAttributes, PeerType, frame_length, keepalive,
};
use clap::Args;
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{Asn, Family, FibUpdate, Passwords, Prefix, RouterId};

use crate::report::Report;
use crate::stats::percentile;

/// How much is fed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Feed {
    /// Routes.
    #[arg(long, default_value_t = 1_000_000)]
    routes: u32,
    /// Routes that share their attributes, and a message: fewer are more work.
    #[arg(long, default_value_t = 100)]
    per_update: usize,
}

/// The port of the speaker.
const PORT: u16 = 17_900;
/// The speaker's hold time towards `idle`: the shortest there is, for a KEEPALIVE a second.
const HOLD_TIME: Duration = Duration::from_secs(3);
/// The longest time between two KEEPALIVEs: a third of that; jitter makes it shorter (RFC 4271 section 10).
const KEEPALIVE_TIME: Duration = Duration::from_secs(1);
/// How often `quiet` changes its mind.
const PAUSE: Duration = Duration::from_millis(20);
/// When a benchmark has failed.
const LIMIT: Duration = Duration::from_secs(120);

const FEED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 17, 2));
const QUIET: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 17, 3));
const IDLE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 17, 4));
const SPEAKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 17, 1));

pub(crate) fn run(feed: &Feed) -> anyhow::Result<Report> {
    ensure!(feed.routes <= 1 << 20, "there are 1,048,576 prefixes of 28 bits in 10.0.0.0/8");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seen = Arc::new(Seen::default());
    let bgp = runtime.block_on(start(Arc::clone(&seen)))?;
    let measured = measure(feed, &seen);
    drop(bgp);
    runtime.shutdown_timeout(Duration::from_secs(1));
    report(feed, &measured?)
}

/// What the owner of kernel routes has been told.
#[derive(Default)]
struct Seen {
    /// The feed's routes.
    fed: AtomicUsize,
    /// When the last change of each of `quiet`'s prefixes came, and whether it is there.
    quiet: Mutex<HashMap<Prefix, (Instant, bool)>>,
}

/// What was measured.
struct Measured {
    /// From the feed's first octet until its last route was with the owner of kernel routes.
    fed: Duration,
    /// From a change of `quiet` until it was there.
    changes: Vec<Duration>,
    /// Times between two messages to `idle`.
    gaps: Vec<Duration>,
}

async fn start(seen: Arc<Seen>) -> anyhow::Result<Bgp> {
    let identity = Identity {
        router_id: RouterId::new(Ipv4Addr::new(10, 255, 255, 1))?,
        addresses: ByFamily { ipv4: Some(SPEAKER), ipv6: None },
    };
    let pools = ["10.0.0.0/8", "192.168.0.0/16"].map(str::parse).into_iter().collect::<Result<Vec<Prefix>, _>>()?;
    let import = ImportPolicy { pools, prefixes: Vec::new() };
    let config = SpeakerConfig { identity, restart_time: Duration::ZERO, preserved: Families::NONE, import };
    let (bgp, Outputs { mut fib, watches }) = bgp::start(config, &TaskTracker::new(), CancellationToken::new());
    tokio::spawn(crate::speaker::answer(watches, bgp.clone()));
    tokio::spawn(async move {
        while let Some(batch) = fib.recv().await {
            let now = Instant::now();
            for update in batch {
                let (prefix, there) = match update {
                    FibUpdate::Set { prefix, .. } => (prefix, true),
                    FibUpdate::Withdraw { prefix } => (prefix, false),
                    FibUpdate::InSync { .. } => continue,
                };
                if prefix.len() == 28 {
                    seen.fed.fetch_add(1, Ordering::Relaxed);
                } else if let Ok(mut quiet) = seen.quiet.lock() {
                    quiet.insert(prefix, (now, there));
                }
            }
        }
    });
    let peer = |address, asn| PeerConfig {
        passive: true,
        local_address: Some(SPEAKER),
        ..PeerConfig::new(address, asn, Asn::DEFAULT)
    };
    let client = |address| PeerConfig { route_reflector_client: true, ..peer(address, Asn::DEFAULT) };
    let peers = vec![client(FEED), client(QUIET), PeerConfig { hold_time: HOLD_TIME, ..peer(IDLE, Asn::new(64_513)?) }];
    bgp.listen(PORT).await?;
    bgp.configure(identity, peers, None, Passwords::new()).await?;
    bgp.originate(BTreeSet::new()).await?;
    Ok(bgp)
}

fn measure(feed: &Feed, seen: &Seen) -> anyhow::Result<Measured> {
    let messages = routes(feed)?;
    let (mut feeder, mut quiet, idle) =
        (dial(FEED, Asn::DEFAULT)?, dial(QUIET, Asn::DEFAULT)?, dial(IDLE, Asn::new(64_513)?)?);
    for stream in [&feeder, &quiet] {
        read_away(stream.try_clone()?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let gaps = watch_keepalives(idle, Arc::clone(&over));
    let began = Instant::now();
    let feeding = thread::spawn(move || -> anyhow::Result<()> {
        messages.iter().try_for_each(|message| feeder.write_all(message))?;
        // The connection lasts until the end: its end would be another measurement.
        thread::sleep(LIMIT);
        Ok(())
    });
    let mut changes = Vec::new();
    let mut fed = None;
    // Some changes more when all is there, so that the end of the feed is among what is measured.
    let mut more = 20;
    while fed.is_none() || more > 0 {
        ensure!(began.elapsed() < LIMIT, "not all routes came within {} s", LIMIT.as_secs());
        ensure!(!feeding.is_finished(), "the feed's session ended");
        let number = changes.len() / 2;
        let prefix = Prefix::host(Ipv4Addr::from_bits(0xc0a8_0000 | u32::try_from(number & 0xffff)?).into());
        changes.push(change(&mut quiet, seen, prefix, changes.len() % 2 == 0)?);
        if seen.fed.load(Ordering::Relaxed) >= feed.routes as usize {
            fed.get_or_insert_with(|| began.elapsed());
            more -= 1;
        }
        thread::sleep(PAUSE);
    }
    over.store(true, Ordering::Relaxed);
    let gaps = gaps.recv_timeout(LIMIT).context("nothing is heard of the idle peer")??;
    Ok(Measured { fed: fed.unwrap_or_default(), changes, gaps })
}

/// The feed's UPDATEs.
fn routes(feed: &Feed) -> anyhow::Result<Vec<bytes::Bytes>> {
    let mut packer = Packer::new(codec());
    let numbers: Vec<u32> = (0..feed.routes).collect();
    let mut messages = Vec::new();
    for (set, numbers) in numbers.chunks(feed.per_update.max(1)).enumerate() {
        let attributes =
            PathAttributes { local_pref: Some(100), med: Some(u32::try_from(set)?), ..PathAttributes::default() };
        let prefix = |number: &u32| Prefix::new(Ipv4Addr::from_bits(0x0a00_0000 | number << 4).into(), 28);
        let prefixes: Vec<Prefix> = numbers.iter().map(prefix).collect::<Result<_, _>>()?;
        packer.reach(FEED, None, &attributes, prefixes)?;
        messages.push(packer.take().octets);
    }
    Ok(messages)
}

/// Announces or withdraws a prefix, and waits until the owner of kernel routes has it.
fn change(quiet: &mut TcpStream, seen: &Seen, prefix: Prefix, there: bool) -> anyhow::Result<Duration> {
    let mut packer = Packer::new(codec());
    if there {
        let attributes = PathAttributes { local_pref: Some(100), ..PathAttributes::default() };
        packer.reach(QUIET, None, &attributes, [prefix])?;
    } else {
        packer.withdraw(Family::Ipv4, [prefix]);
    }
    let began = Instant::now();
    quiet.write_all(&packer.take().octets)?;
    while began.elapsed() < LIMIT {
        let last = seen.quiet.lock().ok().and_then(|quiet| quiet.get(&prefix).copied());
        if let Some((at, _)) = last.filter(|(at, is_there)| *is_there == there && *at >= began) {
            return Ok(at - began);
        }
        thread::sleep(Duration::from_micros(500));
    }
    bail!("{prefix} did not come through within {} s", LIMIT.as_secs())
}

/// Notes the times between messages to `idle`, and keeps its session alive.
fn watch_keepalives(mut idle: TcpStream, over: Arc<AtomicBool>) -> mpsc::Receiver<anyhow::Result<Vec<Duration>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut watch = || -> anyhow::Result<Vec<Duration>> {
            let (mut gaps, mut last) = (Vec::new(), Instant::now());
            while !over.load(Ordering::Relaxed) || gaps.is_empty() {
                next_message(&mut idle)?;
                gaps.push(last.elapsed());
                last = Instant::now();
                idle.write_all(&keepalive())?;
            }
            Ok(gaps)
        };
        let _ = sender.send(watch());
    });
    receiver
}

/// Reads what a peer is told, which nobody looks at.
fn read_away(mut stream: TcpStream) {
    thread::spawn(move || {
        let mut octets = vec![0; 256 * 1024];
        while stream.read(&mut octets).is_ok_and(|count| count > 0) {}
    });
}

/// A session from this address.
fn dial(from: IpAddr, asn: Asn) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&SocketAddr::new(SPEAKER, PORT).into())?;
    socket.set_tcp_nodelay(true)?;
    let mut stream = TcpStream::from(socket);
    let IpAddr::V4(id) = from else { bail!("{from} is no router id") };
    let capabilities = vec![
        Capability::Multiprotocol(AfiSafi::unicast(Family::Ipv4)),
        Capability::RouteRefresh,
        Capability::FourOctetAs(asn),
    ];
    let open = Open { asn, hold_time: HoldTime::clamped(LIMIT * 2), router_id: RouterId::new(id)?, capabilities };
    stream.write_all(&open.encode())?;
    let Message::Open(_) = next_message(&mut stream)? else { bail!("the speaker did not send an OPEN") };
    stream.write_all(&keepalive())?;
    let Message::Keepalive = next_message(&mut stream)? else { bail!("the speaker did not accept an OPEN") };
    Ok(stream)
}

fn next_message(stream: &mut TcpStream) -> anyhow::Result<Message> {
    let mut octets = vec![0; 19];
    stream.read_exact(&mut octets)?;
    let length = frame_length(&octets)?.context("a header has a length")?;
    octets.resize(length, 0);
    stream.read_exact(octets.get_mut(19..).unwrap_or_default())?;
    Ok(codec().decode(&octets)?)
}

const fn codec() -> Codec {
    Codec { four_octet_as: true, peer_type: PeerType::Internal, families: Families::ALL }
}

fn report(feed: &Feed, measured: &Measured) -> anyhow::Result<Report> {
    let milliseconds = crate::stats::milliseconds(&measured.changes);
    let of = |percent| percentile(&milliseconds, percent).context("nothing was measured");
    let late = measured.gaps.iter().map(|gap| gap.saturating_sub(KEEPALIVE_TIME)).max().unwrap_or_default();
    let late = late.as_secs_f64() * 1_000.0;
    let (half, most, all) = (of(50)?, of(99)?, of(100)?);
    let mut report = Report::new("bgp-latency");
    report.figure("feed_s", measured.fed.as_secs_f64());
    report.figure("change_p50_ms", half);
    report.figure("change_p99_ms", most);
    report.figure("change_max_ms", all);
    report.figure("keepalive_late_ms", late);
    report.figure("hol_ms", all.max(late));
    report.line(&format!(
        "{} routes of one peer, {} to an UPDATE, came in and were told on within {:.1} s.",
        feed.routes,
        feed.per_update,
        measured.fed.as_secs_f64()
    ));
    report.line(&format!(
        "Meanwhile a change of another peer took {half:.1} ms until it was with the owner of kernel routes (p50; p99 {most:.1}, \
         longest {all:.1}, of {} changes), and a KEEPALIVE was {late:.1} ms late at most ({} of them).",
        measured.changes.len(),
        measured.gaps.len()
    ));
    Ok(report)
}
