//! Octets read as a script.

/// What is left of a script. Behind its end there are zeros.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next octets, as many as there are up to `count`.
    pub(crate) fn octets(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One of the items; nothing of none.
    pub(crate) fn choice<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let octet = usize::from(self.octet());
        (!items.is_empty()).then(|| items[octet % items.len()])
    }
}

/// A message of this type with this body, cut where a message may be no longer.
pub(crate) fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(4_096 - 19)];
    let mut message = vec![0xff; 16];
    message.extend((19 + body.len() as u16).to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}
