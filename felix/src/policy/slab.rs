//! Places with numbers, used again when they are free; and texts that stand under a number while somebody holds them.

use std::collections::HashMap;
use std::sync::Arc;

/// Values under numbers that are given by it.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    /// The numbers of empty places.
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.put(id, value);
            return id;
        }
        self.entries.push(Some(value));
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.entries.get(at(id))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.entries.get_mut(at(id))?.as_mut()
    }

    /// Replaces what is under a number that was given.
    pub(crate) fn put(&mut self, id: u32, value: T) -> Option<T> {
        self.entries.get_mut(at(id))?.replace(value)
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.entries.get_mut(at(id))?.take()?;
        self.free.push(id);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.entries).filter_map(|(id, entry)| Some((id, entry.as_ref()?)))
    }
}

fn at(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// Texts under numbers, counted.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    by_text: HashMap<Arc<str>, u32>,
    /// The text, and how many hold it.
    texts: Slab<(Arc<str>, u32)>,
}

impl Texts {
    /// The number of a text, held once more.
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

    /// Held once less; forgotten when nobody holds it.
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
