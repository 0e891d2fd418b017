//! Whether guessing pays for one sequence: how often its guesses were right, against what a row
//! costs. It changes how many guesses are made, never what is answered.

use crate::config::SpeculativeConfig;

/// Weight of the last verification in the running share of right guesses.
const LEARNING: f32 = 0.25;
/// Right guesses are expected to be this frequent until some were made.
const OPTIMISM: f32 = 0.6;
/// A guess has to be right so many times as often as it would take to break even: both are estimates.
const MARGIN: f32 = 1.2;
/// Tokens after which a sequence whose guesses do not pay tries one again.
const PATIENCE: u32 = 16;

/// What is known of one sequence's guesses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speculation {
    /// Share of guesses that were right, the last counting most.
    right: f32,
    /// Tokens since guessing stopped paying.
    idle: u32,
}

impl Default for Speculation {
    fn default() -> Self {
        Self { right: OPTIMISM, idle: 0 }
    }
}

impl Speculation {
    /// How many guesses to make now. `row_share` is the share of a step's time that grows with its
    /// rows: a guess pays if it is right more often than that. All rows paid for already, each token
    /// would cost `row_share` of what it costs now.
    pub(crate) fn count(&mut self, config: &SpeculativeConfig, row_share: f32) -> usize {
        let most = config.num_speculative_tokens;
        let row_share = row_share * MARGIN;
        if self.right > row_share {
            self.idle = 0;
            // The n-th guess is right if all before it are: make those that pay.
            let mut chance = self.right;
            let pays = (1..most).take_while(|_| {
                chance *= self.right;
                chance > row_share
            });
            return 1 + pays.count();
        }
        self.idle += 1;
        match self.idle >= PATIENCE {
            true => {
                self.idle = 0;
                1
            }
            false => 0,
        }
    }

    /// Learns that of `drafted` guesses the first `accepted` were right.
    pub(crate) fn learn(&mut self, drafted: usize, accepted: usize) {
        // Behind the first wrong one nothing is known.
        let judged = drafted.min(accepted + 1);
        if judged > 0 {
            let share = accepted as f32 / judged as f32;
            self.right += LEARNING * (share - self.right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(speculation: &mut Speculation, row_share: f32, tokens: usize) -> usize {
        let config = SpeculativeConfig::default();
        (0..tokens).map(|_| speculation.count(&config, row_share)).sum()
    }

    #[test]
    fn guesses_stop_when_they_are_wrong_and_are_tried_again_now_and_then() {
        let mut speculation = Speculation::default();
        assert!(made(&mut speculation, 0.3, 1) >= 1);
        for _ in 0..10 {
            speculation.learn(4, 0);
        }
        assert_eq!(made(&mut speculation, 0.3, 160), 10, "one in sixteen tokens");
        for _ in 0..20 {
            speculation.learn(1, 1);
        }
        assert_eq!(made(&mut speculation, 0.3, 10), 40, "all of them again");
    }

    #[test]
    fn guesses_stop_where_rows_are_all_that_costs() {
        let mut sure = Speculation::default();
        (0..40).for_each(|_| sure.learn(4, 4));
        assert_eq!(made(&mut sure, 0.5, 1), 4);
        let mut unsure = Speculation::default();
        assert_eq!(made(&mut unsure, 0.95, 15), 0, "a full batch");
        assert!(made(&mut unsure, 0.1, 1) > 1, "a step that costs the same whatever is in it");
    }

    #[test]
    fn what_stands_behind_a_wrong_guess_is_not_judged() {
        let (mut first, mut second) = (Speculation::default(), Speculation::default());
        first.learn(4, 1);
        second.learn(2, 1);
        assert_eq!(first.right.to_bits(), second.right.to_bits());
        first.learn(0, 0);
        assert_eq!(first.right.to_bits(), second.right.to_bits());
    }
}
