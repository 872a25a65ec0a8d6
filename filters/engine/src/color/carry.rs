//! The section `carry`: where a color travels, and what came that way.

use weir_protos::FieldError;
use weir_protos::v1::Carry as Source;
use weir_protos::v1::carry::Carrier;

use crate::core::baggage::Baggage;
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::core::restore::baggage_key;

#[derive(Debug)]
pub struct CarryRules {
    header: Box<[u8]>,
    in_header: bool,
    in_baggage: bool,
    key: String,
    winner: Carrier,
}

/// A color by its place in the policy's list.
pub type Color = usize;

/// What came along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    pub color: Option<Color>,
    /// Something was there that is no color of the policy's, or more than one.
    pub is_unknown: bool,
    /// Both carriers named a color, and not the same one.
    pub is_conflict: bool,
    has_header: bool,
    has_member: bool,
}

impl CarryRules {
    /// `default` wins where the policy does not say who does.
    #[cold]
    pub fn compile(
        source: &Source,
        header: &[u8],
        default: Carrier,
        path: &str,
    ) -> Result<CarryRules, FieldError> {
        let key = match source.baggage_key.as_str() {
            "" => "x-color".to_string(),
            key => {
                baggage_key(key, &format!("{path}.baggage_key"))?;
                key.to_string()
            }
        };
        let carriers: Vec<Carrier> = source.r#in().collect();
        for (place, carrier) in carriers.iter().enumerate() {
            if carriers.iter().take(place).any(|earlier| earlier == carrier) {
                let path = format!("{path}.in[{place}]");
                return Err(FieldError::value(
                    path,
                    carrier.as_str_name(),
                    "is given twice; keep one",
                ));
            }
        }
        let winner = match source.winner() {
            Carrier::Unspecified => default,
            winner => winner,
        };
        Ok(CarryRules {
            header: header.into(),
            in_header: carriers.is_empty() || carriers.contains(&Carrier::Header),
            in_baggage: carriers.contains(&Carrier::Baggage),
            key,
            winner,
        })
    }

    /// The baggage member that holds the color.
    pub fn member(&self) -> Option<&str> {
        self.in_baggage.then_some(self.key.as_str())
    }

    /// Whether the member counts where the header says something else.
    pub fn prefers_member(&self) -> bool {
        self.in_baggage && (!self.in_header || self.winner == Carrier::Baggage)
    }

    /// What the carriers in use say. One that is not in use says nothing.
    pub fn read(&self, headers: &HeaderMap, colors: &[String]) -> Existing {
        let place = |value: &[u8]| colors.iter().position(|color| color.as_bytes() == value);
        let mut lines = headers.all(&self.header);
        let line = lines.next();
        let is_single = lines.next().is_none();
        let of_header = line.filter(|_| is_single).and_then(place);
        let mut members = 0_usize;
        let mut of_member = None;
        if headers.get(b"baggage").is_some() {
            let baggage = Baggage::parse(headers.all(b"baggage"));
            for member in baggage.members().filter(|member| member.key() == self.key.as_bytes()) {
                members = members.saturating_add(1);
                of_member = place(member.value());
            }
        }
        let of_member = of_member.filter(|_| members == 1);
        let header = of_header.filter(|_| self.in_header);
        let member = of_member.filter(|_| self.in_baggage);
        let (first, second) = match self.winner {
            Carrier::Baggage => (member, header),
            Carrier::Header | Carrier::Unspecified => (header, member),
        };
        let is_conflict = first.zip(second).is_some_and(|(one, other)| one != other);
        let broken_header = self.in_header && line.is_some() && of_header.is_none();
        let broken_member = self.in_baggage && members > 0 && of_member.is_none();
        Existing {
            color: first.or(second),
            is_unknown: broken_header || broken_member,
            is_conflict,
            has_header: line.is_some(),
            has_member: members > 0,
        }
    }

