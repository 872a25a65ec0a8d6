//! Policies outlive the schema that they were written for: what is in `descriptors.txt` stays as it is, on the wire
//! and in JSON. Fields and values may be added.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto};
use std::collections::BTreeMap;
use std::path::Path;

/// By message or enum and number: the name, and what else has to stay.
type Shapes = BTreeMap<(String, i32), String>;

#[test]
fn the_schema_only_grows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("descriptors.txt");
    let now = shapes(root);
    assert!(now.len() > 300, "the schema was not read");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let before: Shapes =
        committed.lines().filter(|line| !line.starts_with('#')).map(read).collect();

    let broken = broken(&before, &now);
    assert!(
        broken.is_empty(),
        "policies that are in use would break:\n{}\nBring back what was there, beside the new: a field that is no \
         longer wanted stays, and its comment says what to use instead.",
        broken.join("\n")
    );
    if std::env::var_os("WEIR_BLESS").is_some() {
        return std::fs::write(path, write(&now)).expect("writable");
    }
    let added: Vec<_> = now.iter().filter(|(key, _)| !before.contains_key(*key)).collect();
    assert!(
        added.is_empty(),
        "new in the schema, and for ever from here on: {added:#?}\nIf that is meant: \
         WEIR_BLESS=1 cargo test -p weir-protos compatibility"
    );
}

/// What was there and is not, or is something else.
fn broken(before: &Shapes, now: &Shapes) -> Vec<String> {
    let name = |shape: &str| shape.split(' ').next().unwrap_or_default().to_owned();
    let change = |((of, number), was): (&(String, i32), &String)| match now
        .get(&(of.clone(), *number))
    {
        Some(is) if is == was => None,
        Some(is) if name(is) != name(was) => Some(format!(
            "{of}: {number} was `{was}` and is `{is}`: renamed, so JSON with the old name is refused"
        )),
        Some(is) => Some(format!(
            "{of}: {number} was `{was}` and is `{is}`: another type reads old policies wrongly"
        )),
        None => {
            let moved = now.iter().find(|((in_it, _), is)| in_it == of && name(is) == name(was));
            Some(match moved {
                Some(((_, other), _)) => {
                    format!("{of}: `{was}` had number {number} and has {other}: renumbered")
                }
                None => format!("{of}: {number} `{was}` is gone: removed"),
            })
        }
    };
    before.iter().filter_map(change).collect()
}

fn shapes(root: &Path) -> Shapes {
    let files =
        protox::compile([root.join("weir/v1/policy.proto")], [root]).expect("the schema compiles");
    let mut shapes = Shapes::new();
    for file in files.file.iter().filter(|file| file.package() == "weir.v1") {
        file.message_type.iter().for_each(|message| messages("weir.v1", message, &mut shapes));
        file.enum_type.iter().for_each(|values| enums("weir.v1", values, &mut shapes));
    }
    shapes
}

fn messages(scope: &str, message: &DescriptorProto, shapes: &mut Shapes) {
    let own = format!("{scope}.{}", message.name());
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        let label = if field.label() == Label::Repeated { "repeated" } else { "single" };
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        let oneof = oneof.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
        let oneof = oneof.map(|oneof| format!(" of {}", oneof.name())).unwrap_or_default();
        let shape = format!("{} {} {kind} {label}{oneof}", field.name(), field.json_name());
        shapes.insert((own.clone(), field.number()), shape);
    }
    message.nested_type.iter().for_each(|nested| messages(&own, nested, shapes));
    message.enum_type.iter().for_each(|nested| enums(&own, nested, shapes));
}

fn enums(scope: &str, values: &EnumDescriptorProto, shapes: &mut Shapes) {
    for value in &values.value {
        let of = format!("{scope}.{}", values.name());
        shapes.insert((of, value.number()), value.name().to_owned());
    }
}

fn write(shapes: &Shapes) -> String {
    let head = "# Fields (number, name, JSON name, type, label) and values of enums: src/compatibility_tests.rs\n";
    let lines = shapes.iter().map(|((of, number), shape)| format!("{of} {number} {shape}\n"));
    std::iter::once(head.to_owned()).chain(lines).collect()
}

fn read(line: &str) -> ((String, i32), String) {
    let mut parts = line.splitn(3, ' ');
    let mut next = || parts.next().unwrap_or_else(|| panic!("no line of ours: {line}"));
    let (of, number, shape) = (next().to_owned(), next(), next().to_owned());
    ((of, number.parse().unwrap_or_else(|_| panic!("no number: {line}"))), shape)
}

#[test]
fn what_breaks_is_named() {
    let shapes = |lines: &[&str]| -> Shapes { lines.iter().map(|line| read(line)).collect() };
    let before =
        shapes(&["m.A 1 id id string single", "m.A 2 mode mode m.Mode single", "m.Mode 0 OFF"]);
    for (now, said) in [
        (vec!["m.A 1 id id string single", "m.Mode 0 OFF"], "removed"),
        (
            vec!["m.A 1 id id string single", "m.A 3 mode mode m.Mode single", "m.Mode 0 OFF"],
            "renumbered",
        ),
        (
            vec!["m.A 1 name name string single", "m.A 2 mode mode m.Mode single", "m.Mode 0 OFF"],
            "renamed",
        ),
        (
            vec!["m.A 1 id id bytes single", "m.A 2 mode mode m.Mode single", "m.Mode 0 OFF"],
            "another type",
        ),
        (
            vec!["m.A 1 id id string repeated", "m.A 2 mode mode m.Mode single", "m.Mode 0 OFF"],
            "another type",
        ),
        (
            vec!["m.A 1 id id string single", "m.A 2 mode mode m.Mode single", "m.Mode 0 NONE"],
            "renamed",
        ),
    ] {
        let broken = broken(&before, &shapes(&now));
        assert!(broken.len() == 1 && broken[0].contains(said), "{said}: {broken:?}");
    }
    let more = shapes(&[
        "m.A 1 id id string single",
        "m.A 2 mode mode m.Mode single",
        "m.A 3 zone zone string single",
        "m.Mode 0 OFF",
        "m.Mode 1 ON",
    ]);
    assert_eq!(broken(&before, &more), [] as [String; 0]);
}
