//! Circuit breaking.
//!
//! `window` holds the calls that count, `cell` is one breaker and its states, `settings` the numbers
//! by which it goes; `slots` is how breakers lie in shared data, `table` what a worker keeps of
//! them, `shared` how the two come together; `verdict` says what became of a call; `rule` and
//! `breaker` are the policy.

mod adaptive;
pub mod cell;
mod settings;
mod window;
