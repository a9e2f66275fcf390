//! What is said of the settings elsewhere, against what is accepted.

#[cfg(test)]
mod documentation;
