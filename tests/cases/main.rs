//! Tests that need a kernel, a peer or the whole workspace. Each area has its own file.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod lab_itself;
