//! Keeps transfers, and the making of bridges, out of snapshots: what spans two sessions must be seen
//! by a snapshot wholly or not at all, although it asks one worker after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is on which side.
#[derive(Default)]
pub(crate) struct MoveGate {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    moves: usize,
    snapshots: usize,
}

/// Held while a move is under way.
pub(crate) struct MovePass(Arc<MoveGate>);

/// Held while a snapshot is made.
pub(crate) struct SnapshotPass(Arc<MoveGate>);

impl MoveGate {
    /// A move begins, unless a snapshot is being made; then it has to wait.
    pub(crate) fn begin_move(self: &Arc<Self>) -> Option<MovePass> {
        let mut inside = self.lock();
        if inside.snapshots > 0 {
            return None;
        }
        inside.moves += 1;
        Some(MovePass(Arc::clone(self)))
    }

    /// No move begins from now on; those under way have to be waited for.
    pub(crate) fn begin_snapshot(self: &Arc<Self>) -> SnapshotPass {
        self.lock().snapshots += 1;
        SnapshotPass(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotPass {
    /// Whether every move that had begun before is over.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.lock().moves == 0
    }
}

impl Drop for MovePass {
    fn drop(&mut self) {
        self.0.lock().moves -= 1;
    }
}

impl Drop for SnapshotPass {
    fn drop(&mut self) {
        self.0.lock().snapshots -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_waits_for_moves_and_moves_for_the_snapshot() {
        let gate = Arc::new(MoveGate::default());
        let first = gate.begin_move().expect("nobody is in the way");
        let second = gate.begin_move().expect("moves do not exclude each other");
        let snapshot = gate.begin_snapshot();
        assert!(!snapshot.is_alone());
        assert!(gate.begin_move().is_none());
        drop(first);
        assert!(!snapshot.is_alone());
        drop(second);
        assert!(snapshot.is_alone());
        let another = gate.begin_snapshot();
        drop(snapshot);
        assert!(gate.begin_move().is_none());
        drop(another);
        assert!(gate.begin_move().is_some());
    }
}
