//! Header values as bytes.

/// Without the optional white space around a value: blanks and tabs, nothing else (RFC 9110
/// section 5.6.3).
pub fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What was checked to be ASCII, as text; anything else as no text.
pub fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
