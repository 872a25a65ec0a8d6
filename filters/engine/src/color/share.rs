//! The shares of a rule: ranges of buckets, in order.

use weir_protos::FieldError;
use weir_protos::v1::color_rule::{Hash, Share};

use super::carry::Color;
use super::hash::BUCKETS;
use super::lanes::color;

const MAX_SHARES: usize = 8;

#[derive(Debug)]
pub struct Shares(Vec<(Color, u16)>);

impl Shares {
    #[cold]
    pub fn compile(
        source: &[Share],
        hash: Hash,
        colors: &[String],
        path: &str,
    ) -> Result<Shares, FieldError> {
        if source.len() > MAX_SHARES {
            return Err(FieldError::value(path, source.len(), "shares: must be at most 8"));
        }
        let mut sum = 0_u32;
        let mut shares = Vec::with_capacity(source.len());
        for (place, share) in source.iter().enumerate() {
            let at = |field: &str| format!("{path}[{place}].{field}");
            let color = color(&share.color, colors, &at("color"))?;
            if !(1..=u32::from(BUCKETS)).contains(&share.weight) {
                let remedy = "must be from 1 to 10000, in parts of 10000";
                return Err(FieldError::value(at("weight"), share.weight, remedy));
            }
            if hash == Hash::Fnv1a32Mod100 && !share.weight.is_multiple_of(100) {
                let remedy = "must be a multiple of 100: this hash knows whole percents";
                return Err(FieldError::value(at("weight"), share.weight, remedy));
            }
            sum = sum.saturating_add(share.weight);
            if sum > u32::from(BUCKETS) {
                let remedy = format!("must leave a sum of at most 10000; it is {sum}");
                return Err(FieldError::value(at("weight"), share.weight, remedy));
            }
            shares.push((color, u16::try_from(share.weight).unwrap_or(BUCKETS)));
        }
        Ok(Shares(shares))
    }

    pub fn colors(&self) -> impl Iterator<Item = Color> {
        self.0.iter().map(|(color, _)| *color)
    }

    /// The first bucket and the number of buckets of each share, whole.
    #[cfg(any(test, feature = "sim"))]
    pub fn ranges(&self) -> Vec<(Color, u16, u16)> {
        let mut start = 0_u16;
        let range = |(color, weight): &(Color, u16)| {
            let range = (*color, start, *weight);
            start = start.saturating_add(*weight);
            range
        };
        self.0.iter().map(range).collect()
    }

    /// The color of a bucket while the first share has `first` of its weight. The others keep the
    /// buckets that they have when it is whole, so that a ramp moves nobody but those who come to the
    /// first share.
    pub fn pick(&self, bucket: u16, first: u16) -> Option<Color> {
        let mut start = 0_u16;
        for (place, (color, weight)) in self.0.iter().enumerate() {
            let in_force = if place == 0 { first.min(*weight) } else { *weight };
            if (start..start.saturating_add(in_force)).contains(&bucket) {
                return Some(*color);
            }
            start = start.saturating_add(*weight);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(weights: &[u32]) -> Shares {
        let colors: Vec<String> = (0..weights.len()).map(|n| format!("c{n}")).collect();
        let source: Vec<Share> = weights
            .iter()
            .zip(&colors)
            .map(|(weight, color)| Share { color: color.clone(), weight: *weight })
            .collect();
        Shares::compile(&source, Hash::Unspecified, &colors, "p").unwrap()
    }

    fn whole(shares: &Shares, bucket: u16) -> Option<Color> {
        shares.pick(bucket, BUCKETS)
    }

    #[test]
    fn only_those_in_between_move() {
        let (before, after) = (shares(&[7000, 3000]), shares(&[5000, 5000]));
        for bucket in 0..BUCKETS {
            let moves = whole(&before, bucket) != whole(&after, bucket);
            assert_eq!(moves, (5000..7000).contains(&bucket), "{bucket}");
        }
        let (five, ten) = (shares(&[500]), shares(&[1000]));
        for bucket in 0..BUCKETS {
            assert!(whole(&five, bucket).is_none() || whole(&ten, bucket) == whole(&five, bucket));
        }
    }

    proptest! {
        #[test]
        fn a_larger_first_share_keeps_what_a_smaller_one_has(
            first in 0_u16..=5000, more in 0_u16..5000, bucket in 0..BUCKETS,
        ) {
            let shares = shares(&[5000, 2000, 1000]);
            let (small, large) = (shares.pick(bucket, first), shares.pick(bucket, first.saturating_add(more)));
            prop_assert!(small != Some(0) || large == Some(0));
            // And nobody else moves.
            prop_assert_eq!(small.filter(|color| *color > 0), large.filter(|color| *color > 0));
        }

        #[test]
        fn weights_are_what_they_say(a in 1_u32..3000, b in 1_u32..3000, c in 1_u32..3000) {
            let shares = shares(&[a, b, c]);
            let count = |color| (0..BUCKETS).filter(|bucket| whole(&shares, *bucket) == Some(color)).count();
            prop_assert_eq!([count(0), count(1), count(2)], [a, b, c].map(|weight| weight as usize));
        }
    }
}
