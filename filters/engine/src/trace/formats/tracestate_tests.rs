use super::*;
use proptest::prelude::*;

fn kept(lines: &[&str]) -> Option<String> {
    let lines = lines.iter().map(|line| line.as_bytes());
    TraceState::parse(lines).map(|state| state.write(Own::Keep))
}

fn written(line: &str, own: Own<'_>) -> String {
    TraceState::parse([line.as_bytes()].into_iter()).unwrap().write(own)
}

/// Members `m1=…` and so on, of that length each.
fn list(count: usize, length: usize) -> String {
    let member = |number: usize| {
        let key = format!("m{number}=");
        format!("{key}{}", "x".repeat(length - key.len()))
    };
    (1..=count).map(member).collect::<Vec<_>>().join(",")
}

#[test]
fn the_sentences_on_reading() {
    let (k256, v256) = ("k".repeat(256), "v".repeat(256));
    let long_key = |length: usize| format!("{}=1", "z".repeat(length));
    for (quotation, lines, read) in [
        ("3.3.1.1 separated by commas", vec!["a=1,b=2"], Some("a=1,b=2")),
        ("3.3.1.1 MUST be combined into a single header", vec!["a=1", "b=2"], Some("a=1,b=2")),
        ("3.3.1.1 surrounding list-members are ignored", vec!["\ta=1 ,\t b=2 "], Some("a=1,b=2")),
        ("3.3.1.1 Empty list members are allowed", vec!["a=1,,b=2, ,"], Some("a=1,b=2")),
        ("3.3.1.1 MUST accept empty headers", vec!["", "a=1", " "], Some("a=1")),
        ("3.3.1.1 MUST accept empty headers", vec![], Some("")),
        (
            "3.3.1.3.1 MUST begin with a lowercase letter or a digit",
            vec!["1a-_*/@=1"],
            Some("1a-_*/@=1"),
        ),
        ("3.3.1.3.1 keychar: no plus", vec!["t*242+@v=3"], None),
        ("3.3.1.3.1 and at signs", vec!["foo@=1,f@@b=2"], Some("foo@=1,f@@b=2")),
        ("3.3.1.3.1 MUST begin with", vec!["@foo=1,b=2"], None),
        ("3.3.1.3.1 MUST begin with", vec!["_a=1"], None),
        ("3.3.1.3.1 lowercase letters", vec!["FOO=1"], None),
        ("3.3.1.3.1 keychar", vec!["foo.bar=1"], None),
        ("3.3.1.3.1 keychar", vec!["foo =1"], None),
        ("3.3.1.3.1 keychar", vec!["=1"], None),
        ("3.3.1.3 key \"=\" value", vec!["a=1,foo"], None),
        ("3.3.1.3.2 except comma (,) and (=)", vec!["foo=bar=baz"], None),
        ("3.3.1.3.2 0*255(chr) nblk-chr: one at least", vec!["foo=,bar=3"], None),
        ("3.3.1.3.2 0*255(chr) nblk-chr: one at least", vec!["foo=  "], None),
        ("3.3.1.3.2 all leading spaces MUST be preserved", vec!["a=  1  ,b=2"], Some("a=  1,b=2")),
        ("3.3.1.3.2 excludes tabs", vec!["a=1\t2"], None),
        ("3.3.1.3.2 excludes tabs, newlines", vec!["a=1\n"], None),
        ("3.3.1.3.2 printable ASCII", vec!["a=\u{e9}"], None),
        ("3.3.1.3.2 printable ASCII", vec!["a=\u{7f}"], None),
        (
            "3.3.1.3.2 printable ASCII",
            vec!["a=!\"#$%&'()*+-./:;<>?@[\\]^`{|}~"],
            Some("a=!\"#$%&'()*+-./:;<>?@[\\]^`{|}~"),
        ),
        ("3.3.1.4 only one entry per key: tolerated", vec!["a=1,a=2"], Some("a=1,a=2")),
        ("3.3.1.1 a maximum of 32", vec![&list(32, 7)], Some(&list(32, 7))),
        ("3.3.1.1 a maximum of 32", vec![&list(33, 7)], None),
        ("3.3.1.1 a maximum of 32", vec![&list(32, 7), "", ",,"], Some(&list(32, 7))),
        ("3.3.1.3.1 up to 256 characters", vec![&long_key(256)], Some(&long_key(256))),
        ("3.3.1.3.1 up to 256 characters", vec![&long_key(257)], None),
        ("3.3.1.3.2 up to 256", vec![&format!("a={v256}")], Some(&format!("a={v256}"))),
        ("3.3.1.3.2 up to 256", vec![&format!("a={v256}v")], None),
        ("3.3.1.5 512 characters: 513 here", vec![&format!("{k256}={v256}")], Some("")),
    ] {
        assert_eq!(kept(&lines).as_deref(), read, "{quotation}: {lines:?}");
    }
    assert!(TraceState::parse([&b"a=1,b=\xff\xfe"[..]].into_iter()).is_none());
}

