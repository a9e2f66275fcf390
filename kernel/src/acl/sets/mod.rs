//! IP sets of the kernel, by ipset's own netlink protocol.

mod wire;

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use types::Family;

use super::nfnetlink::{self, Request};
use super::{
    CountedAddress, ElementChange, ElementFailure, SetChanges, SetElement, SetHeader, SetKind, SetName, SetSpec, Sets,
};
use crate::linux::socket::Socket;
use crate::netns::run_in;
use crate::{KernelError, Netns};

/// One netlink socket, which keeps the namespace in which it was opened.
#[derive(Debug)]
pub struct LinuxSets {
    socket: Socket,
    /// The version of the protocol that the kernel and this program speak.
    protocol: u8,
    /// The newest revision of a type of sets, as far as it was asked for.
    revisions: Vec<(SetKind, Family, u8)>,
}

/// From so many changes of one sort in a row on, they travel in one message: 0.6 to 0.9 us of processor time an element,
/// against 1.3 to 1.6 us in messages of their own (64 in one `send`) and 5.5 us one by one.
const PACK_FROM: usize = 4;

/// How many changes are packed into one message. Each takes at most 60 octets, and the kernel's error repeats the message
/// whole, which must fit into the buffer for answers. While it is handled no other change of a set can be.
const PACK: usize = 512;

impl LinuxSets {
    /// In the calling thread's namespace. [`KernelError::Rejected`] if the kernel has no IP sets.
    pub fn open() -> Result<Self, KernelError> {
        let mut socket = nfnetlink::open()?;
        let protocol = wire::negotiate(&mut socket)?;
        Ok(Self { socket, protocol, revisions: Vec::new() })
    }

    /// In another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        run_in(netns, Self::open)?
    }

    /// A request that names a set.
    fn request(&self, command: i32, set: &SetName) -> Request {
        let mut request = wire::request(command, self.protocol);
        wire::put_name(&mut request, set);
        request
    }

    /// The members of a set, with the packets that each counted.
    fn list(&mut self, set: &SetName) -> Result<Vec<(SetElement, u64)>, KernelError> {
        let request = self.request(wire::LIST, set);
        let operation = || format!("cannot list the members of set {set}");
        let (_, elements) = self
            .socket
            .dump(
                &request,
                operation,
                || (None, Vec::new()),
                |(kind, elements), reply| {
                    wire::parse_elements(reply, kind, elements).map_err(|why| KernelError::malformed(operation(), why))
                },
            )
            .map_err(wire::worded)?;
        Ok(elements)
    }

    /// The newest revision that the kernel has of a type.
    fn revision(&mut self, kind: SetKind, family: Family) -> Result<u8, KernelError> {
        let known = self.revisions.iter().find(|(known, of, _)| (*known, *of) == (kind, family));
        if let Some((_, _, revision)) = known {
            return Ok(*revision);
        }
        let operation = || format!("cannot ask for sets of type {} for {family}", wire::type_name(kind));
        let request = wire::ask_type(self.protocol, kind, family);
        let revision = self
            .socket
            .query(request, operation, |reply| {
                wire::newest_revision(reply).ok_or_else(|| KernelError::malformed(operation(), "no revision in it"))
            })
            .map_err(wire::worded)?;
        self.revisions.push((kind, family, revision));
        Ok(revision)
    }

    /// Changes of one sort in one message. Stops at the first that fails: its place and why.
    fn change_packed(
        &mut self,
        set: &SetName,
        changes: &[ElementChange],
    ) -> Result<Option<ElementFailure>, KernelError> {
        let Some(first) = changes.first() else { return Ok(None) };
        let mut request = self.request(wire::command_of(first), set);
        wire::put_elements(&mut request, changes.iter().map(ElementChange::element));
        let operation = || format!("cannot change {} members of set {set}", changes.len());
        let refusals = self.socket.batch(std::iter::once((request, 0)), operation)?;
        let Some(refusal) = refusals.into_iter().next() else { return Ok(None) };
        // Without a line the message failed as a whole, before its first element.
        let Some(index) = wire::failed_line(&refusal.echo) else {
            return Err(wire::worded(KernelError::refused(operation(), refusal.errno, refusal.message)));
        };
        let what = changes.get(index).map_or_else(operation, |change| wire::change_operation(set, change));
        let error = wire::worded(KernelError::refused(what, refusal.errno, refusal.message));
        Ok(Some(ElementFailure { index, error }))
    }

    /// Changes in messages of their own, so that each has its own answer.
    fn change_singly(&mut self, set: &SetName, changes: &[ElementChange]) -> Result<Vec<ElementFailure>, KernelError> {
        let protocol = self.protocol;
        let requests = changes.iter().map(|change| {
            let mut request = wire::request(wire::command_of(change), protocol);
            wire::put_name(&mut request, set);
            wire::put_element(&mut request, &change.element());
            (request, 0)
        });
        let operation = || format!("cannot change {} members of set {set}", changes.len());
        let refusals = self.socket.batch(requests, operation)?;
        let mut failures = Vec::with_capacity(refusals.len());
        for refusal in refusals {
            let index = refusal.index;
            let what = changes.get(index).map_or_else(operation, |change| wire::change_operation(set, change));
            match wire::worded(KernelError::refused(what, refusal.errno, refusal.message)) {
                // It is the set that is gone, not the member.
                KernelError::Gone(failure) => return Err(KernelError::Gone(failure)),
                error => failures.push(ElementFailure { index, error }),
            }
        }
        Ok(failures)
    }
}

