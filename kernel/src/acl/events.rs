//! What others do to the rules.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use rtnetlink::sys::{self, SocketAddr};
use types::Family;

use super::OwnRestores;
use super::nfnetlink::{self, Message, attribute, be32, family_of_number, message, message_type, text};
use crate::events::{Wait, Waker};
use crate::inbox::Inbox;
use crate::linux::socket::{Reply, receive, replies};
use crate::netns::run_in;
use crate::{KernelError, Netns};

/// One thing that was done to iptables' rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleEvent {
    /// Rules were changed, in one transaction.
    Changed {
        /// The process that did it, as the kernel's first process namespace numbers it.
        process: u32,
        /// The first 15 octets of its name: `iptables-nft-re`, `nft`.
        program: String,
        /// What it touched, as far as it is a table of iptables. Empty: only other tables.
        changes: BTreeSet<RuleChange>,
    },
    /// Notifications were lost, or one could not be read: anything may have changed.
    Lost,
}

/// A table or a chain in which something changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleChange {
    /// `iptables` or `ip6tables`.
    pub family: Family,
    /// The table: `mangle`.
    pub table: String,
    /// The chain; none if it is the table itself.
    pub chain: Option<String>,
    /// What happened there.
    pub kind: RuleChangeKind,
}

/// What happened to a table or a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleChangeKind {
    /// It was made, or a rule was put into it.
    Added,
    /// It was deleted, or a rule was taken out of it.
    Removed,
}

/// A source of such events that one thread waits on.
pub trait RuleEvents: Send {
    /// Waits for the next event, for a waker, or until `timeout` has passed (none: for ever). Wakes come before events.
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait<RuleEvent>, KernelError>;

    /// A handle that ends the wait from another thread.
    fn waker(&self) -> Waker;
}

/// nftables' notifications in a namespace. Of the legacy tables the kernel tells nothing: who uses those waits here for
/// wakes and time-outs, and looks for itself.
#[derive(Debug)]
pub struct NftEvents {
    socket: sys::Socket,
    /// Changes of the transaction whose end was not announced yet.
    changes: BTreeSet<RuleChange>,
    inbox: Inbox<RuleEvent>,
    /// Transactions of these processes are not reported.
    own: Option<OwnRestores>,
}

/// The receive buffer asked for: kube-proxy may replace tens of thousands of rules in one transaction, each of which is
/// announced whole.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// How many datagrams are taken in before the first of their events is handed out.
const DATAGRAMS_AT_ONCE: usize = 256;

// enum nft_table_attributes, nft_chain_attributes, nft_rule_attributes, nft_gen_attributes (linux/netfilter/nf_tables.h).
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const GEN_PROCESS: u16 = 2;
const GEN_PROGRAM: u16 = 3;

/// What the kernel keeps of the names of the programs that restore: 15 octets.
const RESTORE_PROGRAMS: [&str; 2] = ["iptables-nft-re", "ip6tables-nft-r"];

/// The tables of iptables; others of the same families are nft users' own.
const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

impl NftEvents {
    /// Everything that happens in the calling thread's namespace from now on.
    pub fn subscribe() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = sys::Socket::new(nfnetlink::PROTOCOL)?;
            // Beyond net.core.rmem_max only with CAP_NET_ADMIN.
            if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
            }
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(libc::NFNLGRP_NFTABLES.cast_unsigned())?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| KernelError::io("cannot subscribe to rule events", &error))?;
        let inbox = Inbox::new(DATAGRAMS_AT_ONCE, || RuleEvent::Lost)?;
        Ok(Self { socket, inbox, changes: BTreeSet::new(), own: None })
    }

    /// The same in another namespace.
    pub fn subscribe_in(netns: &Netns) -> Result<Self, KernelError> {
        run_in(netns, Self::subscribe)?
    }

    /// The same without what these restores did.
    #[must_use]
    pub fn except(mut self, own: OwnRestores) -> Self {
        self.own = Some(own);
        self
    }
}

impl RuleEvents for NftEvents {
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait<RuleEvent>, KernelError> {
        let (socket, changes, own) = (&self.socket, &mut self.changes, self.own.as_ref());
        self.inbox.next(
            socket.as_fd(),
            timeout,
            "cannot receive rule events",
            |datagram| receive(socket, datagram, libc::MSG_DONTWAIT),
            |datagram, events| {
                for reply in replies(datagram) {
                    events.extend(match reply {
                        Ok(reply) => transaction(&reply, changes, own),
                        Err(_) => Some(RuleEvent::Lost),
                    });
                }
            },
        )
    }

    fn waker(&self) -> Waker {
        self.inbox.waker()
    }
}

const NEW_TABLE: u16 = of_nftables(libc::NFT_MSG_NEWTABLE);
const DEL_TABLE: u16 = of_nftables(libc::NFT_MSG_DELTABLE);
const NEW_CHAIN: u16 = of_nftables(libc::NFT_MSG_NEWCHAIN);
const DEL_CHAIN: u16 = of_nftables(libc::NFT_MSG_DELCHAIN);
const NEW_RULE: u16 = of_nftables(libc::NFT_MSG_NEWRULE);
const DEL_RULE: u16 = of_nftables(libc::NFT_MSG_DELRULE);
const NEW_GENERATION: u16 = of_nftables(libc::NFT_MSG_NEWGEN);

const fn of_nftables(kind: i32) -> u16 {
    message_type(libc::NFNL_SUBSYS_NFTABLES, kind)
}

/// Collects what a transaction did; at its end, which the new generation's number announces, tells of it unless it is
/// our own.
fn transaction(reply: &Reply<'_>, changes: &mut BTreeSet<RuleChange>, own: Option<&OwnRestores>) -> Option<RuleEvent> {
    let Some(message) = message(reply) else { return Some(RuleEvent::Lost) };
    if reply.kind != NEW_GENERATION {
        note(reply.kind, message, changes);
        return None;
    }
    let changes = std::mem::take(changes);
    let process = attribute(message.attributes, GEN_PROCESS).and_then(be32).unwrap_or(0);
    let program = attribute(message.attributes, GEN_PROGRAM).and_then(text).unwrap_or_default();
    // A socket's port is its process's number in that process's own namespace, which is also what we know it by; the
    // number in the message is that of the first namespace. Numbers of several namespaces may coincide, so that the name
    // must fit, too.
    let restores = RESTORE_PROGRAMS.contains(&program.as_str());
    if restores && own.is_some_and(|own| own.contains(reply.port) || own.contains(process)) {
        return None;
    }
    Some(RuleEvent::Changed { process, program, changes })
}

/// Adds what a message says to the changes, unless it is of no table of iptables.
fn note(kind: u16, message: Message<'_>, changes: &mut BTreeSet<RuleChange>) {
    let (table, chain) = match kind {
        NEW_TABLE | DEL_TABLE => (TABLE_NAME, None),
        NEW_CHAIN | DEL_CHAIN => (CHAIN_TABLE, Some(CHAIN_NAME)),
        NEW_RULE | DEL_RULE => (RULE_TABLE, Some(RULE_CHAIN)),
        _ => return,
    };
    let named = |kind| attribute(message.attributes, kind).and_then(text);
    let Some(family) = family_of_number(message.family) else { return };
    let Some(table) = named(table).filter(|table| TABLES.contains(&table.as_str())) else { return };
    let kind =
        if matches!(kind, NEW_TABLE | NEW_CHAIN | NEW_RULE) { RuleChangeKind::Added } else { RuleChangeKind::Removed };
    changes.insert(RuleChange { family, table, chain: chain.and_then(named), kind });
}
