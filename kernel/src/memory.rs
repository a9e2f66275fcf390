//! The memory of this process.

/// Gives free memory back to the system: glibc keeps what a reading of thousands of objects has taken at its peak.
#[expect(unsafe_code, reason = "neither std nor nix has malloc_trim")]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and locks what it looks at; it may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
