//! Lists of HTTP statuses, as policies write them.

use weir_protos::FieldError;

/// HTTP statuses as ranges, ends included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// `None` for an empty list.
    #[cold]
    pub fn compile(list: &[String], path: &str) -> Result<Option<Statuses>, FieldError> {
        if list.len() > 64 {
            return Err(FieldError::value(path, list.len(), "entries: must be at most 64"));
        }
        let each = list.iter().enumerate().map(|(place, text)| {
            range(text).ok_or_else(|| {
                let remedy = "must be a status from 100 to 599 or a range such as 500-599";
                FieldError::value(format!("{path}[{place}]"), format_args!("{text:?}"), remedy)
            })
        });
        let ranges = each.collect::<Result<Vec<_>, _>>()?;
        Ok((!ranges.is_empty()).then_some(Statuses(ranges)))
    }

    pub fn range(first: u16, last: u16) -> Statuses {
        Statuses(vec![(first, last)])
    }

    pub fn one(status: u16) -> Statuses {
        Statuses::range(status, status)
    }

    pub fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|status| digits && (100..=599).contains(status))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("500-599", Some((500, 599))),
            ("404", Some((404, 404))),
            ("99", None),
            ("600", None),
            ("599-500", None),
            ("5xx", None),
            ("500-", None),
            ("", None),
            ("+50", None),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }
}
