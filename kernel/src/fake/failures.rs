//! Calls that are to fail.

/// Failures asked for, by operation.
#[derive(Debug)]
pub(super) struct CallFailures<O> {
    /// Operation, calls to go until the failing one (0: every call), errno.
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

    /// Counts a call; the errno if it is to fail.
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
