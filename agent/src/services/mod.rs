//! Addresses of Services: which of them this node announces, and which of them a Service of type LoadBalancer gets.

mod announcements;
mod announcements_task;
mod load_balancer;
mod load_balancer_task;
pub(crate) mod tasks;
