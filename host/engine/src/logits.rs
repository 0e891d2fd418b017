//! The logits of a step where the model left them: read in place on the host; elsewhere tokens are drawn
//! where the logits lie, and only rows that somebody has to look at are copied.
//!
//! It never decides which rows those are: a sequence knows what its next token depends on.

use candle_core::{Storage, Tensor};
use kernels::{NOT_FINITE, SampleParams};
use request::TokenId;

/// Where logits lie, and what can be had of them there.
pub trait LogitsPlace: Send + Sync {
    /// Whether the host reads these logits, `[rows, vocab]`, where they lie.
    fn is_host(&self, logits: &Tensor) -> bool;

    /// A token for each row, [`kernels::NOT_FINITE`] for rows that are no distribution: the tokens that
    /// [`kernels::LogitRows`] would choose of the same logits.
    ///
    /// # Errors
    /// What went wrong; it fails the step.
    fn draw(&self, logits: &Tensor, rows: &[SampleParams]) -> Result<Vec<TokenId>, String>;

    /// Copies of some rows, one after another.
    ///
    /// # Errors
    /// What went wrong; it fails the step.
    fn copy(&self, logits: &Tensor, rows: &[u32]) -> Result<Vec<f32>, String>;
}

/// Where the model's device is.
#[derive(Clone, Copy, Debug, Default)]
pub struct DevicePlace;

impl LogitsPlace for DevicePlace {
    fn is_host(&self, logits: &Tensor) -> bool {
        logits.device().is_cpu()
    }

    fn draw(&self, logits: &Tensor, rows: &[SampleParams]) -> Result<Vec<TokenId>, String> {
        kernels::sample(logits, rows).map_err(|error| error.to_string())
    }

    fn copy(&self, logits: &Tensor, rows: &[u32]) -> Result<Vec<f32>, String> {
        let all = logits.dims().first() == Some(&rows.len());
        let copied = match all && rows.iter().enumerate().all(|(at, row)| at == *row as usize) {
            true => logits.flatten_all(),
            false => Tensor::new(rows, logits.device())
                .and_then(|rows| logits.index_select(&rows, 0)?.flatten_all()),
        };
        copied.and_then(|copied| copied.to_vec1()).map_err(|error| error.to_string())
    }
}

/// How a row comes to the host: its token drawn where it lies, or all of it.
pub(crate) type Wish = Option<SampleParams>;

/// What is chosen for a row whose draw nobody looks at.
const UNUSED: SampleParams =
    SampleParams { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, draw: 0.0 };

/// A row on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Row<'a> {
    /// `[vocab]`
    Logits(&'a [f32]),
    /// Drawn where the logits lie.
    Token(TokenId),
}

/// The rows of a step as they came to the host.
pub(crate) struct Rows<'a> {
    floats: &'a [f32],
    width: usize,
    /// Of each row its token, or its place among `floats`; empty where all rows are there.
    came: Vec<Came>,
}

#[derive(Clone, Copy)]
enum Came {
    Token(TokenId),
    Copied(usize),
}

impl<'a> Rows<'a> {
    pub(crate) fn get(&self, row: usize) -> Row<'a> {
        let place = match self.came.get(row) {
            Some(Came::Token(token)) => return Row::Token(*token),
            Some(Came::Copied(place)) => *place,
            None => row,
        };
        Row::Logits(&self.floats[place * self.width..(place + 1) * self.width])
    }
}

