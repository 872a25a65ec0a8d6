//! Path templates: `/users/{id}/orders`, `/files/{rest**}`.

/// Segments in order; a rest, when there is one, comes last and takes one segment or more.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    segments: Box<[Segment]>,
    rest: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(Box<[u8]>),
    Variable(Box<str>),
}

impl Template {
    pub fn parse(text: &str) -> Result<Template, &'static str> {
        let body = text.strip_prefix('/').ok_or("must start with `/`")?;
        let mut segments = Vec::new();
        let mut rest = None;
        let mut names = std::collections::BTreeSet::new();
        for part in body.split('/') {
            if rest.is_some() {
                return Err("must end after `{name**}`");
            }
            let inner = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            match inner {
                Some(name) => {
                    let (name, is_rest) =
                        name.strip_suffix("**").map_or((name, false), |name| (name, true));
                    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                    if name.is_empty() || !name.bytes().all(fits) {
                        return Err("must name each variable with letters, digits or `_`");
                    }
                    if !names.insert(name) {
                        return Err("must give each variable a name of its own");
                    }
                    if is_rest {
                        rest = Some(name.into());
                    } else {
                        segments.push(Segment::Variable(name.into()));
                    }
                }
                None if part.contains(['?', '#']) => {
                    return Err("must hold no query: paths are matched without it");
                }
                None if part.contains(['{', '}', '*']) => {
                    return Err("must have a variable fill its whole segment, as `/users/{id}`");
                }
                None => segments.push(Segment::Literal(part.as_bytes().into())),
            }
        }
        Ok(Template { segments: segments.into(), rest })
    }

    pub fn is_match(&self, path: &[u8]) -> bool {
        self.walk(path, usize::MAX).is_some()
    }

    /// The place of a variable, for [`Template::capture`].
    pub fn place(&self, name: &str) -> Option<usize> {
        let named =
            |segment: &Segment| matches!(segment, Segment::Variable(known) if **known == *name);
        let rest = self.rest.as_deref().filter(|known| *known == name).map(|_| self.segments.len());
        self.segments.iter().position(named).or(rest)
    }

    /// What the variable at `place` took of a path that fits.
    pub fn capture<'p>(&self, path: &'p [u8], place: usize) -> Option<&'p [u8]> {
        self.walk(path, place).filter(|taken| !taken.is_empty())
    }

    /// The literal bytes that every path that fits starts with.
    pub fn literal_prefix(&self) -> Vec<u8> {
        let mut prefix = vec![b'/'];
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => {
                    prefix.extend_from_slice(literal);
                    prefix.push(b'/');
                }
                Segment::Variable(_) => return prefix,
            }
        }
        if self.rest.is_none() {
            prefix.pop();
        }
        prefix
    }

    fn walk<'p>(&self, path: &'p [u8], place: usize) -> Option<&'p [u8]> {
        let mut left = Some(path.strip_prefix(b"/")?);
        let mut taken = &b""[..];
        for (at, segment) in self.segments.iter().enumerate() {
            let bytes = left?;
            let end = bytes.iter().position(|byte| *byte == b'/').unwrap_or(bytes.len());
            let (part, tail) = bytes.split_at_checked(end)?;
            match segment {
                Segment::Literal(literal) if **literal == *part => {}
                Segment::Variable(_) if !part.is_empty() => {}
                _ => return None,
            }
            if at == place {
                taken = part;
            }
            left = tail.strip_prefix(b"/");
        }
        match (&self.rest, left) {
            (None, None) => Some(taken),
            (Some(_), Some(tail)) if !tail.is_empty() => {
                Some(if place == self.segments.len() { tail } else { taken })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_whole_segments() {
        let template = Template::parse("/users/{id}/orders").unwrap();
        for (path, fits) in [
            ("/users/7/orders", true),
            ("/users//orders", false),
            ("/users/7/orders/", false),
            ("/users/7", false),
            ("/users/7/orders/1", false),
            ("/Users/7/orders", false),
            ("users/7/orders", false),
            ("", false),
        ] {
            assert_eq!(template.is_match(path.as_bytes()), fits, "{path}");
        }
        assert_eq!(
            template.capture(b"/users/7/orders", template.place("id").unwrap()),
            Some(&b"7"[..])
        );
        assert_eq!(template.place("nobody"), None);
        assert_eq!(template.literal_prefix(), b"/users/");
    }

    #[test]
    fn a_rest_takes_at_least_one_segment() {
        let template = Template::parse("/files/{rest**}").unwrap();
        assert_eq!(
            template.capture(b"/files/a/b", template.place("rest").unwrap()),
            Some(&b"a/b"[..])
        );
        assert!(!template.is_match(b"/files/") && !template.is_match(b"/files"));
        assert_eq!(template.literal_prefix(), b"/files/");
        assert_eq!(Template::parse("/a/b").unwrap().literal_prefix(), b"/a/b");
        assert!(Template::parse("/").unwrap().is_match(b"/"));
    }

    #[test]
    fn what_is_no_template() {
        for text in ["", "users", "/a{b}", "/{}", "/{a-b}", "/{a**}/b", "/*", "/{a}/{a}", "/a?b"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
