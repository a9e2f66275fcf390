//! A set of small numbers that stays small itself: a list of few, a bitmap of many.

/// Numbers below some thousands of millions, dense enough that a bitmap up to the highest of them is worth it at times.
#[derive(Debug, Clone)]
pub(crate) struct IdSet(Form);

#[derive(Debug, Clone)]
enum Form {
    /// The numbers themselves, ascending.
    Few(Vec<u32>),
    /// One bit for each number up to the highest, and how many bits are set.
    Many { words: Vec<u64>, len: usize },
}

impl Default for IdSet {
    fn default() -> Self {
        Self(Form::Few(Vec::new()))
    }
}

/// Up to this many numbers, a list always takes less room than a bitmap.
const FEW: usize = 64;

impl IdSet {
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Form::Few(ids) => ids.len(),
            Form::Many { len, .. } => *len,
        }
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        match &self.0 {
            Form::Few(ids) => ids.binary_search(&id).is_ok(),
            Form::Many { words, .. } => {
                let (word, bit) = place(id);
                words.get(word).is_some_and(|word| word & bit != 0)
            }
        }
    }

    /// Adds a number; returns whether it was new.
    pub(crate) fn insert(&mut self, id: u32) -> bool {
        let inserted = match &mut self.0 {
            Form::Few(ids) => match ids.binary_search(&id) {
                Ok(_) => false,
                Err(at) => {
                    ids.insert(at, id);
                    true
                }
            },
            Form::Many { words, len } => {
                let (at, bit) = place(id);
                if at >= words.len() {
                    words.resize(at + 1, 0);
                }
                let free = words.get_mut(at).is_some_and(|word| std::mem::replace(word, *word | bit) & bit == 0);
                *len += usize::from(free);
                free
            }
        };
        self.fit();
        inserted
    }

    /// Removes a number; returns whether it was there.
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        let removed = match &mut self.0 {
            Form::Few(ids) => ids.binary_search(&id).map(|at| ids.remove(at)).is_ok(),
            Form::Many { words, len } => {
                let (at, bit) = place(id);
                let set = words.get_mut(at).is_some_and(|word| std::mem::replace(word, *word & !bit) & bit != 0);
                *len -= usize::from(set);
                set
            }
        };
        self.fit();
        removed
    }

    /// The numbers in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (few, many) = match &self.0 {
            Form::Few(ids) => (ids.as_slice(), [].as_slice()),
            Form::Many { words, .. } => ([].as_slice(), words.as_slice()),
        };
        let bits = (0_u32..).step_by(64).zip(many).flat_map(|(base, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(base + bit)
            })
        });
        few.iter().copied().chain(bits)
    }

    /// Changes to the form that takes less room. Where the two are close the set keeps its form, so that it does not
    /// change back and forth.
    fn fit(&mut self) {
        match &self.0 {
            Form::Few(ids) if ids.len() > FEW => {
                let words = ids.last().map_or(0, |last| place(*last).0 + 1);
                if ids.len() > words * 2 {
                    let mut bits = vec![0_u64; words];
                    for id in ids {
                        let (at, bit) = place(*id);
                        if let Some(word) = bits.get_mut(at) {
                            *word |= bit;
                        }
                    }
                    self.0 = Form::Many { len: ids.len(), words: bits };
                }
            }
            Form::Many { words, len } if *len < FEW / 2 || *len * 2 < words.len() => {
                self.0 = Form::Few(self.iter().collect());
            }
            Form::Few(_) | Form::Many { .. } => {}
        }
    }
}

/// Where the bitmap keeps a number: the index of the word, and the bit in it.
fn place(id: u32) -> (usize, u64) {
    (usize::try_from(id / 64).unwrap_or(usize::MAX), 1 << (id % 64))
}

#[cfg(test)]
mod tests;
