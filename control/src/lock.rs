//! Locking that outlives a panic: every critical section of this crate leaves its data whole at
//! each step, so a poisoned mutex is still good.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The guard of `mutex`, also after another thread panicked while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
