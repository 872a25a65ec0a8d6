//! Offered load against limits. Each test has the machine to itself: they take turns.

mod common;

mod admitted;
mod calendar;
mod edits;
mod many_keys;
mod priorities;
mod quotas;
mod retry_after;
mod under_reload;
mod worker_scope;
