use super::*;
use proptest::prelude::*;

fn read<'a>(lines: &[&'a str]) -> Baggage<'a> {
    Baggage::parse(lines.iter().map(|line| line.as_bytes()))
}

#[test]
fn the_sentences() {
    for (quotation, lines, written, invalid) in [
        ("3.3.1 list-member *( OWS \",\" OWS list-member )", vec!["a=1 ,\tb=2"], "a=1,b=2", 0),
        ("3.1 Multiple baggage headers are allowed", vec!["a=1", "b=2", ""], "a=1,b=2", 0),
        (
            "3.3.1.1 order of duplicate entries SHOULD be preserved",
            vec!["a=2,b=1,a=1"],
            "a=2,b=1,a=1",
            0,
        ),
        (
            "RFC 9110 5.6.1.2 MUST parse and ignore … empty list elements",
            vec![",a=1,, ,"],
            "a=1",
            0,
        ),
        ("3.3.1 key OWS \"=\" OWS value", vec!["a \t= 1"], "a \t= 1", 0),
        ("3.3.1 value = *baggage-octet", vec!["a="], "a=", 0),
        ("3.3.1 key = token", vec!["!#$%&'*+-.^_`|~Az09=1"], "!#$%&'*+-.^_`|~Az09=1", 0),
        ("3.3.1 key = token", vec!["a b=1,(=1,=1,\u{e9}=1,c=1"], "c=1", 4),
        ("3.3.1 list-member = key \"=\" value", vec!["a,b;c=1"], "", 2),
        ("3.3.1.3 MAY contain any number of the equal sign", vec!["a=b=c=="], "a=b=c==", 0),
        (
            "3.3.1 excluding whitespace, DQUOTE, backslash",
            vec!["a=1 2,b=\",c=\\,d=\u{e9},e=\u{7f}"],
            "",
            5,
        ),
        ("3.3.1.3 percent-encoded", vec!["a=DF%2028,b=%zz"], "a=DF%2028,b=%zz", 0),
        ("3.3.1.4 Additional metadata", vec!["a=1;k1=v1;k2; k3 = v3"], "a=1;k1=v1;k2; k3 = v3", 0),
        ("3.3.1 property = key", vec!["a=1;,b=1;c d,e=1;f=\",g=1;h="], "g=1;h=", 3),
    ] {
        let baggage = read(&lines);
        assert_eq!((&*baggage.write(), baggage.invalid()), (written, invalid), "{quotation}");
        assert_eq!(baggage.is_changed(), invalid > 0, "{quotation}");
        assert_eq!(baggage.is_empty(), written.is_empty(), "{quotation}");
    }
    let baggage = Baggage::parse([&b"a=\xff,b=1"[..]].into_iter());
    assert_eq!((baggage.write(), baggage.invalid()), ("b=1".to_string(), 1));
}

#[test]
fn members_are_read_in_place() {
    let baggage = read(&["user \t= a=b ;p=1, c="]);
    let members: Vec<_> = baggage.members().map(|it| (it.key(), it.value(), it.raw())).collect();
    assert_eq!(
        members,
        [(&b"user"[..], &b"a=b"[..], &b"user \t= a=b ;p=1"[..]), (b"c", b"", b"c=")]
    );
}

#[test]
fn only_wanted_keys_stay() {
    let mut baggage = read(&["a=1,b=2;p,a=3"]);
    baggage.retain(|_| true);
    assert!(!baggage.is_changed());
    baggage.retain(|key| key == b"a");
    assert_eq!((baggage.write().as_str(), baggage.is_changed()), ("a=1,a=3", true));
}

/// Section 3.3.2.
#[test]
fn whole_members_within_the_limits() {
    for (quotation, line, members, bytes, kept) in [
        ("all list-members", "a=1,b=2,c=3", 3, 11, "a=1,b=2,c=3"),
        ("at least 64 list-members", "a=1,b=2,c=3", 2, 11, "a=1,b=2"),
        ("or 8192 bytes, with commas", "a=1,b=2,c=3", 3, 10, "a=1,b=2"),
        ("MUST NOT propagate any partial list-members", "a=1,b=22222;p=1,c=3", 3, 8, "a=1,c=3"),
        ("no list-member", "a=1", 0, 11, ""),
        ("no byte", "a=1", 1, 2, ""),
    ] {
        let mut baggage = read(&[line]);
        baggage.limit(members, bytes);
        assert_eq!(baggage.write(), kept, "{quotation}");
        assert_eq!(baggage.is_changed(), kept != line, "{quotation}");
    }
}

#[test]
fn what_is_read_is_bounded() {
    let line = |count: usize| vec!["a=1"; count].join(",");
    for (count, kept) in [(180, 180), (181, 180)] {
        let line = line(count);
        let baggage = read(&[&line]);
        assert_eq!((baggage.members().len(), baggage.is_changed()), (kept, count != kept));
    }
    let line = line(180) + ", ,";
    assert!(!read(&[&line]).is_changed());
    let long = format!("a={}", "x".repeat(64 * 1024));
    let baggage = read(&["b=1", &long, "c=1"]);
    assert_eq!((baggage.write().as_str(), baggage.is_changed()), ("b=1", true));
}

/// "Any characters outside of the baggage-octet range … MUST be percent-encoded" (3.3.1.3).
#[test]
fn members_are_set() {
    let mut baggage = read(&["a=1;p,b=2,a=3"]);
    baggage.set("a", "DF 28,\"%;\\\u{e9}=/".as_bytes());
    baggage.set("no token", b"1");
    baggage.set("", b"1");
    assert_eq!(baggage.write(), "b=2,a=DF%2028%2C%22%25%3B%5C%C3%A9%3D/");
    assert!(baggage.is_changed());
    baggage.set("b", b"\r\n\xff");
    assert_eq!(baggage.write(), "a=DF%2028%2C%22%25%3B%5C%C3%A9%3D/,b=%0D%0A%FF");
}

fn decoded(value: &[u8]) -> Vec<u8> {
    let mut parts = value.split(|byte| *byte == b'%');
    let mut out = parts.next().unwrap().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(ascii(&part[..2]), 16).unwrap());
        out.extend(&part[2..]);
    }
    out
}

proptest! {
    #[test]
    fn what_is_set_is_read(value in proptest::collection::vec(any::<u8>(), 0..40), line in "([a-c]=[x-z;]{0,3},?){0,9}") {
        let mut baggage = read(&[&line]);
        baggage.set("b", &value);
        let written = baggage.write();
        let again = read(&[&written]);
        prop_assert!(!again.is_changed());
        let of_b: Vec<_> = again.members().filter(|it| it.key() == b"b").collect();
        prop_assert_eq!(of_b.len(), 1);
        prop_assert_eq!(decoded(of_b[0].value()), value);
        prop_assert_eq!(again.members().last().unwrap().key(), b"b");
    }

    #[test]
    fn what_is_written_is_read(
        line in "([a-c ]{1,2}=[ x-z;=]{0,5},[ \t]?){0,30}", members in 0_usize..20, bytes in 0_usize..90,
    ) {
        let mut baggage = read(&[&line]);
        baggage.limit(members, bytes);
        let written = baggage.write();
        prop_assert!(written.len() <= bytes && baggage.members().len() <= members);
        let again = read(&[&written]);
        prop_assert!(!again.is_changed());
        prop_assert!(again.members().eq(baggage.members()));
    }

    #[test]
    fn any_bytes_are_read(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4),
    ) {
        let baggage = Baggage::parse(lines.iter().map(Vec::as_slice));
        prop_assert!(baggage.write().is_ascii());
    }
}
