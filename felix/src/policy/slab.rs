//! Values under numbers of four octets, which sets of numbers keep compactly; and texts that stand under a number while
//! somebody holds them.

use std::collections::HashMap;
use std::sync::Arc;

/// Keeps values under numbers that it hands out; a number that is free is handed out again.
#[derive(Debug)]
pub(crate) struct Slab<T>(slab::Slab<T>);

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self(slab::Slab::new())
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        number(self.0.insert(value))
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.0.get(place(id))
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.0.get_mut(place(id))
    }

    /// Replaces the value under a number that was handed out; returns the former value.
    pub(crate) fn put(&mut self, id: u32, value: T) -> Option<T> {
        self.get_mut(id).map(|known| std::mem::replace(known, value))
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        self.0.try_remove(place(id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.0.iter().map(|(place, value)| (number(place), value))
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// Keeps texts under numbers, each as long as it has a holder.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    by_text: HashMap<Arc<str>, u32>,
    /// The texts, each with the number of its holders.
    texts: Slab<(Arc<str>, u32)>,
}

impl Texts {
    /// Gives the number of a text and counts one more holder of it.
    pub(crate) fn hold(&mut self, text: &str) -> u32 {
        if let Some(id) = self.by_text.get(text) {
            if let Some((_, holders)) = self.texts.get_mut(*id) {
                *holders += 1;
            }
            return *id;
        }
        let text: Arc<str> = text.into();
        let id = self.texts.insert((Arc::clone(&text), 1));
        self.by_text.insert(text, id);
        id
    }

    /// Counts one holder of the text less; the text is forgotten when none is left.
    pub(crate) fn release(&mut self, id: u32) {
        if let Some((text, holders)) = self.texts.get_mut(id) {
            *holders -= 1;
            if *holders == 0 {
                self.by_text.remove(text);
                self.texts.remove(id);
            }
        }
    }

    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    pub(crate) fn text(&self, id: u32) -> &str {
        self.texts.get(id).map_or("", |(text, _)| text)
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.texts.len()
    }
}
