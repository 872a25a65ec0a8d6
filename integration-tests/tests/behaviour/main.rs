//! What the rate limiter does to requests, seen by clients of a real Envoy.

mod common;

mod costs;
mod degrade;
mod direction;
mod exempt;
mod first_load;
mod grpc;
mod key_missing;
mod keys;
mod matches;
mod metrics;
mod modes;
mod normal_forms;
mod opt_out;
mod overrides;
mod peers;
mod priorities;
mod quota_headers;
mod refusal;
mod retries;
mod rules;
mod setup_file;
