use std::fmt;

/// What is wrong with a policy: where, what stands there, and what would be right.
///
/// The text reads `policy.rate_limit.rules[2].fill_interval: "0s" must be at least 0.001s`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FieldError {
    /// From the root of the document, e.g. `policy.rate_limit.rules[2].max_tokens`.
    pub path: String,
    /// The offending value as written, cut to a readable length; empty where there is none.
    pub value: String,
    /// What would be right.
    pub remedy: String,
}

/// Longer values are cut: the message goes to a log line.
const MAX_VALUE: usize = 80;

// Cold, so that checks of a policy are small: 10 KB of a module.
impl FieldError {
    /// An error about a field that has no value to show: missing, unknown, given twice.
    #[cold]
    #[inline(never)]
    pub fn at(path: impl Into<String>, remedy: impl Into<String>) -> FieldError {
        FieldError { path: path.into(), value: String::new(), remedy: remedy.into() }
    }

    /// An error about the value of a field.
    #[cold]
    #[inline(never)]
    pub fn value(
        path: impl Into<String>,
        value: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> FieldError {
        FieldError { path: path.into(), value: shown(&value), remedy: remedy.into() }
    }
}

/// Apart from the rest, which is made anew for each type of value.
#[inline(never)]
fn shown(value: &dyn fmt::Display) -> String {
    let mut text = value.to_string();
    if let Some((cut, _)) = text.char_indices().nth(MAX_VALUE) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

impl FieldError {
    /// An error about a field that holds a fraction.
    #[cold]
    #[inline(never)]
    pub fn number(path: impl Into<String>, value: f64, remedy: impl Into<String>) -> FieldError {
        FieldError::value(path, crate::scalar::number(value), remedy)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        if !self.value.is_empty() {
            write!(f, "{} ", self.value)?;
        }
        f.write_str(&self.remedy)
    }
}
