//! What operators are handed: the compose file, Prometheus' rules, the dashboard, the page on operations.

mod compose_file;
mod compose_up;
mod page;
mod prometheus;
mod promql;
mod scenario;
mod seen;
mod server;
mod sharing;
mod shipped;
