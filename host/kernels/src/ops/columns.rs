//! The outputs of matrix products, cut into tiles of rows by panels of sixteen columns that tasks
//! write at the same time. The cut changes no bit: each element is written by one task alone.

use super::PARALLEL_WORK_MIN;
use crate::aligned::LANES;
use crate::pool::{Parts, for_tasks, threads};

/// Most panels per task. A task's weights stay in the second cache while its rows pass.
const TASK_PANELS_MAX: usize = 8;
/// Fewest panels per task; a multiple of every tile width, as the most are.
const TASK_PANELS_MIN: usize = 4;
/// Tasks per thread that are aimed for: the last one to end should not be waited for long.
const TASKS_PER_THREAD: usize = 8;
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

/// The part of an output that one task writes: some rows, some columns.
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

    /// Panels that begin in the part.
    pub(crate) fn panels(&self) -> usize {
        self.columns.div_ceil(LANES)
    }
}

/// An output, `[rows, width]`, that tasks will write.
pub(crate) struct Output<'a> {
    /// Its elements.
    pub(crate) floats: &'a mut [f32],
    /// Elements of a row.
    pub(crate) width: usize,
}

/// Runs `task` for tiles that cover `outputs` once, all of them `rows` high; the first argument says
/// which output. `depth` is the number of inputs, for the choice between one thread and many.
///
/// # Panics
/// If an output has another length.
pub(crate) fn for_tiles(
    outputs: &mut [Output<'_>],
    rows: usize,
    depth: usize,
    task: impl Fn(usize, Tile, &mut Columns<'_>) + Sync,
) {
    let none = Lead { tasks: 0, run: |_| {} };
    for_tiles_after(&none, outputs, (rows, depth), |output, tile, _, columns| {
        task(output, tile, columns);
    });
}

/// Tasks that tiles wait for, sooner or later.
pub(crate) struct Lead<F> {
    /// How many.
    pub(crate) tasks: usize,
    /// One of them.
    pub(crate) run: F,
}

/// Where among all tiles one is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Its index.
    pub(crate) index: usize,
    /// Tiles.
    pub(crate) of: usize,
    /// The tile and its output that the same thread will likely have next, if its panels are new.
    pub(crate) then: Option<(usize, Tile)>,
}

/// As [`for_tiles`], in one round of the pool with other tasks: when a tile begins, each of those is
/// done or some thread is at it, so that a tile may wait for them.
///
/// # Panics
/// If an output has another length.
pub(crate) fn for_tiles_after<F: Fn(usize) + Sync>(
    lead: &Lead<F>,
    outputs: &mut [Output<'_>],
    (rows, depth): (usize, usize),
    task: impl Fn(usize, Tile, Turn, &mut Columns<'_>) + Sync,
) {
    let widths: Vec<usize> = outputs.iter().map(|output| output.width).collect();
    let parts: Vec<Parts<'_, f32>> = outputs
        .iter_mut()
        .map(|output| {
            assert_eq!(output.floats.len(), rows * output.width);
            Parts::of(output.floats)
        })
        .collect();
    let run = |output: usize, tile: Tile, turn: Turn| {
        let width = widths[output];
        let columns = (tile.panels * LANES).min(width - tile.panel * LANES);
        let first = parts[output].at(tile.row * width + tile.panel * LANES);
        let lifetime = std::marker::PhantomData;
        // Tiles cover disjoint ranges of rows and panels, so no element is in two `Columns`.
        let mut columns = Columns { first, stride: width, rows: tile.rows, columns, lifetime };
        task(output, tile, turn, &mut columns);
    };
    let width: usize = widths.iter().sum();
    if rows == 0 || width == 0 {
        return;
    }
    if rows * depth * width <= PARALLEL_WORK_MIN {
        (0..lead.tasks).for_each(&lead.run);
        for (output, width) in widths.iter().enumerate().filter(|(_, width)| **width > 0) {
            let turn = Turn { index: output, of: widths.len(), then: None };
            run(output, Tile { panel: 0, panels: width.div_ceil(LANES), row: 0, rows }, turn);
        }
        return;
    }
    let cut = Cut::new(&widths, rows);
    let threads = threads();
    for_tasks(lead.tasks + cut.tasks(), |index| match index.checked_sub(lead.tasks) {
        None => (lead.run)(index),
        Some(index) => {
            let (output, tile) = cut.tile(index);
            let then = Some(index + threads).filter(|then| *then < cut.tasks());
            let then = then.map(|then| cut.tile(then)).filter(|(_, tile)| tile.row == 0);
            run(output, tile, Turn { index, of: cut.tasks(), then });
        }
    });
}

/// How outputs are cut: panels first, so that tasks that follow each other share weights.
struct Cut {
    /// Per output its panels and the index of its first task; at the end the number of tasks.
    firsts: Vec<(usize, usize)>,
    rows: usize,
    row_tasks: usize,
    task_panels: usize,
}

impl Cut {
    fn new(widths: &[usize], rows: usize) -> Self {
        let panels: usize = widths.iter().map(|width| width.div_ceil(LANES)).sum();
        let row_tasks = rows.div_ceil(TASK_ROWS);
        let few = panels * row_tasks < TASK_PANELS_MAX * threads() * TASKS_PER_THREAD;
        let task_panels = if few { TASK_PANELS_MIN } else { TASK_PANELS_MAX };
        let mut firsts = Vec::with_capacity(widths.len() + 1);
        let mut tasks = 0;
        for width in widths {
            let panels = width.div_ceil(LANES);
            firsts.push((panels, tasks));
            tasks += panels.div_ceil(task_panels) * row_tasks;
        }
        firsts.push((0, tasks));
        Self { firsts, rows, row_tasks, task_panels }
    }

    fn tasks(&self) -> usize {
        self.firsts.last().map_or(0, |(_, tasks)| *tasks)
    }

    fn tile(&self, index: usize) -> (usize, Tile) {
        let output = self.firsts.partition_point(|(_, first)| *first <= index) - 1;
        let (panels, first) = self.firsts[output];
        let index = index - first;
        let panel = index / self.row_tasks * self.task_panels;
        let row = index % self.row_tasks * TASK_ROWS;
        let panels = self.task_panels.min(panels - panel);
        (output, Tile { panel, panels, row, rows: TASK_ROWS.min(self.rows - row) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn tiles_cover_every_element_once() {
        let mut pool = Pool::new(3).unwrap();
        for (rows, widths) in
            [(1, vec![1000, 16, 17]), (97, vec![129]), (200, vec![5, 300]), (1, vec![9000, 0, 1])]
        {
            let mut floats: Vec<Vec<f32>> =
                widths.iter().map(|width| vec![0.0; rows * width]).collect();
            let mut outputs: Vec<Output<'_>> = floats
                .iter_mut()
                .zip(&widths)
                .map(|(floats, width)| Output { floats, width: *width })
                .collect();
            let add = |_: usize, tile: Tile, columns: &mut Columns<'_>| {
                assert_eq!(columns.panels(), tile.panels);
                for row in 0..tile.rows {
                    for panel in 0..tile.panels {
                        columns.lanes(row, panel).iter_mut().for_each(|value| *value += 1.0);
                    }
                }
            };
            for_tiles(&mut outputs, rows, 1, add);
            pool.install(|| for_tiles(&mut outputs, rows, 1 << 16, add));
            assert!(floats.iter().flatten().all(|value| *value == 2.0));
        }
    }
}