#[test]
fn the_sentences_on_writing() {
    use Own::{Keep, Remove, Set};
    for (quotation, line, own, expected) in [
        ("3.5 order of unmodified pairs MUST be preserved", "b=2,a=1", Keep, "b=2,a=1"),
        ("3.5 SHOULD be added to the beginning", "b=2", Set("a", "1"), "a=1,b=2"),
        ("3.5 moved to the beginning (left)", "b=2,a=0,c=3", Set("a", "1"), "a=1,b=2,c=3"),
        ("3.3.1.4 overwrite their entry upon reentry", "a=0,b=2,a=00", Set("a", "1"), "a=1,b=2"),
        ("3.5 Delete a key/value pair", "b=2,a=0,c=3,a=1", Remove("a"), "b=2,c=3"),
        ("3.5 Delete a key/value pair", "b=2", Remove("a"), "b=2"),
        ("3.3.1.3.2 except comma", "b=2,a=0", Set("a", "1,x=y"), "b=2"),
        ("3.3.1.3.1 lowercase", "b=2", Set("A", "1"), "b=2"),
        ("3.3.1.1 SHOULD avoid sending empty headers", "a=1", Remove("a"), ""),
    ] {
        assert_eq!(written(line, own), expected, "{quotation}: {line}");
    }
    // "There can be a maximum of 32" (3.3.1.1): the oldest falls off.
    assert_eq!(written(&list(32, 7), Set("a", "1")), format!("a=1,{}", list(31, 7)));
}

/// Section 3.3.1.5.
#[test]
fn the_sentences_on_size() {
    let long = |key: &str, length: usize| format!("{key}={}", "y".repeat(length - key.len() - 1));
    let join = |members: &[&str]| members.join(",");
    let (a129, b128) = (long("a", 129), long("b", 128));
    let (c200, d200) = (long("c", 200), long("d", 200));
    let short = list(10, 25);
    assert_eq!(short.len(), 259);
    let filled = list(27, 18);
    assert_eq!(filled.len(), 512);
    for (quotation, line, expected) in [
        ("at least 512 characters", filled.clone(), filled.clone()),
        (
            "This length includes commas",
            filled.replacen('x', "xx", 1),
            filled[..493].replacen('x', "xx", 1),
        ),
        ("removed starting from the end", format!("{filled},a=1"), filled.clone()),
        (
            "larger than 128 characters SHOULD be removed first",
            join(&[&a129, &b128, &short]),
            join(&[&b128, &short]),
        ),
        (
            "removed starting from the end",
            join(&[&b128, &long("c", 128), &short]),
            join(&[&b128, &long("c", 128), &list(9, 25)]),
        ),
        (
            "MUST truncate whole entries",
            join(&[&long("c", 257), &short, "a=1"]),
            short.clone() + ",a=1",
        ),
        (
            "only as many as it takes, from the end",
            join(&[&c200, &d200, &a129]),
            join(&[&c200, &d200]),
        ),
    ] {
        assert_eq!(kept(&[&line]).unwrap(), expected, "{quotation}");
    }
    // Our own member stays, however long it is.
    let own = "o".repeat(256);
    let line = written(&join(&[&c200, &short]), Own::Set("ot", &own));
    assert!(line.starts_with(&format!("ot={own},m1=")) && line.len() <= 512, "{line}");
    assert!(!line.contains("c=y"));
}

fn any_state() -> impl Strategy<Value = Vec<u8>> {
    proptest::string::string_regex("([a-c]{1,2}@?[=]? ?[x-z]{0,3}[ ,\t]{0,2}){0,40}")
        .unwrap()
        .prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn what_is_written_is_read(line in any_state(), value in "[a-z=]{0,3}") {
        if let Some(state) = TraceState::parse([&line[..]].into_iter()) {
            for own in [Own::Keep, Own::Set("a", &value), Own::Remove("a")] {
                let line = state.write(own);
                let again = TraceState::parse([line.as_bytes()].into_iter()).unwrap();
                prop_assert_eq!(again.write(Own::Keep), line.as_str());
                let set = !value.is_empty() && !value.contains('=');
                let expected = match own {
                    Own::Keep => state.get(b"a"),
                    Own::Set(..) => set.then_some(value.as_bytes()),
                    Own::Remove(_) => None,
                };
                prop_assert_eq!(again.get(b"a"), expected);
            }
        }
    }

    #[test]
    fn whole_members_in_order_within_the_limits(
        lengths in proptest::collection::vec(8_usize..300, 0..33), own in 1_usize..250,
    ) {
        let members: Vec<_> = (0..lengths.len())
            .map(|at| format!("k{at:02}={}", "v".repeat((lengths[at] - 4).min(256))))
            .collect();
        let line = members.join(",");
        let own = "v".repeat(own);
        let line = written(&line, Own::Set("own", &own));
        prop_assert!(line.len() <= 512);
        let mut out = line.split(',');
        prop_assert_eq!(out.next().unwrap(), format!("own={own}"));
        let mut rest = members.iter();
        for member in out {
            prop_assert!(rest.any(|it| it == member), "{} is changed or out of order", member);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4),
    ) {
        let _ = TraceState::parse(lines.iter().map(Vec::as_slice));
    }
}
