//! Random streams by name, and the distributions drawn from them. Knows nothing of shops.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of random numbers that is the same on every machine.
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream `label` (at most 16 bytes count) of `seed` at `place`. Different names give independent streams.
    pub(super) fn new(seed: u64, label: &str, place: u64) -> Self {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&place.to_le_bytes());
        for (to, from) in key[16..].iter_mut().zip(label.bytes()) {
            *to = from;
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 random bits.
    pub(super) fn id(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.bits())
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform in 0..n; 0 where n is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in low..=high.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(1) as u64) as i64
    }

    /// One of `choices`, which must not be empty.
    pub(super) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Exponential of the given mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Standard normal, by Box and Muller; the second value isn't kept, so that a draw has no memory.
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma of the given shape and scale, by Marsaglia and Tsang (2000).
    pub(super) fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0, scale) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
    }

    /// Failures before a success of probability `p`.
    pub(super) fn geometric(&mut self, p: f64) -> u64 {
        if p >= 1.0 {
            return 0;
        }
        ((1.0 - self.unit()).ln() / (1.0 - p).ln()) as u64
    }
}

/// Places of a share of rows: asks the stream once a hit rather than once a row.
pub(super) struct Hits {
    stream: Stream,
    share: f64,
    left: u64,
}

impl Hits {
    /// Each row is hit with probability `share`.
    pub(super) fn new(mut stream: Stream, share: f64) -> Self {
        let left = if share > 0.0 { stream.geometric(share) } else { u64::MAX };
        Self { stream, share, left }
    }

    /// For the next row: the stream to draw details from, if it is hit.
    pub(super) fn next(&mut self) -> Option<&mut Stream> {
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        self.left = self.stream.geometric(self.share);
        Some(&mut self.stream)
    }
}

/// Choice by weight in constant time (Vose's alias method).
pub(super) struct Weighted {
    slots: Vec<(f64, u32)>,
}

impl Weighted {
    /// Weights are at least 0 and not all 0; at most 2^32 of them.
    pub(super) fn new(weights: &[f64]) -> Self {
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        let mut slots: Vec<(f64, u32)> = weights.iter().map(|w| (w / mean, 0)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..slots.len()).partition(|&i| slots[i].0 < 1.0);
        while let (Some(lean), Some(&rich)) = (small.pop(), large.last()) {
            slots[lean].1 = rich as u32;
            slots[rich].0 -= 1.0 - slots[lean].0;
            if slots[rich].0 < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        // What is left over differs from 1 by rounding only.
        for i in small.into_iter().chain(large) {
            slots[i] = (1.0, i as u32);
        }
        Self { slots }
    }

    /// Index of a weight.
    pub(super) fn draw(&self, stream: &mut Stream) -> usize {
        self.at(stream.bits())
    }

    /// Index of a weight, from random bits.
    pub(super) fn at(&self, bits: u64) -> usize {
        let wide = u128::from(bits) * self.slots.len() as u128;
        let slot = (wide >> 64) as usize;
        match self.slots.get(slot) {
            Some(&(keep, other)) if unit(wide as u64) >= keep => other as usize,
            _ => slot,
        }
    }
}

/// Random bits that belong to `n` alone, for what must be found again without playing a stream; distinct `n` give distinct bits.
pub(super) fn bits_of(seed: u64, label: u64, n: u64) -> u64 {
    scramble(n ^ scramble(seed ^ scramble(label)))
}

/// An identifier that belongs to `n` alone; distinct `n` below 2^64 give distinct ones.
pub(super) fn id_of(seed: u64, label: u64, n: u64) -> u128 {
    let high = bits_of(seed, label, n);
    u128::from(high) << 64 | u128::from(scramble(high ^ n.rotate_left(32)))
}

/// The finalizer of splitmix64: a bijection.
fn scramble(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 53 bits as a number in [0, 1).
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_each_part_of_their_name() {
        let first = |seed, label, place| Stream::new(seed, label, place).bits();
        assert_eq!(first(1, "orders", 2), first(1, "orders", 2));
        assert_ne!(first(1, "orders", 2), first(2, "orders", 2));
        assert_ne!(first(1, "orders", 2), first(1, "items", 2));
        assert_ne!(first(1, "orders", 2), first(1, "orders", 3));
    }

    #[test]
    fn gamma_has_its_mean_and_variance() {
        for (shape, scale) in [(0.5, 2.0), (3.0, 10.0)] {
            let mut stream = Stream::new(7, "gamma", 0);
            let drawn: Vec<f64> = (0..40_000).map(|_| stream.gamma(shape, scale)).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
            assert!((mean / (shape * scale) - 1.0).abs() < 0.03, "mean {mean}");
            assert!((variance / (shape * scale * scale) - 1.0).abs() < 0.08, "variance {variance}");
        }
    }

    #[test]
    fn weighted_choices_follow_weights() {
        let weights = [5.0, 0.0, 1.0, 4.0];
        let choice = Weighted::new(&weights);
        let mut stream = Stream::new(7, "weights", 0);
        let mut seen = [0_u32; 4];
        for _ in 0..40_000 {
            seen[choice.draw(&mut stream)] += 1;
        }
        assert_eq!(seen[1], 0);
        for (count, weight) in seen.iter().zip(weights) {
            assert!((f64::from(*count) / 4000.0 - weight).abs() < 0.15, "{seen:?}");
        }
    }

    #[test]
    fn hits_come_at_their_share() {
        let mut hits = Hits::new(Stream::new(7, "hits", 0), 0.05);
        let hit = (0..100_000).filter(|_| hits.next().is_some()).count();
        assert!((4500..5500).contains(&hit), "{hit}");
        let mut never = Hits::new(Stream::new(7, "hits", 0), 0.0);
        assert!((0..1000).all(|_| never.next().is_none()));
        let mut always = Hits::new(Stream::new(7, "hits", 0), 1.0);
        assert!((0..1000).all(|_| always.next().is_some()));
    }
}
