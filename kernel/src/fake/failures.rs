//! Failures that a test has asked for.

/// The failures asked for, by operation.
#[derive(Debug)]
pub(super) struct CallFailures<O> {
    /// For each: the operation, how many calls are left until the one that fails (0: every call fails), and the error
    /// number.
    calls: Vec<(O, usize, i32)>,
}

impl<O> Default for CallFailures<O> {
    fn default() -> Self {
        Self { calls: Vec::new() }
    }
}

impl<O: PartialEq> CallFailures<O> {
    pub(super) fn on_call(&mut self, operation: O, nth: usize, errno: i32) {
        self.calls.push((operation, nth.max(1), errno));
    }

    pub(super) fn always(&mut self, operation: O, errno: i32) {
        self.calls.push((operation, 0, errno));
    }

    /// Counts a call; returns the error number if it is to fail.
    pub(super) fn of_call(&mut self, operation: O) -> Option<i32> {
        let mut failure = None;
        self.calls.retain_mut(|(which, left, errno)| {
            if *which != operation {
                return true;
            }
            if *left <= 1 {
                failure = failure.or(Some(*errno));
            }
            let spent = *left == 1;
            *left = left.saturating_sub(1);
            !spent
        });
        failure
    }
}

#[cfg(test)]
mod tests;
