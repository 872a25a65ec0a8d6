//! What a scalar without quotes means, by the core schema of YAML 1.2.

#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    /// Of a scalar without quotes; `Err` says in which ways it is read.
    pub fn plain(text: &str) -> Result<Scalar, String> {
        if let Some(other) = in_yaml_1_1(text) {
            return Err(format!("is text to some YAML readers and {other} to others"));
        }
        Ok(match text {
            "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
            "true" | "True" | "TRUE" => Scalar::Bool(true),
            "false" | "False" | "FALSE" => Scalar::Bool(false),
            _ => number(text).unwrap_or_else(|| Scalar::Text(text.to_string())),
        })
    }
}

fn number(text: &str) -> Option<Scalar> {
    // Rust also reads `inf`, `nan` and `+1`, which are text here.
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let unsigned = text.parse().ok().map(Scalar::Unsigned);
    let signed = || text.parse().ok().map(Scalar::Negative);
    let float = || text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float);
    unsigned.or_else(signed).or_else(float)
}

/// What YAML 1.1, which many tools and older Kubernetes clients read, makes of a scalar that 1.2
/// reads otherwise.
fn in_yaml_1_1(text: &str) -> Option<&'static str> {
    const TRUE: [&str; 8] = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
    const FALSE: [&str; 8] = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    if TRUE.contains(&text) {
        return Some("`true`");
    }
    if FALSE.contains(&text) {
        return Some("`false`");
    }
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts_as_number = body.starts_with(|c: char| c.is_ascii_digit());
    let is = |allowed: fn(char) -> bool| body.chars().all(allowed);
    if !starts_as_number {
        let is_special = matches!(body, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
        return is_special.then_some("a number");
    }
    let is_octal = body.len() > 1 && body.starts_with('0') && is(|c| c.is_ascii_digit());
    let has_base = ["0x", "0o", "0b"].iter().any(|base| body.starts_with(base));
    let has_gaps = body.contains('_') && is(|c| c.is_ascii_digit() || c == '_' || c == '.');
    let parts: Vec<&str> = body.split(':').collect();
    let is_part = |part: &&str| {
        (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_sexagesimal = parts.len() > 1 && parts.iter().all(is_part);
    let is_exponent = {
        let (mantissa, exponent) = body.split_once(['e', 'E']).unwrap_or((body, ""));
        !exponent.is_empty()
            && mantissa.chars().all(|c| c.is_ascii_digit() || c == '.')
            && exponent.trim_start_matches(['+', '-']).chars().all(|c| c.is_ascii_digit())
    };
    let is_signed = text.starts_with('+') && is(|c| c.is_ascii_digit() || c == '.');
    (is_octal || has_base || has_gaps || is_sexagesimal || is_exponent || is_signed)
        .then_some("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_by_the_core_schema() {
        for (text, expected) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("null", Scalar::Null),
            ("true", Scalar::Bool(true)),
            ("0", Scalar::Unsigned(0)),
            ("18446744073709551615", Scalar::Unsigned(u64::MAX)),
            ("-5", Scalar::Negative(-5)),
            ("1.50", Scalar::Float(1.5)),
            ("1s", Scalar::Text("1s".into())),
            ("inf", Scalar::Text("inf".into())),
            ("10.0.0.0/8", Scalar::Text("10.0.0.0/8".into())),
            ("/a:b", Scalar::Text("/a:b".into())),
            ("2026-11-28T00:00:00Z", Scalar::Text("2026-11-28T00:00:00Z".into())),
            ("500-599", Scalar::Text("500-599".into())),
            ("x", Scalar::Text("x".into())),
        ] {
            assert_eq!(Scalar::plain(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_readers_disagree_on_is_none() {
        for text in [
            "yes", "No", "ON", "off", "y", "n", "010", "0o10", "0x1F", "1_000", "12:30", "1e3",
            "1.5E-3", "+1", ".inf", "-.INF", ".nan",
        ] {
            assert!(Scalar::plain(text).is_err(), "{text}");
        }
    }
}
