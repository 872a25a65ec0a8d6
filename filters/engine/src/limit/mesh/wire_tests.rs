//! What is said and heard, against the published messages.

use proptest::prelude::*;

use super::*;

fn nested(number: u64, fields: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    field(number, &fields.concat(), &mut out);
    out
}

fn count(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

fn header(name: &str, value: &str) -> Vec<u8> {
    nested(5, &[nested(1, &[name.into()]), nested(2, &[value.into()])])
}

fn status(remaining: u64, seconds: u64, nanos: u64) -> Vec<u8> {
    let reset = nested(4, &[count(1, seconds), count(2, nanos)]);
    nested(2, &[count(1, 1), nested(2, &[count(1, 1000)]), count(3, remaining), reset])
}

#[test]
fn a_request_is_the_published_message() {
    let entries = [("user".to_string(), b"ann".to_vec()), ("x".into(), b"a\xffb".to_vec())];
    let message = request("shop", &entries, 300);
    let expected = b"\x0a\x04shop\x12\x1b\x0a\x0b\x0a\x04user\x12\x03ann\x0a\x0c\x0a\x01x\x12\x05a%FFb\x18\xac\x02";
    let mut expected = expected.to_vec();
    // Lengths of the descriptor and of its second entry.
    expected[7] = 13 + 12;
    expected[22] = 10;
    assert_eq!(message, expected);
}

#[test]
fn answers() {
    let plain = Answer { is_over: false, remaining: None, counts_refused: false, reset: None };
    let reset = |least: u64, most: u64| Some(Reset { least, most });
    let table = [
        // Limitador without headers.
        (count(1, 1), Some(plain)),
        (count(1, 2), Some(Answer { is_over: true, ..plain })),
        // And with them: seconds, rounded down.
        (
            [count(1, 1), header("X-RateLimit-Remaining", "17"), header("X-RateLimit-Reset", "3")]
                .concat(),
            Some(Answer { remaining: Some(17), reset: reset(2 * SECOND, 4 * SECOND), ..plain }),
        ),
        // envoyproxy/ratelimit: seconds, rounded up.
        (
            [count(1, 2), status(0, 2, 0)].concat(),
            Some(Answer {
                is_over: true,
                remaining: Some(0),
                counts_refused: true,
                reset: reset(SECOND, 2 * SECOND),
            }),
        ),
        (
            [count(1, 1), status(5, 0, 7)].concat(),
            Some(Answer { remaining: Some(5), counts_refused: true, reset: reset(7, 7), ..plain }),
        ),
        // A descriptor that the engine has no limit for.
        (
            [count(1, 1), nested(2, &[count(1, 1)])].concat(),
            Some(Answer { counts_refused: true, ..plain }),
        ),
        // Neither a time before now nor one in a hundred years.
        (
            [count(1, 1), status(5, u64::MAX, 0)].concat(),
            Some(Answer { remaining: Some(5), counts_refused: true, ..plain }),
        ),
        (
            [count(1, 1), status(u64::MAX, 1 << 40, 0)].concat(),
            Some(Answer {
                remaining: Some(u32::MAX),
                counts_refused: true,
                reset: reset((LATEST - 1) * SECOND, LATEST * SECOND),
                ..plain
            }),
        ),
        // No code, an unknown one, a status too many, half a message.
        (Vec::new(), None),
        (count(1, 0), None),
        (count(1, 7), None),
        ([count(1, 1), status(1, 1, 0), status(1, 1, 0)].concat(), None),
        (b"\x12\x7f\x01".to_vec(), None),
        (b"<html>".to_vec(), None),
    ];
    for (message, expected) in table {
        assert_eq!(answer(&message), expected, "{message:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(answer) = answer(&bytes) {
            let ends = answer.reset.map_or(0, |reset| reset.most);
            prop_assert!(ends <= (LATEST + 1) * SECOND);
        }
    }
}
