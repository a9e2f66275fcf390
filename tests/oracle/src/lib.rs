//! What NetworkPolicy means, by brute force from the text of its specification. Tests only.
