//! The search for the highest rate that is sustained: halving what is left between a rate that was and one that was not.

/// What is known so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    sustained: f64,
    too_much: f64,
}

impl Search {
    /// Below a rate that is taken for too much.
    pub(crate) fn below(too_much: f64) -> Self {
        Self { sustained: 0.0, too_much }
    }

    /// The rate to try next.
    pub(crate) fn next(&self) -> f64 {
        f64::midpoint(self.sustained, self.too_much)
    }

    /// What became of the rate that was tried.
    pub(crate) fn tell(&mut self, sustained: bool) {
        let tried = self.next();
        *(if sustained { &mut self.sustained } else { &mut self.too_much }) = tried;
    }

    /// The highest rate that was sustained; 0 if none was.
    pub(crate) fn found(&self) -> f64 {
        self.sustained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(most: f64, steps: u32, sustains: impl Fn(f64) -> bool) -> f64 {
        let mut search = Search::below(most);
        for _ in 0..steps {
            search.tell(sustains(search.next()));
        }
        search.found()
    }

    #[test]
    fn each_step_halves_what_is_not_known() {
        let found = search(1000.0, 5, |rate| rate <= 700.0);
        assert!(found <= 700.0 && found > 700.0 - 1000.0 / 32.0, "{found}");
        assert_eq!(search(1000.0, 5, |_| false), 0.0);
        assert!(search(1000.0, 5, |_| true) > 960.0);
    }
}
