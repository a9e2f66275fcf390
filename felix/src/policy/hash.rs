//! A hash that is the same in every life of the agent: names of sets and classes in the kernel come from it.
//!
//! SipHash-2-4 (Aumasson and Bernstein, 2012): who writes a policy cannot aim at the set of another's.

/// Takes values with their lengths, so that different sequences of values differ as octets.
#[derive(Debug, Default)]
pub(crate) struct StableHasher(Vec<u8>);

impl StableHasher {
    /// A hasher for one kind of thing.
    pub(crate) fn of(kind: &str) -> Self {
        let mut hasher = Self::default();
        hasher.text(kind);
        hasher
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.number(octets.len().try_into().unwrap_or(u64::MAX));
        self.0.extend(octets);
    }

    pub(crate) fn finish(&self) -> u64 {
        sip(0x6d61_6e78_2070_6f6c, 0x6963_7920_6e61_6d65, &self.0)
    }
}

fn sip(k0: u64, k1: u64, octets: &[u8]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut words = octets.chunks_exact(8);
    for word in &mut words {
        absorb(&mut v, little_endian(word));
    }
    let length = u64::try_from(octets.len()).unwrap_or(u64::MAX) << 56;
    absorb(&mut v, length | little_endian(words.remainder()));
    let [_, _, v2, _] = &mut v;
    *v2 ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v.iter().fold(0, |hash, word| hash ^ word)
}

fn little_endian(octets: &[u8]) -> u64 {
    octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

fn absorb(v: &mut [u64; 4], word: u64) {
    let [_, _, _, v3] = v;
    *v3 ^= word;
    round(v);
    round(v);
    let [v0, ..] = v;
    *v0 ^= word;
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_siphash_2_4_as_the_paper_prints_it() {
        let octets: Vec<u8> = (0..15).collect();
        assert_eq!(sip(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908, &octets), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn texts_that_are_joined_differ_from_texts_that_are_apart() {
        let hash = |texts: &[&str]| {
            let mut hasher = StableHasher::of("test");
            texts.iter().for_each(|text| hasher.text(text));
            hasher.finish()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
