//! stand-in
use super::lanes::color;
use weir_protos::FieldError;
use weir_protos::v1::color_rule::{Hash, Share};
pub struct Shares(Vec<(usize, u16)>);
impl Shares {
    pub fn compile(
        source: &[Share],
        _: Hash,
        colors: &[String],
        path: &str,
    ) -> Result<Shares, FieldError> {
        let mut all = Vec::new();
        for (n, share) in source.iter().enumerate() {
            all.push((
                color(&share.color, colors, &format!("{path}[{n}].color"))?,
                u16::try_from(share.weight).unwrap_or(0),
            ));
        }
        Ok(Shares(all))
    }
    pub fn colors(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(c, _)| *c)
    }
    pub fn pick(&self, bucket: u16, first: u16) -> Option<usize> {
        let mut at = 0_u16;
        for (n, (color, weight)) in self.0.iter().enumerate() {
            let end = at.saturating_add(*weight);
            let own = if n == 0 { at.saturating_add(first.min(*weight)) } else { end };
            if bucket >= at && bucket < own {
                return Some(*color);
            }
            at = end;
        }
        None
    }
}
