//! What running Envoys tell: their admin pages, read for `status`, `top`, `rollout` and `run`.

mod admin;
mod reading;
mod resource;
mod rules;
mod traffic;

pub use admin::Admin;
pub use reading::{Reading, Version, differing};
pub use resource::{Resource, Standing, is_module};
pub use rules::{Row, rows};
pub use traffic::Traffic;
