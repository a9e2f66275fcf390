//! ipam as the agent sees it: the owner task with a real journal, alone and with others on a store in memory.

#![cfg(test)]

mod alone;
mod node;
mod shared;
