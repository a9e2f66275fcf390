//! Changes of several kinds in one request.

use super::socket::Socket;
use super::{addresses, links, neighbours, routes};
use crate::{Change, KernelError};

pub(super) fn make(socket: &mut Socket, changes: &[Change]) -> Result<(), KernelError> {
    let messages = changes.iter().map(|change| match change {
        Change::Link(index, change) => (links::change_of(*index, change), 0),
        Change::Address(address) => addresses::addition_of(address),
        Change::Neighbour(neighbour) => neighbours::setting_of(neighbour),
        Change::Route(change) => routes::message_of(change),
    });
    let refusals = socket.batch(messages, || format!("cannot make {} changes", changes.len()))?;
    let errors = refusals.into_iter().filter_map(|refusal| {
        let change = changes.get(refusal.index)?;
        let error = KernelError::refused(format!("cannot {change}"), refusal.errno, refusal.message);
        let is_there = matches!((change, &error), (Change::Address(_), KernelError::Exists(_)));
        (!is_there).then_some(error)
    });
    errors.into_iter().next().map_or(Ok(()), Err)
}
