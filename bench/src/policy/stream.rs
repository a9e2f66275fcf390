//! A stream of datagrams that is dropped until something changes: the moment at which the kernel acts.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::tests::{fine_timers, run_in};
use anyhow::{Context, anyhow, ensure};

/// The time between two packets of a stream, which is how finely the moment is known.
const SPACING: Duration = Duration::from_micros(50);

/// How long nothing of a stream must pass before it counts as closed.
const CLOSED: Duration = Duration::from_millis(4);

/// How long the kernel may take to act.
const CHANGE_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Sends datagrams, which nobody lets through yet, makes a change, and waits for the first that passes. How long after the
/// return of the change that was, in milliseconds; less than nothing where it was before.
pub(crate) fn first_passing(
    from: &File,
    source: IpAddr,
    to: &File,
    target: SocketAddr,
    change: impl FnOnce() -> anyhow::Result<Instant>,
) -> anyhow::Result<f64> {
    let receiver = run_in(to, || UdpSocket::bind(target)).with_context(|| format!("listening at {target}"))?;
    let sender = run_in(from, || UdpSocket::bind((source, 0))).with_context(|| format!("sending from {source}"))?;
    sender.connect(target).with_context(|| format!("sending to {target}"))?;
    receiver.set_read_timeout(Some(CHANGE_TIME_LIMIT))?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            // Without this the stream is only less fine.
            let _ = fine_timers();
            while !stop.load(Ordering::Relaxed) {
                // A drop is silent, and nothing could be done about another failure.
                sent.fetch_add(u64::from(sender.send(b"?").is_ok()), Ordering::Relaxed);
                thread::sleep(SPACING);
            }
        });
        let arrival = scope.spawn(|| receiver.recv(&mut [0; 8]).map(|_| Instant::now()));
        let begun = Instant::now();
        while begun.elapsed() < CLOSED || (sent.load(Ordering::Relaxed) < 20 && begun.elapsed() < CHANGE_TIME_LIMIT) {
            thread::sleep(Duration::from_micros(200));
        }
        let early = arrival.is_finished();
        let changed = if early { Err(anyhow!("{target} was open before the change")) } else { change() };
        let arrived = if changed.is_ok() { Some(arrival.join()) } else { None };
        stop.store(true, Ordering::Relaxed);
        if arrived.is_none() {
            // The receiver would wait for its time-out: a datagram that it gets ends the wait at once.
            let _ = receiver_wakes(to, target);
        }
        let changed = changed?;
        let arrived = arrived.map(|joined| joined.map_err(|_| anyhow!("the receiving thread panicked")));
        let arrived = arrived.transpose()?.context("nothing was waited for")?;
        let arrived = arrived.with_context(|| format!("nothing passed from {source} to {target}"))?;
        Ok(milliseconds(changed, arrived))
    })
}

/// Waits until the first packet of a new flow is dropped.
pub(crate) fn closed(from: &File, source: IpAddr, to: &File, target: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    while passes(from, source, to, target)? {
        ensure!(begun.elapsed() < CHANGE_TIME_LIMIT, "{target} stays open to {source}");
    }
    Ok(())
}

/// Whether the first packet of a new flow passes now.
pub(crate) fn passes(from: &File, source: IpAddr, to: &File, target: SocketAddr) -> anyhow::Result<bool> {
    let receiver = run_in(to, || UdpSocket::bind(target)).with_context(|| format!("listening at {target}"))?;
    let sender = run_in(from, || UdpSocket::bind((source, 0))).with_context(|| format!("sending from {source}"))?;
    sender.send_to(b"?", target)?;
    receiver.set_read_timeout(Some(CLOSED))?;
    Ok(receiver.recv(&mut [0; 8]).is_ok())
}

/// Sends a datagram from the receiver's own namespace, where no policy is in the way.
fn receiver_wakes(to: &File, target: SocketAddr) -> std::io::Result<usize> {
    run_in(to, || UdpSocket::bind((target.ip(), 0))?.send_to(b"!", target))
}

/// The time from one moment to the other; less than nothing if the other was before.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    let after = to.saturating_duration_since(from).as_secs_f64();
    (after - from.saturating_duration_since(to).as_secs_f64()) * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_before_is_less_than_nothing() {
        let now = Instant::now();
        let later = now + Duration::from_micros(1_500);
        assert!((milliseconds(now, later) - 1.5).abs() < 1e-9);
        assert!((milliseconds(later, now) + 1.5).abs() < 1e-9);
    }
}
