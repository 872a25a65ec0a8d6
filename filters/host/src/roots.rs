//! The policies that a VM runs: one root context for each.
//!
//! A new root comes with each policy edit, and the module is not told when an old one goes: the
//! callback for that would be called for every request as well. But a root that is gone no longer
//! ticks. Time is counted in ticks of the newest root: were it counted by the clock, a process that
//! stood still for a while would lose all but the first that ticks again.

/// A root is dropped once the newest has ticked this often without it: ten seconds.
const MISSED_TICKS: u32 = 100;

#[derive(Debug)]
pub struct Roots<T> {
    roots: Vec<Root<T>>,
}

#[derive(Debug)]
struct Root<T> {
    id: u32,
    missed: u32,
    value: T,
}

impl<T> Default for Roots<T> {
    fn default() -> Roots<T> {
        Roots { roots: Vec::new() }
    }
}

impl<T> Roots<T> {
    pub fn insert(&mut self, id: u32, value: T) {
        self.roots.retain(|root| root.id != id);
        self.roots.push(Root { id, missed: 0, value });
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        // Requests go to the newest, as a rule.
        self.roots.iter_mut().rev().find(|root| root.id == id).map(|root| &mut root.value)
    }

    /// Notes the tick of a root; gives those that are gone, for a last look.
    pub fn tick(&mut self, id: u32) -> Vec<T> {
        let is_newest = self.roots.last().is_some_and(|root| root.id == id);
        for root in &mut self.roots {
            if root.id == id {
                root.missed = 0;
            } else if is_newest {
                root.missed = root.missed.saturating_add(1);
            }
        }
        let gone = |root: &mut Root<T>| root.missed > MISSED_TICKS;
        self.roots.extract_if(.., gone).map(|root| root.value).collect()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.roots.iter_mut().map(|root| &mut root.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_stops_ticking_is_dropped() {
        let mut roots = Roots::default();
        roots.insert(1, "old");
        roots.insert(2, "new");
        let gone: Vec<_> = (0..300).flat_map(|_| roots.tick(2)).collect();
        assert_eq!(gone, ["old"]);
        assert_eq!(roots.get_mut(1), None);
        assert_eq!(roots.get_mut(2), Some(&mut "new"));
    }

    /// Edits without end, each dropped root ticking no more.
    #[test]
    fn steady_edits_keep_few() {
        let mut roots = Roots::default();
        for edit in 0..1000 {
            roots.insert(edit, edit);
            (0..50).for_each(|_| drop(roots.tick(edit)));
        }
        assert!(roots.values_mut().count() <= 4);
    }

    #[test]
    fn roots_that_tick_in_turn_stay() {
        let mut roots = Roots::default();
        (0..5).for_each(|id| roots.insert(id, id));
        for _ in 0..1000 {
            for id in 0..5 {
                assert!(roots.tick(id).is_empty());
            }
        }
    }
}
