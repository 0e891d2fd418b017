//! Tokens of a row that may be kept, and the cuts among them. It sorts no more than a few.

use std::cmp::Ordering;

use super::numbers::share_of;

/// Tokens below which sorting is cheaper than looking for a narrower range.
const FEW: usize = 48;

/// Tokens that may be kept, in the order of tokens.
#[derive(Debug, Default)]
pub(super) struct Near {
    pub(super) logits: Vec<f32>,
    pub(super) tokens: Vec<u32>,
    pub(super) weights: Vec<u64>,
    /// Places of some of them, to be ordered.
    places: Vec<u32>,
    /// Memory for a part of those.
    split: Vec<u32>,
}

impl Near {
    /// Weights of all together.
    pub(super) fn weigh(&self) -> u64 {
        self.weights.iter().sum()
    }

    /// Keeps those whose logit, token and weight `wanted` wants.
    pub(super) fn keep(&mut self, wanted: impl Fn(f32, u32, u64) -> bool) {
        let mut kept = 0;
        for place in 0..self.tokens.len() {
            let (logit, token) = (self.logits[place], self.tokens[place]);
            let weight = self.weights[place];
            (self.logits[kept], self.tokens[kept], self.weights[kept]) = (logit, token, weight);
            kept += usize::from(wanted(logit, token, weight));
        }
        self.logits.truncate(kept);
        self.tokens.truncate(kept);
        self.weights.truncate(kept);
    }

    /// Keeps those that are as likely as the one at `place`, or likelier.
    fn keep_to(&mut self, place: u32) {
        let (last, bound) = (self.logits[place as usize], self.tokens[place as usize]);
        self.keep(|logit, token, _| logit > last || (logit == last && token <= bound));
    }

    /// Places of all.
    fn list(&mut self) {
        self.places.clear();
        self.places.extend(0..self.tokens.len() as u32);
    }

    /// Orders the places: likelier first; of equals, the lower token.
    fn rank(&mut self) {
        self.places.sort_unstable_by(|a, b| order(&self.logits, *a, *b));
    }

    /// All tokens, likelier first; of equals, the lower one.
    pub(super) fn ranked(&mut self) -> Vec<usize> {
        self.list();
        self.rank();
        self.places.iter().map(|place| self.tokens[*place as usize] as usize).collect()
    }

    /// Keeps the `count` likeliest.
    pub(super) fn keep_likeliest(&mut self, count: usize) {
        if count < self.tokens.len() {
            self.list();
            let logits = &self.logits;
            let last =
                self.places.select_nth_unstable_by(count - 1, |a, b| order(logits, *a, *b)).1;
            let last = *last;
            self.keep_to(last);
        }
    }

    /// Keeps the fewest likeliest that weigh `need` together.
    pub(super) fn keep_share(&mut self, need: u64) {
        self.list();
        // What those weigh that are likelier than all that are listed.
        let mut above = 0;
        while self.places.len() > FEW {
            let (least, most) = self.range();
            let middle = least + (most - least) * 0.5;
            // Not where they are equal or neighbours, nor where one is negative infinity.
            let splits = middle > least;
            if !splits {
                break;
            }
            let likelier = self.split(middle);
            if above + likelier >= need {
                std::mem::swap(&mut self.places, &mut self.split);
            } else {
                above += likelier;
            }
        }
        self.rank();
        let last = self.places.iter().find(|place| {
            above += self.weights[**place as usize];
            above >= need
        });
        if let Some(last) = last.copied() {
            self.keep_to(last);
        }
    }

    /// Smallest and largest logit of those that are listed.
    fn range(&self) -> (f32, f32) {
        let logits = self.places.iter().map(|place| self.logits[*place as usize]);
        logits.fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), logit| {
            (if logit < least { logit } else { least }, if logit > most { logit } else { most })
        })
    }

    /// Puts those listed whose logit is `floor` at least into `split`, and leaves the others; what the
    /// former weigh together.
    fn split(&mut self, floor: f32) -> u64 {
        self.split.clear();
        self.split.resize(self.places.len(), 0);
        let (mut likelier, mut others, mut weight) = (0, 0, 0);
        for at in 0..self.places.len() {
            let place = self.places[at];
            let is_likelier = self.logits[place as usize] >= floor;
            self.split[likelier] = place;
            self.places[others] = place;
            likelier += usize::from(is_likelier);
            others += usize::from(!is_likelier);
            weight += if is_likelier { self.weights[place as usize] } else { 0 };
        }
        self.split.truncate(likelier);
        self.places.truncate(others);
        weight
    }

    /// The token at which the running sum of weights passes `share` of all.
    pub(super) fn draw(&self, share: u64) -> usize {
        let mut left = share_of(self.weigh(), share);
        for (token, weight) in self.tokens.iter().zip(&self.weights) {
            if left < *weight {
                return *token as usize;
            }
            left -= weight;
        }
        unreachable!("the likeliest is a candidate, and has a weight")
    }
}

/// Likelier first; of equals, the lower place, which is that of the lower token.
fn order(logits: &[f32], a: u32, b: u32) -> Ordering {
    let likelier = logits[b as usize].partial_cmp(&logits[a as usize]);
    likelier.unwrap_or(Ordering::Equal).then(a.cmp(&b))
}
