//! Memory that the host fills.

use std::alloc::{Layout, alloc};

/// What the host calls to place an answer: `size` bytes, or null when there are none left, which
/// makes the call fail instead of the module.
pub fn allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout is not empty.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => std::ptr::null_mut(),
    }
}

/// Takes over what the host placed.
///
/// # Safety
/// `data` came from [`allocate`] with this very `size`, and nobody else holds it.
pub unsafe fn adopt(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: a Vec of u8 with this capacity has the layout that `allocate` used; the host wrote
    // all of it.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_adopted() {
        let data = allocate(3);
        // SAFETY: three bytes were allocated above.
        let bytes = unsafe {
            std::ptr::copy_nonoverlapping(b"abc".as_ptr(), data, 3);
            adopt(data, 3)
        };
        assert_eq!(bytes, b"abc");
        assert!(allocate(0).is_null());
        // SAFETY: nothing was allocated.
        assert!(unsafe { adopt(std::ptr::null_mut(), 0) }.is_empty());
    }
}