    /// Writes the color: `here` for the routes of this hop, `onward` for those that come. What a
    /// stranger wrote goes, also where nobody here would look for it.
    pub fn write(
        &self,
        existing: &Existing,
        (here, onward): (&str, &str),
        is_trusted: bool,
        headers: &HeaderMap,
        edits: &mut Vec<HeaderEdit>,
    ) {
        let name = || String::from_utf8_lossy(&self.header).into_owned();
        let is_said = headers.get_one(&self.header) == Some(here.as_bytes());
        if self.in_header && !is_said {
            if headers.all(&self.header).nth(1).is_some() {
                edits.push(HeaderEdit::Remove(name()));
            }
            edits.push(HeaderEdit::Set(name(), here.to_string()));
        } else if !self.in_header && existing.has_header {
            // It says nothing here, and must not say it to others.
            edits.push(HeaderEdit::Remove(name()));
        }
        if self.in_baggage || (existing.has_member && !is_trusted) {
            self.write_member(onward, headers, edits);
        }
    }

    /// Removes whatever names a color.
    pub fn clean(&self, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
        if headers.get(&self.header).is_some() {
            edits.push(HeaderEdit::Remove(String::from_utf8_lossy(&self.header).into_owned()));
        }
        let mut baggage = Baggage::parse(headers.all(b"baggage"));
        let key = self.key.as_bytes();
        if baggage.members().any(|member| member.key() == key) {
            baggage.retain(|member_key| member_key != key);
            edits.push(HeaderEdit::Remove("baggage".into()));
            let text = baggage.write();
            edits.extend((!text.is_empty()).then(|| HeaderEdit::Set("baggage".into(), text)));
        }
    }

    fn write_member(&self, color: &str, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
        let mut baggage = Baggage::parse(headers.all(b"baggage"));
        let key = self.key.as_bytes();
        let mut said = baggage.members().filter(|member| member.key() == key);
        let is_said = said.next().is_some_and(|member| member.value() == color.as_bytes());
        if self.in_baggage && is_said && said.next().is_none() {
            return;
        }
        drop(said);
        baggage.retain(|member_key| member_key != key);
        if self.in_baggage {
            baggage.set(&self.key, color.as_bytes());
        }
        let text = baggage.write();
        if headers.all(b"baggage").nth(1).is_some() || text.is_empty() {
            edits.push(HeaderEdit::Remove("baggage".into()));
        }
        if !text.is_empty() {
            edits.push(HeaderEdit::Set("baggage".into(), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(carriers: &[Carrier], winner: Carrier) -> CarryRules {
        let source = Source {
            r#in: carriers.iter().map(|carrier| *carrier as i32).collect(),
            winner: winner as i32,
            ..Source::default()
        };
        CarryRules::compile(&source, b"x-weir-color", Carrier::Header, "p").unwrap()
    }

    fn colors() -> Vec<String> {
        vec!["base".into(), "gray".into(), "blue".into()]
    }

    #[test]
    fn what_came() {
        let both = [Carrier::Header, Carrier::Baggage];
        for (lines, color, unknown, conflict) in [
            (vec![], None, false, false),
            (vec![("x-weir-color", "gray")], Some(1), false, false),
            (vec![("x-weir-color", "Gray")], None, true, false),
            (vec![("x-weir-color", "gray,blue")], None, true, false),
            (vec![("x-weir-color", "gray"), ("x-weir-color", "gray")], None, true, false),
            (vec![("baggage", "a=1, x-color=blue;p=1")], Some(2), false, false),
            (vec![("baggage", "x-color=bl%75e")], None, true, false),
            (vec![("baggage", "x-color=blue"), ("baggage", "x-color=blue")], None, true, false),
            (vec![("x-weir-color", "gray"), ("baggage", "x-color=blue")], Some(1), false, true),
            (vec![("x-weir-color", "none"), ("baggage", "x-color=blue")], Some(2), true, false),
        ] {
            let found =
                rules(&both, Carrier::Header).read(&HeaderMap::from_pairs(&lines), &colors());
            let said = (found.color, found.is_unknown, found.is_conflict);
            assert_eq!(said, (color, unknown, conflict), "{lines:?}");
        }
        let lines = [("x-weir-color", "gray"), ("baggage", "x-color=blue")];
        let headers = HeaderMap::from_pairs(&lines);
        assert_eq!(rules(&both, Carrier::Baggage).read(&headers, &colors()).color, Some(2));
        assert_eq!(rules(&[], Carrier::Baggage).read(&headers, &colors()).color, Some(1));
        let baggage = rules(&[Carrier::Baggage], Carrier::Unspecified);
        assert_eq!(baggage.read(&headers, &colors()).color, Some(2));
    }
}
