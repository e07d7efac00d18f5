//! The moments at which a writer may die: tests let it, anything else passes by.

/// A moment between two stores.
#[cfg(not(all(test, feature = "nginx-objs")))]
#[inline(always)]
pub(super) fn may_come() {}

#[cfg(all(test, feature = "nginx-objs"))]
pub(super) use in_tests::{may_come, survived};

/// Death by panic: the guard opens the mutex, as nginx's master does for a worker that died.
#[cfg(all(test, feature = "nginx-objs"))]
mod in_tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        /// Moments until death.
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// A moment between two stores.
    pub fn may_come() {
        let left = LEFT.get();
        LEFT.set(left.wrapping_sub(1));
        if left == 0 {
            resume_unwind(Box::new(()));
        }
    }

    /// Runs `work`, which dies after so many moments; false if it did.
    pub fn survived(moments: usize, work: impl FnOnce()) -> bool {
        LEFT.set(moments);
        let survived = catch_unwind(AssertUnwindSafe(work)).is_ok();
        LEFT.set(usize::MAX);
        survived
    }
}
