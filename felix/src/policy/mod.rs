//! The policy compiler: pure. Policies, namespaces and endpoints in, [`program::Change`]s out.

pub mod program;
