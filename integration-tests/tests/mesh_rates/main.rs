//! One limit for four proxies of two workers each: 1000 a second in all, offered once and one and a half
//! times over. Each test has the machine to itself: they take turns.

mod fleet;
mod killed;
mod windows;
