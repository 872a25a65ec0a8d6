//! The module's allocator: what a request needs is small, short-lived and of few sizes, so freed blocks
//! are kept by size and handed out again. The rest goes to the system's allocator, which costs several
//! times as much for each block.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// Sizes are rounded up to this.
const STEP: usize = 16;
/// More is rare, and costs the system's allocator more.
const ALIGN: usize = 8;
const CLASSES: usize = 64;
/// More free blocks of a size are not kept, so that a rush leaves no memory behind: half a megabyte in all.
const KEPT: u8 = 16;

pub struct Pool(UnsafeCell<[Kept; CLASSES]>);

/// Free blocks of one size, each of which begins with the place of the next.
#[derive(Clone, Copy)]
struct Kept {
    first: *mut u8,
    count: u8,
}

// SAFETY: a module has one thread.
unsafe impl Sync for Pool {}

impl Pool {
    #[allow(clippy::new_without_default)] // It has one place, a static.
    pub const fn new() -> Pool {
        Pool(UnsafeCell::new([Kept { first: null_mut(), count: 0 }; CLASSES]))
    }
}

/// The class of a block, and the layout that all blocks of the class have.
fn class(layout: Layout) -> Option<(usize, Layout)> {
    let class = layout.size().checked_sub(1)? / STEP;
    if class >= CLASSES || layout.align() > ALIGN {
        return None;
    }
    let size = class.saturating_add(1).saturating_mul(STEP);
    Some((class, Layout::from_size_align(size, ALIGN).ok()?))
}

// SAFETY: a block that is handed out is not in a list, is as large as its class, and goes back to the
// list or the system under the layout of its class, by which it was made.
unsafe impl GlobalAlloc for Pool {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((class, whole)) = class(layout) else {
            // SAFETY: the caller's.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: nobody else is in here, and a block in a list begins with the place of the next.
        unsafe {
            match (*self.0.get()).get_mut(class) {
                Some(kept) if !kept.first.is_null() => {
                    let block = kept.first;
                    kept.first = block.cast::<*mut u8>().read();
                    kept.count = kept.count.saturating_sub(1);
                    block
                }
                _ => System.alloc(whole),
            }
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((class, whole)) = class(layout) else {
            // SAFETY: the caller's.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: nobody else is in here; the block is free, and has room for a place.
        unsafe {
            match (*self.0.get()).get_mut(class) {
                Some(kept) if kept.count < KEPT => {
                    block.cast::<*mut u8>().write(kept.first);
                    kept.first = block;
                    kept.count = kept.count.saturating_add(1);
                }
                _ => System.dealloc(block, whole),
            }
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's; sizes of layouts do not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(wanted)) {
            (Some((before, _)), Some((after, _))) if before == after => block,
            // SAFETY: neither layout is of a class, so the block is the system's.
            (None, None) if layout.size() > 0 => unsafe { System.realloc(block, layout, size) },
            // SAFETY: as the default: a new block, the bytes that both have, the old one freed.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    block.copy_to_nonoverlapping(new, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Blocks do not overlap, keep their bytes, and are as aligned as was asked for.
        #[test]
        fn blocks_are_their_owners(
            steps in proptest::collection::vec((0_u8..3, any::<prop::sample::Index>(), 1_usize..3000, 0_u32..7), 1..300),
        ) {
            let pool = Pool::new();
            let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
            let mut stamp = 0_u8;
            // SAFETY: each block is used under the layout that it was made with, and freed once.
            unsafe {
                for (step, which, size, align) in steps {
                    stamp = stamp.wrapping_add(1);
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    match step {
                        0 => {
                            let block = pool.alloc(layout);
                            block.write_bytes(stamp, size);
                            held.push((block, layout, stamp));
                        }
                        1 if !held.is_empty() => {
                            let (block, layout, stamp) = held.swap_remove(which.index(held.len()));
                            let bytes = std::slice::from_raw_parts(block, layout.size());
                            prop_assert!(bytes.iter().all(|byte| *byte == stamp));
                            pool.dealloc(block, layout);
                        }
                        2 if !held.is_empty() => {
                            let place = which.index(held.len());
                            let (block, old, mark) = held[place];
                            let new = pool.realloc(block, old, size);
                            let both = std::slice::from_raw_parts(new, old.size().min(size));
                            prop_assert!(both.iter().all(|byte| *byte == mark));
                            new.write_bytes(mark, size);
                            held[place] = (new, Layout::from_size_align(size, old.align()).unwrap(), mark);
                        }
                        _ => {}
                    }
                    for (block, layout, stamp) in &held {
                        prop_assert!((*block as usize).is_multiple_of(layout.align()));
                        let bytes = std::slice::from_raw_parts(*block, layout.size());
                        prop_assert!(bytes.iter().all(|byte| byte == stamp));
                    }
                }
                for (block, layout, _) in held {
                    pool.dealloc(block, layout);
                }
            }
        }
    }
}
