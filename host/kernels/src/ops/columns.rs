//! The output of a matrix product, cut into tiles of rows by panels of sixteen columns that tasks
//! write at the same time. The cut changes no bit: each element is written by one task alone.

use rayon::prelude::*;

use super::PARALLEL_WORK_MIN;
use crate::aligned::LANES;

/// Panels per task; a multiple of every tile width.
const TASK_PANELS: usize = 8;
/// Rows per task; a multiple of every tile height but the tails.
const TASK_ROWS: usize = 96;

/// What one task computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// First panel.
    pub(crate) panel: usize,
    /// Panels.
    pub(crate) panels: usize,
    /// First row.
    pub(crate) row: usize,
    /// Rows.
    pub(crate) rows: usize,
}

/// The part of the output that one task writes: some rows, some columns.
pub(crate) struct Columns<'a> {
    /// First element of the part.
    first: *mut f32,
    /// Elements from one row to the next.
    stride: usize,
    /// Rows of the part.
    rows: usize,
    /// Columns of the part, within the panels of the task.
    columns: usize,
    lifetime: std::marker::PhantomData<&'a mut [f32]>,
}

impl Columns<'_> {
    /// Up to sixteen consecutive outputs of one row; `row` and `panel` count from the tile's first.
    pub(crate) fn lanes(&mut self, row: usize, panel: usize) -> &mut [f32] {
        let start = panel * LANES;
        assert!(row < self.rows && start < self.columns);
        let len = LANES.min(self.columns - start);
        // SAFETY: `Columns` is made in `for_tiles`, over `rows` rows of `stride` elements that lie
        // inside the output, and no other `Columns` covers these columns of these rows.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride + start), len) }
    }
}

/// Base address of an output that tasks write disjoint parts of.
#[derive(Clone, Copy)]
struct Base(*mut f32);

// SAFETY: tasks write disjoint parts only, see `for_tiles`.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

impl Base {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// Runs `task` for tiles that cover `out`, `[rows, width]`, once; `depth` is the number of inputs, for
/// the choice between one thread and many.
///
/// # Panics
/// If `out` has another length.
pub(crate) fn for_tiles(
    out: &mut [f32],
    (rows, width): (usize, usize),
    depth: usize,
    task: impl Fn(Tile, &mut Columns<'_>) + Sync,
) {
    assert_eq!(out.len(), rows * width);
    if rows == 0 || width == 0 {
        return;
    }
    let panels = width.div_ceil(LANES);
    let base = Base(out.as_mut_ptr());
    let run = |tile: Tile| {
        let columns = (tile.panels * LANES).min(width - tile.panel * LANES);
        // SAFETY: the first row and column of the tile lie inside the output. Tiles cover disjoint
        // ranges of rows and panels, so no element is in two `Columns`.
        let first = unsafe { base.get().add(tile.row * width + tile.panel * LANES) };
        let lifetime = std::marker::PhantomData;
        let mut columns = Columns { first, stride: width, rows: tile.rows, columns, lifetime };
        task(tile, &mut columns);
    };
    if rows * depth * width <= PARALLEL_WORK_MIN {
        return run(Tile { panel: 0, panels, row: 0, rows });
    }
    let (panel_tasks, row_tasks) = (panels.div_ceil(TASK_PANELS), rows.div_ceil(TASK_ROWS));
    (0..panel_tasks * row_tasks).into_par_iter().with_max_len(1).for_each(|index| {
        let panel = index / row_tasks * TASK_PANELS;
        let row = index % row_tasks * TASK_ROWS;
        let (panels, rows) = (TASK_PANELS.min(panels - panel), TASK_ROWS.min(rows - row));
        run(Tile { panel, panels, row, rows });
    });
}
