//! What policy follows from, on its way to felix, and the packets that policy denied, on their way to whoever looks.

pub(crate) mod drop_log;
pub(crate) mod feed;
pub(crate) mod pods;
pub(crate) mod remembered;
pub(crate) mod remote;
pub(crate) mod tasks;
