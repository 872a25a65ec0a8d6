//! Request ids: UUIDs (RFC 9562), as Envoy makes them.

use std::borrow::Cow;

/// Where the form has its hyphens (section 4: 8-4-4-4-12).
pub const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The digit of the version. Envoy puts its sampling decision there: `9`, `a` and `b` beside `4`, and
/// each hop may write it anew.
pub const VERSION_AT: usize = 14;
pub const VERSION: u128 = 0xf << 76;

/// The same id whatever Envoy's sampling decision made of its version on the way: what a record is
/// found by. Other ids are themselves.
pub fn stable(id: &[u8]) -> Cow<'_, [u8]> {
    let is_uuid = id.len() == 36 && HYPHENS.iter().all(|place| id.get(*place) == Some(&b'-'));
    let mut id = Cow::Borrowed(id);
    if is_uuid && id.get(VERSION_AT).is_some_and(|version| b"9ab".contains(version)) {
        id.to_mut().iter_mut().skip(VERSION_AT).take(1).for_each(|version| *version = b'4');
    }
    id
}

/// A UUID of version 4 (section 5.4) out of 128 random bits, six of which give way.
pub fn uuid(random: u128) -> String {
    const VARIANT: u128 = 0b11 << 62;
    let number = (random & !VERSION & !VARIANT) | (0x4 << 76) | (0b10 << 62);
    let part = |shift: u32, digits: u32| {
        let mask = 1_u128.checked_shl(digits.saturating_mul(4)).unwrap_or(0).saturating_sub(1);
        (number >> shift) & mask
    };
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Envoy's `envoy.request_id.uuid` packs the trace reason into the version.
    #[test]
    fn envoys_decision_makes_no_other_id() {
        let of = |version: char| format!("4bf92f35-77b3-{version}da6-a3ce-929d0e0e4736");
        for version in ['9', 'a', 'b', '4'] {
            assert_eq!(*stable(of(version).as_bytes()), *of('4').as_bytes(), "{version}");
        }
        assert_eq!(*stable(of('7').as_bytes()), *of('7').as_bytes());
        assert_eq!(*stable(b"order-9"), *b"order-9");
    }

    proptest! {
        #[test]
        fn a_uuid_is_of_version_4(random in any::<u128>()) {
            let written = uuid(random);
            prop_assert_eq!(written.len(), 36);
            let number = u128::from_str_radix(&written.replace('-', ""), 16).unwrap();
            // 5.4: "set to 0b0100", and the variant "set to 0b10".
            prop_assert_eq!((number >> 76) & 0xf, 4);
            prop_assert_eq!((number >> 62) & 3, 2);
            // All other bits are the random ones.
            prop_assert_eq!((number ^ random) & !(0xf << 76) & !(3 << 62), 0);
        }
    }
}