impl Sets for LinuxSets {
    fn sets(&mut self) -> Result<Vec<SetHeader>, KernelError> {
        let request = wire::list_headers(self.protocol);
        let operation = || "cannot list sets".to_owned();
        self.socket
            .dump(&request, operation, Vec::new, |found, reply| {
                found.push(wire::parse_header(reply).map_err(|why| KernelError::malformed(operation(), why))?);
                Ok(())
            })
            .map_err(wire::worded)
    }

    fn elements(&mut self, set: &SetName) -> Result<Vec<SetElement>, KernelError> {
        Ok(self.list(set)?.into_iter().map(|(element, _)| element).collect())
    }

    fn packets(&mut self, set: &SetName) -> Result<Vec<(IpAddr, u64)>, KernelError> {
        let counted = |(element, packets)| match element {
            SetElement::Counted(CountedAddress(address)) => Some((address, packets)),
            _ => None,
        };
        Ok(self.list(set)?.into_iter().filter_map(counted).collect())
    }

    fn create_set(&mut self, set: &SetName, spec: &SetSpec) -> Result<(), KernelError> {
        let revision = self.revision(spec.kind, spec.family)?;
        let mut request = self.request(wire::CREATE, set);
        wire::put_spec(&mut request, spec, revision);
        let operation = || format!("cannot create set {set}");
        self.socket.change(request, NLM_F_CREATE | NLM_F_EXCL, operation).map_err(wire::worded)
    }

    fn destroy_set(&mut self, set: &SetName) -> Result<(), KernelError> {
        let request = self.request(wire::DESTROY, set);
        match self.socket.change(request, 0, || format!("cannot destroy set {set}")).map_err(wire::worded) {
            Err(KernelError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    fn swap_sets(&mut self, one: &SetName, other: &SetName) -> Result<(), KernelError> {
        let mut request = self.request(wire::SWAP, one);
        wire::put_other_name(&mut request, other);
        self.socket.change(request, 0, || format!("cannot swap sets {one} and {other}")).map_err(wire::worded)
    }

    fn change_elements(&mut self, changes: &SetChanges) -> Result<Vec<ElementFailure>, KernelError> {
        let (set, changes) = (changes.set(), changes.as_slice());
        let mut failures = Vec::new();
        let mut done = 0;
        // Before this place, changes go singly: a packed message failed, and others in it may, too.
        let mut singly_until = 0;
        while let Some(left) = changes.get(done..).filter(|left| !left.is_empty()) {
            let refused = left.iter().take_while(|change| !wire::is_acceptable(change)).count();
            if refused > 0 {
                failures.extend(left.iter().take(refused).enumerate().map(|(index, change)| ElementFailure {
                    index: done + index,
                    error: wire::unacceptable(set, change),
                }));
                done += refused;
                continue;
            }
            let run = packable(left);
            if done >= singly_until && run >= PACK_FROM {
                let pack = left.get(..run).unwrap_or(left);
                match self.change_packed(set, pack)? {
                    None => done += run,
                    Some(failure) => {
                        singly_until = done + run;
                        let index = done + failure.index;
                        failures.push(ElementFailure { index, ..failure });
                        done = index + 1;
                    }
                }
                continue;
            }
            let single = if done < singly_until { (singly_until - done).min(left.len()) } else { singles(left) };
            let batch = left.get(..single).unwrap_or(left);
            let failed = self.change_singly(set, batch)?;
            failures
                .extend(failed.into_iter().map(|failure| ElementFailure { index: done + failure.index, ..failure }));
            done += batch.len();
        }
        Ok(failures)
    }
}

/// How many changes at the head can be packed into one message.
fn packable(changes: &[ElementChange]) -> usize {
    let puts = changes.first().is_some_and(ElementChange::is_put);
    let alike = |change: &&ElementChange| change.is_put() == puts && wire::is_acceptable(change);
    changes.iter().take(PACK).take_while(alike).count()
}

/// How many changes at the head go singly, as no run that is worth a pack begins among them. At least one.
fn singles(changes: &[ElementChange]) -> usize {
    let ends = |&at: &usize| {
        changes.get(at..).is_none_or(|left| {
            packable(left) >= PACK_FROM || left.first().is_none_or(|change| !wire::is_acceptable(change))
        })
    };
    (1..changes.len()).find(ends).unwrap_or(changes.len())
}
