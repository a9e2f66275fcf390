//! Addresses of Services: which of them this node announces, and which of them a Service of type LoadBalancer gets.

pub(crate) mod announcements;
pub(crate) mod announcements_task;
pub(crate) mod load_balancer;
