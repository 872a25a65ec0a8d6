//! What operators are handed: the page on operations.

mod page;
