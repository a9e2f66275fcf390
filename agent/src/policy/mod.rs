//! What policy follows from, on its way to felix, and the packets that policy denied, on their way to whoever looks.

pub(crate) mod drop_log;
pub(crate) mod facts;
mod feed;
mod foreseen;
pub(crate) mod pods;
pub(crate) mod relabels;
pub(crate) mod remembered;
mod remote;
mod remote_task;
pub(crate) mod tasks;
