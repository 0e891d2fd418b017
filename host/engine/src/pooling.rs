//! The mean of a prompt's hidden states. Never depends on how the prompt was cut: rows are added one
//! by one in order of position, in f64.

/// Hidden states of one sequence, summed up to some position.
#[derive(Debug, Default)]
pub(crate) struct MeanPool {
    sum: Vec<f64>,
    rows: usize,
}

impl MeanPool {
    /// Takes the rows from `start` on. Rows that come again after a preemption are known already.
    pub(crate) fn add<'a>(&mut self, start: usize, rows: impl Iterator<Item = &'a [f32]>) {
        for (offset, row) in rows.enumerate() {
            if start + offset != self.rows {
                continue;
            }
            self.sum.resize(row.len(), 0.0);
            for (sum, value) in self.sum.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
            self.rows += 1;
        }
    }

    /// The mean of all rows, `[hidden_size]`.
    pub(crate) fn mean(&self) -> Vec<f32> {
        let rows = self.rows.max(1) as f64;
        self.sum.iter().map(|sum| (sum / rows) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_repeats_change_no_bit() {
        let rows: Vec<Vec<f32>> = (0..9)
            .map(|row| (0..5).map(|at| ((row * 7 + at * 3) as f32).sin() * 1e3).collect())
            .collect();
        let mut whole = MeanPool::default();
        let of = |range: std::ops::Range<usize>| rows[range].iter().map(Vec::as_slice);
        whole.add(0, of(0..9));
        for cut in 1..9 {
            let mut pool = MeanPool::default();
            pool.add(0, of(0..cut));
            // As after a preemption in between.
            pool.add(0, of(0..cut.min(4)));
            pool.add(cut, of(cut..9));
            assert_eq!(pool.mean(), whole.mean(), "cut at {cut}");
        }
        let expect: f64 = rows.iter().map(|row| f64::from(row[2])).sum::<f64>() / 9.0;
        assert_eq!(whole.mean()[2], expect as f32);
        assert_eq!(MeanPool::default().mean(), Vec::<f32>::new());
    }
}