/// Reads logits `[rows, width]` in the way that `place` has and that `wishes` says row by row, which the
/// host does not look at. A row that is no distribution is copied whatever was wished: its reader says what is wrong with it.
pub(crate) fn read<R>(
    place: &dyn LogitsPlace,
    (logits, width): (&Tensor, usize),
    wishes: &[Wish],
    reader: impl FnOnce(&Rows<'_>) -> R,
) -> Result<R, String> {
    if place.is_host(logits) {
        return on_host(logits, |floats| reader(&Rows { floats, width, came: Vec::new() }));
    }
    let drawn = match wishes.iter().any(Option::is_some) {
        true => {
            let rows: Vec<_> = wishes.iter().map(|wish| wish.unwrap_or(UNUSED)).collect();
            place.draw(logits, &rows)?
        }
        false => vec![NOT_FINITE; wishes.len()],
    };
    if drawn.len() != wishes.len() {
        return Err(format!("{} tokens for {} rows", drawn.len(), wishes.len()));
    }
    let (mut came, mut wanted) = (Vec::with_capacity(wishes.len()), Vec::new());
    for (row, (wish, token)) in wishes.iter().zip(drawn).enumerate() {
        if wish.is_some() && token != NOT_FINITE {
            came.push(Came::Token(token));
        } else {
            came.push(Came::Copied(wanted.len()));
            wanted.push(row as u32);
        }
    }
    let floats = match wanted.is_empty() {
        true => Vec::new(),
        false => place.copy(logits, &wanted)?,
    };
    if floats.len() != wanted.len() * width {
        return Err(format!("{} logits for {} rows of {width}", floats.len(), wanted.len()));
    }
    Ok(reader(&Rows { floats: &floats, width, came }))
}

/// Reads a tensor where it lies, if that is the host; a copy of it otherwise.
pub(crate) fn on_host<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R, String> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets())
        {
            let floats = storage.as_slice::<f32>().map_err(|error| error.to_string())?;
            return Ok(read(&floats[from..to]));
        }
    }
    let flat = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
    Ok(read(&flat.map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Not the host, whatever the tensor says.
    struct Far;

    impl LogitsPlace for Far {
        fn is_host(&self, _: &Tensor) -> bool {
            false
        }

        fn draw(&self, logits: &Tensor, rows: &[SampleParams]) -> Result<Vec<TokenId>, String> {
            DevicePlace.draw(logits, rows)
        }

        fn copy(&self, logits: &Tensor, rows: &[u32]) -> Result<Vec<f32>, String> {
            DevicePlace.copy(logits, rows)
        }
    }

    #[test]
    fn rows_come_as_they_were_wished() {
        let bad = f32::NAN;
        let floats = [1.0, 2.0, 0.0, 9.0, 3.0, 1.0, 4.0, bad, 5.0, 0.0, 1.0, 7.0];
        let logits = Tensor::new(&floats, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let check = |wishes: [bool; 4], expect: [Option<TokenId>; 4]| {
            let wishes = wishes.map(|wish| wish.then_some(UNUSED)).to_vec();
            let compare = |rows: &Rows<'_>| {
                for (row, expect) in expect.into_iter().enumerate() {
                    let logits = &floats[row * 3..row * 3 + 3];
                    match (rows.get(row), expect) {
                        (Row::Token(token), Some(expect)) => assert_eq!(token, expect),
                        (Row::Logits(found), None) => {
                            let bits = |floats: &[f32]| -> Vec<u32> {
                                floats.iter().map(|f| f.to_bits()).collect()
                            };
                            assert_eq!(bits(found), bits(logits));
                        }
                        other => panic!("row {row}: {other:?}"),
                    }
                }
            };
            read(&Far, (&logits, 3), &wishes, compare).unwrap();
        };
        check([true; 4], [Some(1), Some(0), None, Some(2)]);
        check([false; 4], [None; 4]);
        check([false, true, false, true], [None, Some(0), None, Some(2)]);
    }
    #[test]
    fn the_host_is_read_in_place_and_counts_must_agree() {
        let logits = Tensor::new(&[[1_f32, 2.0], [4.0, 3.0]], &Device::Cpu).unwrap();
        let rows = read(&DevicePlace, (&logits, 2), &[], |rows| match rows.get(1) {
            Row::Logits(row) => row.to_vec(),
            Row::Token(_) => Vec::new(),
        });
        assert_eq!(rows.unwrap(), [4.0, 3.0]);
        for wishes in [vec![Some(UNUSED)], vec![None; 3], vec![Some(UNUSED); 3]] {
            assert!(read(&Far, (&logits, 2), &wishes, |_| ()).is_err());
        }
        assert!(read(&Far, (&logits, 3), &[None; 2], |_| ()).is_err(), "another width");
    }
}
